"""What is left of a write, and for how long: the product of the gates, heads and units, the end of the trace."""

import numpy as np
import pytest

from workbench import plots
from workbench.plots.reach import reach


def gates(steps=400, heads=3):
    return np.random.default_rng(0).uniform(-0.05, -0.001, (steps, heads))


def alt(fig):
    return fig.layout.meta["alt"]


def test_a_write_fades_by_the_gates_after_it():
    log_f = gates()
    fig = plots.retention(log_f, at=[20])
    assert [trace.name for trace in fig.data] == ["head 0", "head 1", "head 2"]
    assert fig.data[0].y[0] == 1
    for steps in (1, 7, 100):
        expected = np.prod(np.exp(log_f[21 : 21 + steps, 1]))
        assert fig.data[1].y[steps] == pytest.approx(expected, rel=1e-5)


def test_several_writes_have_a_line_each_and_heads_a_band():
    fig = plots.retention(gates(), at=[100, 0])
    assert [trace.name for trace in fig.data if trace.name] == ["written at step 0", "written at step 100"]
    assert [len(trace.y) for trace in fig.data if trace.name] == [400, 300]
    assert sum(trace.fill == "tonexty" for trace in fig.data) == 2
    assert "line: median, band: middle half" in fig.layout.meta["subtitle"]


def test_what_is_left_at_the_lag_is_said_and_marked():
    fig = plots.retention(np.full(500, np.log(0.5) / 96), at=[0], lag=96)
    assert fig.layout.meta["title"] == "50 % of a write is left 96 steps later"
    assert any(shape.x0 == 96 for shape in fig.layout.shapes)
    assert any("the task's lag, 96" in note.text for note in fig.layout.annotations)


def test_the_half_is_found():
    assert "Half of a write is gone after 25 steps" in alt(plots.retention(np.full(100, np.log(0.5) / 24.5)))
    assert "More than half of every write is left at the end" in alt(plots.retention(np.zeros(100)))


def test_a_lag_beyond_the_trace_is_said():
    assert plots.retention(np.zeros(10), lag=50).layout.meta["title"] == "No curve reaches 50 steps later"


def test_a_missing_gate_ends_the_line():
    log_f = np.full(50, -0.01)
    log_f[10] = np.nan
    fig = plots.retention(log_f)
    assert np.isfinite(fig.data[0].y[:10]).all()
    assert np.isnan(fig.data[0].y[10:]).all()
    assert "1 missing value end a line" in alt(fig)


def test_a_gate_that_is_shut_leaves_nothing():
    log_f = np.zeros(20)
    log_f[5] = -np.inf
    fig = plots.retention(log_f)
    assert fig.data[0].y[4] == 1
    assert (fig.data[0].y[5:] == 0).all()


def test_logarithmic_axes_have_a_floor_that_is_said():
    fig = plots.retention(np.full(2000, -0.05), log=True)
    assert (fig.layout.xaxis.type, fig.layout.yaxis.type) == ("log", "log")
    assert min(fig.data[0].y) == pytest.approx(1e-4)
    assert "less than 0.0001 is drawn there" in fig.layout.meta["subtitle"]


def test_reach_is_the_number_of_steps_until_the_share_is_left():
    log_f = gates(300, 2)
    window = 150
    found = reach(log_f.reshape(300, 2, 1), 0.5, window)
    assert found.shape == (2, 1, 150)
    for head in range(2):
        for write in (0, 17, 149):
            left = np.exp(np.cumsum(log_f[write + 1 :, head]))
            expected = min(np.argmax(left <= 0.5) + 1 if (left <= 0.5).any() else window, window)
            assert found[head, 0, write] == expected


def test_reach_of_a_constant_gate_is_its_half_life():
    half_lives = np.array([10.0, 40.0])
    fig = plots.memory_reach(np.tile(np.log(0.5) / half_lives, (1000, 1)), shares=[0.5, 0.25])
    medians = {trace.name: list(trace.x) for trace in fig.data if trace.name}
    assert medians == {"50% left": [10, 40], "25% left": [20, 80]}
    assert "50% left after 10 steps in head 0, 40 in head 1 (medians)" in alt(fig)


def test_what_outlasts_the_window_is_said_to_be_longer():
    fig = plots.memory_reach(np.zeros((100, 2)))
    assert "50% left after 50 or more steps in every head (median)" in alt(fig)
    assert any("followed to 50" in note.text for note in fig.layout.annotations)


def test_writes_whose_gates_are_missing_are_not_counted():
    log_f = np.full((100, 1, 1), np.log(0.5) / 5)
    log_f[20] = np.nan
    found = reach(log_f, 0.5, 50)[0, 0]
    assert np.isnan(found[15:21]).all()
    assert (found[:15] == 5).all()
    assert (found[21:] == 5).all()


def test_units_of_a_head_are_pooled():
    log_f = np.log(0.5) / np.array([[[10.0, 20.0, 30.0]]]).repeat(400, axis=0)
    fig = plots.memory_reach(log_f, shares=[0.5])
    assert list(fig.data[1].x) == [20]


def test_bad_input_is_said():
    with pytest.raises(ValueError, match=r"at=\[400\] must name one step or more of 0 to 399"):
        plots.retention(gates(), at=[400])
    with pytest.raises(ValueError, match="at has 7 writes, and 6 can be told apart; see memory_reach"):
        plots.retention(gates(), at=range(7))
    with pytest.raises(ValueError, match=r"log_forget has shape \(1, 2, 3, 4\)"):
        plots.retention(np.zeros((1, 2, 3, 4)))
    with pytest.raises(ValueError, match=r"shares=\[1.5\] must be one to three numbers between 0 and 1"):
        plots.memory_reach(gates(), shares=[1.5])
    with pytest.raises(ValueError, match="log_forget has 65 heads, and 64 can be drawn"):
        plots.memory_reach(gates(heads=65))
    with pytest.raises(ValueError, match="log_forget has 1 step"):
        plots.memory_reach(gates(steps=1))
