"""Forecasts, errors, profiles of the data, losses."""

import numpy as np
import pytest

from workbench import plots

TIMES = np.datetime64("2024-05-01T00:00") + np.arange(120) * np.timedelta64(15, "m")
HISTORY, TRUTH = np.arange(96.0), np.arange(24.0)


def alt(fig):
    return fig.layout.meta["alt"]


def labels(fig):
    return [note.text.split("</span> ")[-1] for note in fig.layout.annotations if "━" in note.text]


def drawn(fig, name):
    return next(trace for trace in fig.data if trace.name == name)


def test_forecast_starts_where_the_history_ends():
    fig = plots.forecast(TIMES, HISTORY, TRUTH, {"naive": TRUTH + 2}, unit="vehicles")
    assert drawn(fig, "naive").x[0] == TIMES[96]
    cut = next(shape for shape in fig.layout.shapes if shape.type == "line")
    assert np.datetime64(cut.x0) == TIMES[96]
    assert fig.layout.yaxis.title.text == "vehicles"


def test_forecast_states_its_errors_and_extremes():
    fig = plots.forecast(TIMES, HISTORY, TRUTH, {"naive": TRUTH + 2, "ridge": TRUTH - 0.5}, unit="vehicles")
    assert "ridge 0.5, naive 2" in alt(fig)
    assert "from 0 (2024-05-01 00:00) to 95 (2024-05-01 23:45)" in alt(fig)
    assert "the forecast starts at 2024-05-02 00:00" in alt(fig)
    assert "ridge comes closest" in fig.layout.title.text


def test_forecast_labels_every_line_directly():
    same = dict.fromkeys(("a", "b", "c", "d", "e"), TRUTH)
    fig = plots.forecast(TIMES, HISTORY, TRUTH, same)
    assert sorted(labels(fig)) == ["a", "b", "c", "d", "e", "measured"]
    heights = sorted(note.ay for note in fig.layout.annotations if "━" in note.text)
    assert np.diff(heights).min() >= 16


def test_bands_are_drawn_below_their_median():
    band = {"median": TRUTH, "low": TRUTH - 1, "high": TRUTH + 1}
    fig = plots.forecast(TIMES, HISTORY, TRUTH, {"xLSTM": band})
    names = [trace.name for trace in fig.data]
    assert [trace.fill for trace in fig.data].index("tonexty") < names.index("xLSTM")


def test_an_unknown_future_is_no_error():
    fig = plots.forecast(TIMES, HISTORY, np.full(24, np.nan), {"naive": TRUTH})
    assert "24 missing values" in alt(fig)
    assert "Forecast of the next 24 steps" in fig.layout.title.text


