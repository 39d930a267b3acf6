"""Half-lives: the formula, the cap, heads and units."""

import numpy as np
import pytest

from workbench import plots
from workbench.plots.memory import steps_to_half


def test_half_life_is_the_time_to_lose_half():
    steps = np.array([1.0, 10.0, 250.0])
    np.testing.assert_allclose(steps_to_half(np.log(0.5) / steps, 1000), steps)
    assert 0.9 ** steps_to_half(np.log([0.9]), 1000)[0] == pytest.approx(0.5)


def test_what_never_fades_is_capped_and_what_fades_at_once_is_drawn():
    np.testing.assert_allclose(steps_to_half(np.array([0.0, 0.1, -np.inf, -1e-9]), 672), [672, 672, 0.1, 672])


def test_missing_values_stay_missing():
    fig = plots.half_life(np.array([-0.1, np.nan, -0.2]))
    assert np.isnan(fig.data[0].y[1])
    assert "1 missing value drawn as gaps" in fig.layout.meta["alt"]


def test_cap_is_the_sequence_length_and_is_marked():
    fig = plots.half_life(np.zeros((672, 2)))
    assert max(fig.data[0].y) == 672
    assert fig.layout.shapes[0].y0 == 672
    assert any("sequence length, 672 steps" in note.text for note in fig.layout.annotations)


def test_ticks_are_decades():
    fig = plots.half_life(np.log(0.5) / np.geomspace(0.2, 5000, 20_000))
    assert fig.layout.yaxis.ticktext == ("0.1", "1", "10", "100", "1k", "10k")
    assert fig.layout.yaxis.type == "log"


def test_few_heads_get_a_line_each_and_many_a_band():
    few = plots.half_life(np.full((50, 4), -0.1))
    assert [trace.name for trace in few.data] == [f"head {i}" for i in range(4)]
    many = plots.half_life(np.full((50, 64), -0.1))
    assert [trace.name for trace in many.data if trace.name] == ["median of 64"]
    assert sum(trace.fill == "tonexty" for trace in many.data) == 1


def test_units_of_a_head_become_median_and_quartiles():
    half = np.array([1.0, 2.0, 3.0, 4.0, 50.0])
    fig = plots.half_life(np.tile(np.log(0.5) / half, (30, 2, 1)), cap=100)
    low, high, middle = fig.data[:3]
    assert (low.y[0], middle.y[0], high.y[0]) == pytest.approx((2, 3, 4))


def test_words_hold_the_true_extremes():
    log_forget = np.log(0.5) / np.full(100, 10.0)
    log_forget[7], log_forget[90] = np.log(0.5) / 2.5, np.log(0.5) / 77
    said = plots.half_life(log_forget).layout.meta["alt"]
    assert "Shortest 2.5 steps (step 7), longest 77 (step 90)" in said


def test_bad_input_is_said():
    with pytest.raises(ValueError, match=r"log_forget has shape \(1, 2, 3, 4\)"):
        plots.half_life(np.zeros((1, 2, 3, 4)))
    with pytest.raises(ValueError, match=r"cap=0\.0 steps"):
        plots.half_life(np.zeros(4), cap=0)


def test_a_million_steps_are_thinned_and_say_so():
    fig = plots.half_life(np.random.default_rng(0).uniform(-1, -0.01, 1_000_000))
    assert len(fig.data[0].y) < 3000
    assert "lowest and highest of each 1000" in fig.data[0].hovertemplate
