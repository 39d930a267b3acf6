"""Measurements beside theory: means, bars, lines, and words that say how well they agree."""

import numpy as np
import pytest

from workbench.plots.theory import against_theory

X = np.array([1.0, 2, 4, 8])
ROWS = X + np.array([[-0.1], [0.0], [0.1]])
AXES = {"x_label": "pairs", "y_label": "error"}


def drawn(fig, name):
    return next(trace for trace in fig.data if trace.name == name)


def test_dots_are_means_with_the_interval_of_the_mean():
    dots = drawn(against_theory(X, {"rule": ROWS}, **AXES), "rule")
    np.testing.assert_allclose(dots.y, X)
    np.testing.assert_allclose(dots.error_y.array, 1.96 * 0.1 / np.sqrt(3))


def test_words_count_where_theory_lies_within_the_interval():
    fig = against_theory(X, {"rule": ROWS}, {"rule": np.array([1, 2, 4, 8.5])}, **AXES)
    assert "theory lies within the interval at 3 of 4 places" in fig.layout.meta["alt"]
    assert "rule: 1 at 1, 8 at 8" in fig.layout.meta["alt"]


def test_theory_is_a_line_in_the_colour_of_its_dots_and_dashed_where_it_stands_alone():
    fig = against_theory(X, {"rule": ROWS}, {"rule": X, "best": X / 2}, **AXES)
    assert drawn(fig, "rule, theory").line.color == drawn(fig, "rule").marker.color
    assert drawn(fig, "rule").mode == "markers"
    assert drawn(fig, "rule, theory").line.dash == "solid"
    assert drawn(fig, "best, theory").line.dash == "dash"
    assert "best, theory alone: 0.5 to 4" in fig.layout.meta["alt"]


def test_without_theory_the_dots_are_joined():
    fig = against_theory(X, {"rule": ROWS}, **AXES)
    assert drawn(fig, "rule").mode == "lines+markers"
    assert "lines: theory" not in fig.layout.meta["subtitle"]


def test_lines_to_compare_with_are_named():
    fig = against_theory(X, {"rule": ROWS}, at=("K", 4), level=("chance", 1.0), log_x=True, **AXES)
    at = {note.text: (note.x, note.y) for note in fig.layout.annotations}
    assert at["K"][0] == pytest.approx(np.log10(4))
    assert at["chance"][1] == 1
    assert fig.layout.xaxis.ticktext == ("1", "2", "4", "8")


def test_missing_values_are_counted():
    rows = ROWS.copy()
    rows[0, 1] = np.nan
    fig = against_theory(X, {"rule": rows}, **AXES)
    assert "1 missing value drawn as gaps" in fig.layout.meta["alt"]
    assert np.isnan(drawn(fig, "rule").y[1])


@pytest.mark.parametrize(
    ("measured", "expected", "says"),
    [
        ({}, None, "measured is empty"),
        ({"rule": ROWS[:1]}, None, r"measured\['rule'\] has shape \(1, 4\); pass two repetitions or more, 4 values"),
        ({"rule": ROWS[:, :3]}, None, r"measured\['rule'\] has shape \(3, 3\)"),
        ({"rule": ROWS}, {"best": X[:2]}, r"expected\['best'\] has 2 values, and x has 4"),
    ],
)
def test_bad_input_is_said(measured, expected, says):
    with pytest.raises(ValueError, match=says):
        against_theory(X, measured, expected, **AXES)
