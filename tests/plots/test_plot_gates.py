"""Heat maps of gates: scales, pooling, margins, and the words that go with them."""

import json

import numpy as np
import pytest

from workbench import plots

MINUTES = np.datetime64("2024-05-01T00:00") + np.arange(96) * np.timedelta64(15, "m")


def gate(steps=96, units=5):
    return np.random.default_rng(0).uniform(0.1, 0.9, (steps, units))


def alt(fig):
    return fig.layout.meta["alt"]


def test_bounded_scale_is_fixed():
    axis = plots.gate_heatmap(0.5 + 0.001 * gate()).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (0, 1)


def test_values_are_drawn_time_across_and_unit_down():
    values = gate()
    fig = plots.gate_heatmap(values, steps=MINUTES)
    heat = fig.data[0]
    np.testing.assert_allclose(heat.z, values.T.astype(np.float32))
    assert fig.layout.yaxis.range == (4.5, -0.5)
    assert heat.x[0] == MINUTES[0]


def test_arrays_travel_as_float32():
    drawn = json.loads(plots.gate_heatmap(gate(1000, 64)).to_json())
    assert drawn["data"][0]["z"]["dtype"] == "f4"
    assert len(json.dumps(drawn)) < 500_000


def test_words_hold_the_true_extremes():
    values = gate(4000)
    values[1234, 3], values[77, 1] = 0.0123, 0.987
    said = alt(plots.gate_heatmap(values, pool_to=500))
    assert "0.0123 (step 1,234, unit 3)" in said
    assert "0.987 (step 77, unit 1)" in said
    assert "step, 0 to 3,999" in said
    assert "unit, 0 to 4" in said


def test_long_sequences_are_pooled_and_say_so():
    values = gate(8000)
    fig = plots.gate_heatmap(values)
    heat = fig.data[0]
    np.testing.assert_allclose(heat.z[:, 0], values[:8].mean(axis=0), rtol=1e-6)
    assert heat.z.shape == (5, 1000)
    assert "pooled 8:1 (mean)" in heat.hovertemplate
    assert "pooled 8:1 (mean)" in fig.layout.title.text
    assert "pooled 8:1 (mean)" in alt(fig)


def test_short_sequences_say_nothing_of_pooling():
    fig = plots.gate_heatmap(gate())
    assert "pooled" not in str(fig.layout.title.text) + alt(fig) + fig.data[0].hovertemplate


def test_many_units_are_pooled_too():
    fig = plots.gate_heatmap(gate(20, 1000))
    assert fig.data[0].z.shape == (250, 20)
    assert "units pooled 4:1" in alt(fig)


def test_missing_values_are_gaps_and_are_counted():
    values = gate()
    values[3:5, 2] = np.nan
    values[10] = np.nan
    fig = plots.gate_heatmap(values)
    assert np.isnan(fig.data[0].z).sum() == 7
    assert "7 missing values drawn as gaps" in alt(fig)
    assert "7 missing values" in fig.layout.title.text


@pytest.mark.parametrize("kind", ["bounded", "log", "positive", "signed", "steps"])
def test_nothing_but_gaps_is_drawn_without_complaint(kind):
    fig = plots.gate_heatmap(np.full((9, 2), np.nan), kind=kind)
    assert "Every value is missing" in alt(fig)


def test_saturation_is_counted_before_pooling():
    values = np.full((4000, 4), 0.5)
    values[::2, 0] = 0.001
    values[:, 1] = 0.999
    fig = plots.gate_heatmap(values)
    closed, opened = (trace for trace in fig.data if trace.type == "scatter" and trace.stackgroup)
    np.testing.assert_allclose(closed.y, 0.125)
    np.testing.assert_allclose(opened.y, 0.25)
    assert "12% of the values are closed (< 0.01), 25% open (> 0.99)" in alt(fig)


def test_log_gates_are_drawn_as_powers_of_ten_around_one():
    values = np.log(10.0) * np.linspace(-3, 2, 60).reshape(30, 2)
    fig = plots.gate_heatmap(values, kind="log", unit_label="head")
    axis = fig.layout.coloraxis
    assert axis.cmin == -axis.cmax
    assert fig.data[0].z.min() == pytest.approx(-3)
    assert "log10 of the gate from -3 (step 0, head 0) to 2 (step 29, head 1)" in alt(fig)
    assert "99.5th percentile" in fig.layout.title.text


def test_positive_scale_starts_at_zero_and_ignores_one_spike():
    values = np.random.default_rng(0).uniform(2, 3, (1000, 4))
    values[5, 1] = 1e6
    fig = plots.gate_heatmap(values, kind="positive")
    axis = fig.layout.coloraxis
    assert axis.cmin == 0
    assert 2.9 < axis.cmax < 3.1
    assert "colours end at 3, the 99.5th percentile" in fig.layout.title.text
    assert "1,000,000 (step 5, unit 1)" in alt(fig)


