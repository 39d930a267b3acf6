"""Tiles: 16 bits with a stated error, exact pooling, and never more of a trace than the stretch that is asked for."""

import numpy as np
import pytest

from workbench.widgets.tiles import (
    CHUNK,
    COLUMNS,
    FACTOR,
    GONE,
    Difference,
    levels,
    pool,
    quantise,
    restore,
    stretch,
    tiles_at,
)


class Counted:
    """A source that remembers what it was asked for."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def read(self, name, start=0, stop=None):
        stop = self.values.shape[2] if stop is None else stop
        self.asked.append((start, stop))
        return self.values[:, :, start:stop]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e30])
def test_a_tile_is_off_by_at_most_its_range_over_65534(size):
    values = noise(1, 1, 700, 5) * np.float32(size)
    tile = tiles_at(Counted(values), "cell.forget", 700, 0, 1, "signed")[0, 0]
    assert tile.codes.shape == (1, 5, 700 - COLUMNS)
    wrong = np.abs(restore(tile)[0].T - values[0, 0, COLUMNS:])
    assert 0 < wrong.max() <= (tile.high - tile.low) / 65534


def test_what_is_not_a_number_has_a_code_of_its_own_and_is_counted():
    values = noise(1, 1, 40, 3)
    values[0, 0, 10:14, 1] = np.nan
    tile = tiles_at(Counted(values), "cell.forget", 40, 0, 0, "signed")[0, 0]
    assert tile.missing == 4
    np.testing.assert_array_equal(tile.codes[0] == GONE, np.isnan(values[0, 0]).T)


def test_infinities_are_counted_and_drawn_at_the_ends():
    values = noise(1, 1, 40, 3)
    values[0, 0, 5, 0], values[0, 0, 6, 2], values[0, 0, 7, 2] = np.inf, -np.inf, -np.inf
    tile = tiles_at(Counted(values), "cell.forget", 40, 0, 0, "signed")[0, 0]
    finite = values[np.isfinite(values)]
    assert tile.infinite == 3
    assert tile.missing == 0
    assert (tile.low, tile.high) == (finite.min(), finite.max())
    assert restore(tile)[0, 0, 5] == tile.high
    assert restore(tile)[0, 2, 6] == tile.low


def test_constants_and_nothing_at_all_survive():
    codes, low, high = quantise(np.full((2, 3), 0.25))
    assert (low, high) == (0.25, 0.25)
    assert set(codes.ravel()) == {0}
    codes, low, high = quantise(np.full((2, 3), np.nan))
    assert (low, high) == (0.0, 0.0)
    assert set(codes.ravel()) == {GONE}


@pytest.mark.parametrize("steps", [64, 61, 3])
def test_pooling_is_numpy_s_mean_lowest_and_highest(steps):
    values = noise(2, steps, 3)
    values[0, 1, 0] = np.nan
    blocks = [values[:, at : at + 4].astype(np.float64) for at in range(0, steps, 4)]
    for found, exact in zip(pool(values, 4), (np.nanmean, np.nanmin, np.nanmax), strict=True):
        np.testing.assert_allclose(
            found, np.stack([exact(block, axis=1) for block in blocks], 1), rtol=2e-7
        )  # rounded once


def test_a_block_without_numbers_pools_to_none():
    assert all(np.isnan(plane).all() for plane in pool(np.full((1, 4, 2), np.nan, dtype=np.float32), 4))


def test_a_pooled_tile_holds_three_planes_of_its_own_columns():
    values = noise(1, 2, 5000, 3)
    tile = tiles_at(Counted(values), "cell.forget", 5000, 1, 1, "signed")[0, 1]
    exact = values[0, 1, COLUMNS * FACTOR : 2 * COLUMNS * FACTOR].reshape(COLUMNS, FACTOR, 3)
    near = (tile.high - tile.low) / 65534
    for plane, pooled in zip(restore(tile), (exact.mean(1), exact.min(1), exact.max(1)), strict=True):
        np.testing.assert_allclose(plane.T, pooled, atol=near)


@pytest.mark.parametrize(("level", "index"), [(0, 3), (3, 7), (5, 1)])
def test_no_tile_reads_outside_its_stretch_or_much_at_once(level, index):
    source = Counted(np.zeros((1, 1, 1_000_000, 16), dtype=np.float32))
    tiles_at(source, "cell.forget", 1_000_000, level, index, "bounded")
    first, end = index * COLUMNS * FACTOR**level, min((index + 1) * COLUMNS * FACTOR**level, 1_000_000)
    assert all(first <= start < stop <= end for start, stop in source.asked)
    assert max(stop - start for start, stop in source.asked) * 16 <= max(CHUNK, FACTOR**level * 16)
    assert sum(stop - start for start, stop in source.asked) <= end - first + 1  # and one step for the shape


def test_a_million_steps_have_six_levels_and_a_thousand_have_one():
    assert (levels(1), levels(1024), levels(1025), levels(1_000_000)) == (1, 1, 2, 6)


def test_a_place_behind_the_end_is_refused():
    with pytest.raises(ValueError, match="has 40 steps, and no tile 1 at level 0"):
        tiles_at(Counted(noise(1, 1, 40, 3)), "cell.forget", 40, 0, 1, "signed")


def test_half_lives_come_as_logarithms_and_heads_as_rows():
    steps = np.array([[[1.0, 10.0], [100.0, np.inf]]], dtype=np.float32)  # (batch, head, time)
    rows = stretch(Counted(steps), "cell.half_life", 0, 2, "steps")
    np.testing.assert_allclose(rows, [[[[0, 2], [1, np.inf]]]], atol=1e-6)


def test_a_difference_of_equal_infinities_is_none():
    a, b = (Counted(np.array([[[np.inf, 2.0]]], dtype=np.float32)) for _ in range(2))
    np.testing.assert_array_equal(Difference(a, b).read("x"), [[[0.0, 0.0]]])
