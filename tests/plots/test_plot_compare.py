"""Two runs, many checkpoints, one matrix, all units."""

import numpy as np
import pytest

from workbench import plots
from workbench.plots.matrices import effective_rank


def gate(steps=200, units=4, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 0.8, (steps, units))


def alt(fig):
    return fig.layout.meta["alt"]


def test_a_difference_is_a_minus_b_around_zero():
    a, b = gate(), gate(seed=1)
    fig = plots.difference(a, b)
    np.testing.assert_allclose(fig.data[0].z, (a - b).T, rtol=1e-5, atol=1e-7)
    limit = np.quantile(np.abs(a - b), 0.995)
    assert fig.layout.coloraxis.cmax == pytest.approx(limit)
    assert fig.layout.coloraxis.cmin == pytest.approx(-limit)
    assert f"±{limit:.3g}, the 99.5th percentile" in fig.layout.meta["subtitle"]


def test_a_difference_states_the_largest_and_the_mean():
    b = gate()
    a = b.copy()
    a[30, 2] -= 0.1
    fig = plots.difference(a, b, names=("before", "after"), title="What training did")
    assert fig.layout.meta["title"] == "What training did: differences of up to 0.1, 0.000125 in the mean"
    assert "The largest is -0.1 at step 30, unit 2" in alt(fig)
    assert "before minus after" in alt(fig)


def test_no_difference_is_said():
    assert plots.difference(gate(), gate()).layout.meta["title"] == "No difference: a and b are equal in all 800 values"


def test_different_shapes_are_refused_with_both():
    with pytest.raises(ValueError, match=r"a has shape \(200, 4\) and b has shape \(100, 4\)"):
        plots.difference(gate(), gate(100))


def test_training_goes_across_on_one_scale():
    values = gate(6, 50)
    steps = [0, 10, 20, 50, 100, 200]
    fig = plots.gates_through_training(values, steps, marks={"loss halves": 30})
    heat, line = fig.data[0], fig.data[-1]
    np.testing.assert_allclose(heat.z, values.T, rtol=1e-6)
    assert list(heat.x) == steps
    assert list(line.x) == steps
    np.testing.assert_allclose(line.y, values.mean(axis=1), rtol=1e-6)
    assert line.mode == "lines+markers"
    assert fig.layout.yaxis2.range == (0, 1)
    assert {shape.x0 for shape in fig.layout.shapes} == {30}
    assert "loss halves at update 30" in alt(fig)
    assert f"from {values[0].mean():.3g} at update 0 to {values[-1].mean():.3g} at 200" in alt(fig)


def test_half_lives_through_training_end_at_the_length_of_the_probe():
    fig = plots.gates_through_training(np.full((3, 96), 1e9), [0, 1, 2], kind="steps")
    assert "∞ is the sequence length, 96 steps, or more" in fig.layout.meta["subtitle"]
    capped = plots.gates_through_training(np.full((3, 4), 1e9), [0, 1, 2], kind="steps", cap=500)
    np.testing.assert_allclose(capped.data[0].z, np.log10(500), rtol=1e-6)


def test_checkpoints_must_rise():
    with pytest.raises(ValueError, match=r"steps must rise .* they start with \[0.0, 5.0, 5.0\]"):
        plots.gates_through_training(gate(3), [0, 5, 5])


def test_the_matrix_stands_beside_its_singular_values():
    memory = np.diag([3.0, 2.0, 1.0, 0.0])[:, :3]
    fig = plots.matrix(memory)
    np.testing.assert_allclose(fig.data[0].z, memory)
    np.testing.assert_allclose(fig.data[1].y, [3, 2, 1], rtol=1e-6)
    rank = (9 + 4 + 1) ** 2 / (81 + 16 + 1)
    assert f"effective rank {rank:.1f} of 3, norm 3.74" in fig.layout.meta["subtitle"]
    assert "key unit, 0 to 3. Across: value unit, 0 to 2" in alt(fig)


@pytest.mark.parametrize("pairs", [1, 3, 8])
def test_effective_rank_counts_pairs_under_orthogonal_keys(pairs):
    rng = np.random.default_rng(0)
    keys, values = (np.linalg.qr(rng.normal(size=(8, 8)))[0][:, :pairs] for _ in range(2))
    assert effective_rank(np.linalg.svd(keys @ values.T, compute_uv=False)) == pytest.approx(pairs)
    assert effective_rank(np.zeros(4)) == 0


def test_an_empty_memory_and_a_large_one_are_said():
    assert plots.matrix(np.zeros((4, 4))).layout.meta["title"] == "An empty memory"
    with pytest.raises(ValueError, match=r"memory has shape \(1025, 2\), and 1,024 by 1,024 can be drawn"):
        plots.matrix(np.zeros((1025, 2)))


def test_saturation_is_counted_for_each_unit_and_sorted():
    values = np.full((100, 3), 0.5)
    values[:80, 1] = 0.001
    values[:60, 2] = 0.999
    values[60:70, 2] = 0.001
    fig = plots.saturation(values)
    closed, opened = fig.data
    assert list(closed.customdata) == [1, 0, 2]
    np.testing.assert_allclose(closed.y, [0.8, 0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(opened.y, [0, 0, 0.6], rtol=1e-6)
    np.testing.assert_allclose(np.add(opened.base, opened.y).astype(float), 1, rtol=1e-6)
    assert fig.layout.meta["title"] == "1 of 3 units closed most of the time, 1 open"
    assert "30% are closed (< 0.01), 20% open (> 0.99)" in fig.layout.meta["subtitle"]
    assert "unit 1 is closed most, on 80% of its steps" in alt(fig)


def test_saturation_wants_a_bounded_gate():
    with pytest.raises(ValueError, match=r"values run from 0 to 3, outside \[0, 1\]"):
        plots.saturation(np.full((9, 2), 3.0))
    with pytest.raises(ValueError, match="values has 1,025 units"):
        plots.saturation(np.zeros((2, 1025)))
