"""Lanes over one time axis: health of a memory, writes of the delta rule, surprise."""

import itertools

import numpy as np
import pytest

from workbench import plots


def lengths(steps=200, heads=3, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 2, (steps, heads))


def alt(fig):
    return fig.layout.meta["alt"]


def captions(fig):
    return [note.text for note in fig.layout.annotations]


def test_a_lane_without_an_array_is_left_out():
    assert captions(plots.state_health(lengths(), lengths())) == ["State norm", "Effective rank of the state"]
    assert captions(plots.write_lanes(strength=lengths() / 2)) == ["Write strength"]


def test_lanes_share_the_time_axis():
    fig = plots.state_health(lengths(), lengths(), -lengths(), lengths())
    assert {trace.xaxis for trace in fig.data} == {"x"}
    assert {trace.yaxis for trace in fig.data} == {"y", "y2", "y3", "y4"}
    assert fig.layout.xaxis.anchor == "y4"
    domains = [fig.layout[f"yaxis{key}"].domain for key in ("", 2, 3, 4)]
    assert all(upper[0] > lower[1] for upper, lower in itertools.pairwise(domains))


def test_one_entry_in_the_legend_switches_a_head_in_every_lane():
    fig = plots.state_health(lengths(), lengths())
    assert [trace.name for trace in fig.data if trace.showlegend] == ["head 0", "head 1", "head 2"]
    assert sum(trace.legendgroup == "head 1" for trace in fig.data) == 2


def test_many_heads_are_a_median_and_the_whole_range():
    norm = lengths(heads=20)
    fig = plots.state_health(norm)
    low, high, middle = fig.data
    np.testing.assert_allclose(low.y, norm.min(axis=1), rtol=1e-6)
    np.testing.assert_allclose(high.y, norm.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(middle.y, np.median(norm, axis=1), rtol=1e-6)
    assert "line: median of 20, band: lowest to highest" in fig.layout.meta["subtitle"]


def test_words_hold_the_extremes_and_their_place():
    norm = lengths()
    norm[50, 2], norm[7, 1] = 40.0, 0.125
    said = alt(plots.state_health(norm))
    assert "State norm: from 0.125 (step 7, head 1) to 40 (step 50, head 2)" in said
    assert plots.state_health(norm).layout.meta["title"] == "The state norm reaches 40"


def test_zeros_on_a_logarithmic_axis_are_counted():
    norm = lengths()
    norm[0] = 0
    fig = plots.state_health(norm)
    assert "3 zeros below a logarithmic axis" in fig.layout.meta["subtitle"]
    assert np.isnan(fig.data[0].y[0])


def test_distance_to_overflow_is_said():
    assert "Exponents stay 88.7 below the overflow of float32" in alt(plots.state_health(exponent=np.zeros((9, 2))))
    over = plots.state_health(exponent=np.linspace(0, 100, 50))
    assert "6 values above 88.7, where exp overflows float32" in alt(over)
    assert any(shape.y0 == pytest.approx(88.72, abs=0.01) for shape in over.layout.shapes)


def test_the_lower_bound_of_the_normaliser_is_marked_where_it_is_active():
    bound = np.ones((100, 2))
    normalizer = np.full((100, 2), 3.0)
    normalizer[:25, 0] = 1
    fig = plots.state_health(normalizer=normalizer, bound=bound)
    shade = next(trace for trace in fig.data if trace.type == "heatmap")
    np.testing.assert_allclose(shade.z[0], np.where(np.arange(100) < 25, 0.5, 0))
    assert "The normaliser is on its lower bound in 12% of the values" in alt(fig)
    assert "grey: share of heads on its lower bound" in captions(fig)[0]


def test_the_write_strength_starts_at_zero_and_lengths_are_logarithmic():
    fig = plots.write_lanes(lengths(), lengths() / 2, lengths())
    assert [fig.layout[f"yaxis{key}"].type for key in ("", 2, 3)] == ["log", None, "log"]
    assert fig.layout.yaxis2.range[0] == 0


def test_the_most_surprising_steps_are_named_and_ringed():
    surprise = lengths()
    for rank, step in enumerate((150, 20, 77)):
        surprise[step] = 30 - 5 * rank
    fig = plots.surprise_lanes(surprise, top=3)
    assert "most surprising steps: 150, 20, 77" in fig.layout.meta["subtitle"]
    assert "Most surprising steps: 150, 20, 77" in alt(fig)
    assert fig.layout.meta["title"] == "Most surprised at step 150"
    rings = fig.data[-1]
    assert list(rings.x) == [150, 20, 77]
    assert list(rings.y) == [30, 25, 20]


def test_gates_are_strips_on_their_own_fixed_scale():
    gate = lengths() / 4
    fig = plots.surprise_lanes(lengths(), lengths(), forget=gate, momentum=gate, step_size=gate / 10)
    forget, momentum, step_size = (trace for trace in fig.data if trace.type == "heatmap")
    np.testing.assert_allclose(forget.z, gate.T, rtol=1e-6)
    assert (forget.zmin, forget.zmax, momentum.zmax) == (0, 1, 1)
    assert 0.04 < step_size.zmax < 0.06
    assert captions(fig)[2] == "Forget gate, dark 0 … bright 1"
    assert captions(fig)[4].startswith("Step size, dark 0 … bright 0.0")


def test_bad_input_is_said():
    with pytest.raises(ValueError, match="each array is None"):
        plots.write_lanes()
    with pytest.raises(ValueError, match="the numbers of steps differ: error has 200, strength has 100"):
        plots.write_lanes(lengths(), lengths(100))
    with pytest.raises(ValueError, match="norm goes down to -1, and a length is 0 or more"):
        plots.state_health(-np.ones((9, 2)))
    with pytest.raises(ValueError, match=r"bound has shape \(200, 3\), and the normalizer is none"):
        plots.state_health(lengths(), bound=lengths())
    with pytest.raises(ValueError, match=r"values run from 0 to 2, outside \[0, 1\]"):
        plots.surprise_lanes(lengths(), forget=np.full((200, 3), 2.0))
