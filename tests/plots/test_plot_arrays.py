"""Pooling and thinning: nothing is lost that a reader would look for."""

import numpy as np
import pytest

from workbench.plots.arrays import as_numbers, as_steps, block_size, min_max, pool_mean, pool_steps, quantiles
from workbench.plots.labels import spread


@pytest.mark.parametrize("length", [1, 7, 8, 9, 1000])
@pytest.mark.parametrize("size", [1, 2, 8])
def test_pooled_values_are_means_of_neighbours(length, size):
    values = np.random.default_rng(0).normal(size=(length, 3))
    expected = [values[i : i + size].mean(axis=0) for i in range(0, length, size)]
    np.testing.assert_allclose(pool_mean(values, size), expected)


def test_pooling_passes_over_missing_values():
    values = np.array([[1.0], [np.nan], [np.nan], [np.nan], [4.0]])
    np.testing.assert_allclose(pool_mean(values, 2), [[1.0], [np.nan], [4.0]])


@pytest.mark.parametrize(("length", "to"), [(1000, 1000), (1001, 1000), (8064, 1000), (5, 1)])
def test_blocks_fit_the_screen(length, to):
    assert -(-length // block_size(length, to)) <= to


def test_pooled_steps_are_the_middle_of_their_block():
    np.testing.assert_allclose(pool_steps(np.arange(5), 2), [0.5, 2.5, 4])
    times = np.array(["2024-01-01T00:00", "2024-01-01T00:30", "2024-01-01T01:00"], dtype="datetime64[s]")
    assert pool_steps(times, 2)[0] == np.datetime64("2024-01-01T00:15:00")


def test_thinning_keeps_every_spike_end_and_gap():
    y = np.sin(np.arange(100_000) / 5000)
    y[12_345], y[67_890], y[50_000:50_200] = 9.0, -9.0, np.nan
    x, thin, size = min_max(np.arange(len(y)), y)
    assert size == 100
    assert len(thin) < 3100
    assert {0, 12_345, 67_890, len(y) - 1} <= set(x.tolist())
    assert np.nanmax(thin) == 9
    assert np.nanmin(thin) == -9
    assert np.isnan(thin[(x >= 50_000) & (x < 50_200)]).any()
    assert (np.diff(x) > 0).all()


@pytest.mark.parametrize("length", [5001, 5002, 99_999])
def test_thinning_invents_no_gap_and_no_point(length):
    y = np.random.default_rng(0).normal(size=length)
    x, thin, _ = min_max(np.arange(length), y)
    np.testing.assert_array_equal(thin, y[x])


def test_short_lines_are_left_alone():
    y = np.random.default_rng(0).normal(size=5000)
    _, thin, size = min_max(np.arange(5000), y)
    assert size == 1
    np.testing.assert_array_equal(thin, y)


def test_thinning_grows_no_faster_than_the_line():
    counts = [len(min_max(np.arange(n), np.random.default_rng(0).normal(size=n))[1]) for n in (100_000, 1_000_000)]
    assert max(counts) <= 2100


def test_quantiles_agree_with_numpy_row_by_row():
    values = np.random.default_rng(0).normal(size=(40, 9))
    values[np.random.default_rng(1).uniform(size=values.shape) < 0.4] = np.nan
    values[3] = np.nan
    shares = [0.1, 0.25, 0.5, 0.9]
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
        expected = np.nanquantile(values, shares, axis=1)
    np.testing.assert_allclose(quantiles(values, shares), expected)


def test_labels_keep_their_distance_and_their_order():
    wanted = [100.0, 102.0, 10.0, 101.0]
    placed = spread(wanted, 300)
    assert np.diff(sorted(placed)).min() >= 17
    assert np.argsort(placed).tolist() == np.argsort(wanted).tolist()
    assert max(spread([299.0, 298.0, 300.0], 300)) <= 300


def test_wrong_shapes_are_said():
    with pytest.raises(ValueError, match=r"values has shape \(3,\); it needs \(time, unit\)"):
        as_numbers("values", np.zeros(3), "(time, unit)", 2)
    with pytest.raises(ValueError, match="values is empty"):
        as_numbers("values", np.zeros((0, 3)), "(time, unit)", 2)
    with pytest.raises(ValueError, match=r"steps has shape \(2,\), and the values have 3 steps"):
        as_steps("steps", [0, 1], 3)
    with pytest.raises(ValueError, match="pool_to=0"):
        block_size(10, 0)