def test_half_lives_are_drawn_in_decades_up_to_the_sequence_length():
    values = np.array([[0.01, 10.0], [100.0, np.inf], [np.nan, 1e9]]).repeat(300, axis=0)
    fig = plots.gate_heatmap(values, kind="steps")
    drawn = fig.data[0].z
    np.testing.assert_allclose(drawn[:, 0], [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(drawn[1, -1], np.log10(900), rtol=1e-6)
    assert fig.layout.coloraxis.colorbar.ticktext == ("0.1", "1", "10", "100", "∞")
    assert fig.layout.coloraxis.cmax == pytest.approx(np.log10(900))
    assert "∞ is the sequence length, 900 steps, or more" in fig.layout.title.text
    assert "600 of 1,500 values reach the sequence length" in alt(fig)
    assert "Steps from 0.1 (step 0, unit 0) to 900 or more (step 300, unit 1)" in alt(fig)
    assert "300 missing values drawn as gaps" in alt(fig)


def test_pooled_half_lives_are_geometric_means():
    fig = plots.gate_heatmap(np.tile([[1.0], [100.0]], (1000, 1)), kind="steps", pool_to=1000)
    np.testing.assert_allclose(fig.data[0].z, 1)
    assert "steps pooled 2:1 (geometric mean)" in alt(fig)


@pytest.mark.parametrize(
    ("largest", "said"),
    [
        (100.0, "1 value above 88.7, where exp overflows float32"),
        (85.0, "the largest exponent, 85.0, is 3.7 below the overflow of exp in float32"),
        (20.0, "1 value above 11.1, where exp overflows float16"),
    ],
)
def test_nearness_to_overflow_is_said_and_marked(largest, said):
    values = np.zeros((50, 3))
    values[7, 1] = largest
    fig = plots.gate_heatmap(values, kind="log")
    assert said in alt(fig)
    highest = max(shape.y0 for shape in fig.layout.shapes) * np.log(10)
    assert highest == pytest.approx(88.72 if largest > 70 else 11.09, abs=0.01)
    largest_line = next(trace for trace in fig.data if trace.type == "scatter" and trace.line.dash == "dot")
    assert max(largest_line.y) == pytest.approx(largest / np.log(10))


def test_nothing_is_said_of_overflow_far_from_it():
    fig = plots.gate_heatmap(np.ones((50, 3)), kind="log")
    assert "overflow" not in alt(fig) + fig.layout.title.text
    assert not fig.layout.shapes


def test_signed_scale_is_symmetric_and_ignores_one_spike():
    values = np.random.default_rng(0).normal(size=(1000, 4))
    values[5, 1] = 1e6
    axis = plots.gate_heatmap(values, kind="signed").layout.coloraxis
    assert axis.cmin == -axis.cmax
    assert axis.cmax < 10


def test_what_is_no_gate_is_refused():
    with pytest.raises(ValueError, match=r"values run from 0 to 3.2, outside \[0, 1\].*kind='log'"):
        plots.gate_heatmap([[3.2, 0.1]])
    with pytest.raises(ValueError, match="kind='linear' is unknown; choose one of 'bounded', 'log', 'positive'"):
        plots.gate_heatmap([[0.2, 0.1]], kind="linear")
    with pytest.raises(ValueError, match="values go down to -1, below 0 of a positive quantity"):
        plots.gate_heatmap([[-1.0, 0.1]], kind="positive")
    with pytest.raises(ValueError, match="values go down to -2, and steps are 0 or more"):
        plots.gate_heatmap([[-2.0, 0.1]], kind="steps")
    with pytest.raises(ValueError, match=r"values has shape \(2,\); it needs \(time, unit\)"):
        plots.gate_heatmap([0.2, 0.1])


def test_overview_has_one_scale():
    fig = plots.gate_overview({"input": gate(), "forget": gate() * 0.1, "output": gate()})
    assert {trace.coloraxis for trace in fig.data} == {"coloraxis"}
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 1)
    assert [note.text for note in fig.layout.annotations] == ["input", "forget", "output"]
    assert "3 heat maps on one scale" in alt(fig)


def test_overview_wants_one_length():
    with pytest.raises(ValueError, match=r"different lengths \[95, 96\]"):
        plots.gate_overview({"a": gate(95), "b": gate(96)})
    with pytest.raises(ValueError, match="gates is empty"):
        plots.gate_overview({})


def test_height_is_fixed_whatever_the_size():
    heights = {plots.gate_heatmap(gate(*size), title="t").layout.height for size in ((10, 2), (500, 200))}
    assert len(heights) == 1