def test_forecasts_of_the_wrong_length_or_shape_are_refused():
    with pytest.raises(ValueError, match=r"predictions\['naive'\] median has 3 steps, and the truth has 24"):
        plots.forecast(TIMES, HISTORY, TRUTH, {"naive": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"has the keys \['low', 'median'\]"):
        plots.forecast(TIMES, HISTORY, TRUTH, {"naive": {"median": TRUTH, "low": TRUTH}})
    with pytest.raises(ValueError, match=r"times has shape \(96,\), and the values have 120 steps"):
        plots.forecast(TIMES[:96], HISTORY, TRUTH, {})


def test_errors_by_horizon_start_at_zero_and_count_hours():
    fig = plots.errors_by_horizon({"a": [1.0, 2.0, 4.0], "b": [1.0, 1.5, 1.25]}, step_hours=0.5, unit="vehicles")
    np.testing.assert_allclose(fig.data[0].x, [0.5, 1, 1.5])
    assert fig.layout.yaxis.range[0] == 0
    assert "a: mean 2.33, smallest 1 at 0.5 h, largest 4 at 1.5 h" in alt(fig)
    assert "b has the smallest mean error" in fig.layout.title.text


def test_errors_by_horizon_want_one_length():
    with pytest.raises(ValueError, match=r"different lengths \[2, 3\]"):
        plots.errors_by_horizon({"a": [1, 2, 3], "b": [1, 2]}, step_hours=1)


def test_error_bars_are_sorted_and_state_n():
    fig = plots.error_bars({"bad": [3.0, 5.0, 4.0], "good": (1.0, 0.5, 1.5)}, unit="EUR")
    assert fig.layout.yaxis.ticktext == ("good", "bad")
    assert "n = 3 seeds" in fig.layout.title.text
    assert "good: 1 (0.5 to 1.5); bad: 4 (3 to 5)" in alt(fig)


def test_error_bars_refuse_what_is_no_interval():
    with pytest.raises(ValueError, match="pass values of several seeds as a list"):
        plots.error_bars({"a": (0.5, 0.6, 0.7)})
    with pytest.raises(ValueError, match="1 missing seeds; leave them out"):
        plots.error_bars({"a": [0.5, float("nan")]})
    with pytest.raises(ValueError, match="errors is empty"):
        plots.error_bars({})


def test_one_series_becomes_days_by_time_of_day():
    times = np.datetime64("2024-05-01T00:00") + np.arange(4 * 96) * np.timedelta64(15, "m")
    values = np.arange(4 * 96.0)
    values[100] = np.nan
    keep = np.arange(len(values)) != 200
    fig = plots.profile(times[keep], values[keep], unit="vehicles")
    grid = fig.data[0].z
    assert grid.shape == (4, 96)
    assert grid[3, 95] == 383
    assert np.isnan(grid[1, 4])
    assert np.isnan(grid[2, 8])
    assert "2 missing values" in alt(fig)
    assert "from 0 (2024-05-01 00:00) to 383 (2024-05-04 23:45) vehicles" in alt(fig)


def test_many_series_share_one_scale():
    values = np.random.default_rng(0).uniform(0, 10, (120, 6))
    values[5, 3] = 99
    fig = plots.profile(TIMES, values, names=list("abcdef"), unit="vehicles")
    ranges = {fig.layout[f"yaxis{i if i > 1 else ''}"].range for i in range(1, 7)}
    assert len(ranges) == 1
    assert "to 99 (d, 2024-05-01 01:15)" in alt(fig)


def test_profile_wants_times_and_names():
    with pytest.raises(ValueError, match="profile needs datetime64"):
        plots.profile(np.arange(120), np.zeros(120))
    with pytest.raises(ValueError, match="names has 1 entries, and values has 2 series"):
        plots.profile(TIMES, np.zeros((120, 2)), names=["a"])


@pytest.mark.parametrize("log", [False, True])
def test_best_validation_loss_is_ringed(log):
    steps = np.arange(100)
    valid = 1 + (steps - 60) ** 2 / 1000
    fig = plots.loss_curves({"xLSTM": (steps, np.exp(-steps / 50), valid)}, log=log)
    ring = next(trace for trace in fig.data if trace.mode == "markers")
    assert (ring.x[0], ring.y[0]) == (60, 1)
    assert "xLSTM: best validation 1 at 60" in alt(fig)
    assert fig.layout.yaxis.type == ("log" if log else "linear")


def test_losses_may_be_measured_at_different_steps():
    valid = np.full(100, np.nan)
    valid[9::10] = np.linspace(2, 1, 10)
    fig = plots.loss_curves({"a": (np.arange(100), np.ones(100), valid)})
    assert len(drawn(fig, "a, validation").y) == 10


def test_curves_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"losses\['a'\] has lengths \[3, 3, 2\]"):
        plots.loss_curves({"a": ([1, 2, 3], [1, 2, 3], [1, 2])})


def test_a_million_points_are_thinned_to_what_a_screen_shows():
    values = np.random.default_rng(0).normal(size=1_000_000)
    values[333_333] = 50
    times = np.datetime64("2000-01-01T00:00:00") + np.arange(1_000_024) * np.timedelta64(1, "s")
    fig = plots.forecast(times, values, np.zeros(24), {})
    line = drawn(fig, "history")
    assert len(line.y) < 3000
    assert line.y.max() == 50
    assert "lowest and highest of each 1001" in line.hovertemplate
