"""What a view may ask: tiles, overviews, tables with the real values; and what is refused."""

import csv
import io

import numpy as np
import pytest
import torch

from tests.widgets.scenes import gates, plain
from tests.widgets.test_tiles import Counted
from workbench.trace.store import Trace
from workbench.widgets.answers import Answers, Series, even
from workbench.widgets.tiles import Difference

TILE = {"ask": "tile", "label": "0", "cell": 1, "quantity": "forget", "batch": 1, "head": 1, "level": 0, "index": 0}
CSV = {"ask": "csv", "label": "0", "cell": 0, "quantity": "forget", "batch": 0, "head": 1, "start": 10, "stop": 14}


def table(answer):
    said, _ = answer
    return list(csv.reader(io.StringIO(said["text"])))


def test_a_tile_is_of_the_cell_head_and_sequence_that_were_asked_for():
    trace = plain()
    said, [codes] = Answers({"": trace}).answer(TILE)
    codes = np.frombuffer(codes, np.uint16).reshape(said["rows"], said["columns"])
    values = said["low"] + codes / 65534 * (said["high"] - said["low"])
    exact = trace.read("blocks.1.cell.forget")[1, 1].T
    np.testing.assert_allclose(values, exact, atol=(said["high"] - said["low"]) / 65534)


def test_a_table_holds_the_real_values_of_all_units():
    trace = plain()
    head, *rows = table(Answers({"": trace}).answer(CSV))
    assert head == ["step", "unit 0", "unit 1", "unit 2", "unit 3"]
    assert [int(row[0]) for row in rows] == [10, 11, 12, 13]
    found = np.array([row[1:] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(found, trace.read("blocks.0.cell.forget")[0, 1, 10:14])  # to the last bit


def test_a_table_of_half_lives_is_in_steps_and_has_its_positions():
    steps = np.datetime64("2024-03-01") + np.arange(300) * np.timedelta64(1, "h")
    trace = Trace({"cell.half_life": torch.full((1, 1, 300, 1), 40.0)})
    answers = Answers({"": trace}, axis=steps.astype("datetime64[us]"))
    head, first, *_ = table(answers.answer({**CSV, "quantity": "half_life"}))
    assert head == ["step", "position", "unit 0"]
    assert first == ["10", "2024-03-01T10:00:00.000000", "40"]


def test_a_table_that_is_too_large_says_how_much_fits(monkeypatch):
    monkeypatch.setattr("workbench.widgets.answers.TABLE", 10)
    with pytest.raises(ValueError, match="16 values are too many for one table; zoom in to at most 10"):
        Answers({"": plain()}).answer(CSV)


def test_colours_are_the_same_for_all_labels():
    traces = {
        "a": Trace({"cell.forget_norm": gates(1, 1, 50, 2)}),
        "b": Trace({"cell.forget_norm": 9 * gates(1, 1, 50, 2)}),
    }
    answers = Answers(traces)
    both = [answers.answer({"ask": "overview", "label": at, "quantity": "forget_norm", "batch": 0})[0] for at in "01"]
    assert both[0]["scale"] == both[1]["scale"]
    assert both[0]["scale"]["high"] > 3


def test_a_new_difference_under_an_old_name_is_not_answered_from_memory():
    trace, other = plain(), Trace({"blocks.0.cell.forget": torch.zeros(2, 2, 300, 4)})
    answers = Answers({"": trace})
    request = {**TILE, "label": "difference#1", "cell": 0, "batch": 0}
    answers.add("difference#1", Difference(trace, trace), 300)
    assert answers.answer(request)[0]["high"] == 0
    answers.add("difference#1", Difference(trace, other), 300)
    assert answers.answer(request)[0]["high"] > 0


def test_of_each_kind_of_change_the_newest_is_kept():
    answers = Answers({"": plain()})
    for label in ("after#1", "difference#1", "after#2"):
        answers.add(label, plain(), 300)
    with pytest.raises(KeyError, match="there is no 'after#1' any more"):
        answers.source("after#1")
    assert answers.source("difference#1")[1] == 300


def test_kept_tiles_stay_below_their_limit(monkeypatch):
    monkeypatch.setattr("workbench.widgets.answers.KEPT", 30_000)
    answers = Answers({"": plain(4000)})
    for index in range(7):
        answers.answer({**TILE, "index": index})
    assert answers._kept <= 30_000
    assert len(answers._tiles) == answers._kept // (512 * 4 * 2 * 4)


def test_what_cannot_be_drawn_over_time_is_left_out_and_said():
    trace = Trace({"cell.forget": gates(1, 1, 50, 2), "late.cell.forget": gates(1, 1, 20, 2)})
    assert Answers({"": trace}).left_out == ["late.cell.forget has fewer than 50 steps"]
    with pytest.raises(ValueError, match="holds nothing with a time axis"):
        Answers({"": Trace({})})


def test_a_later_trace_with_fewer_sequences_still_answers():
    answers = Answers({"a": plain(), "b": Trace({"blocks.0.cell.forget": gates(1, 2, 300, 4)})})
    assert answers.answer({**TILE, "label": "1", "cell": 0})[0]["rows"] == 4


def test_a_survey_of_a_million_steps_reads_one_of_them():
    trace = plain(steps=20)
    source = Counted(np.broadcast_to(np.float32(0.5), (1, 1, 1_000_000, 4)))
    source.names, source.steps = trace.names, 1_000_000
    found = Answers.__new__(Answers)
    found.first, found.cells, found.places, found.left_out, found.batch = source, [], {}, [], 1
    found._survey()
    assert set(source.asked) == {(999_999, 1_000_000)}


def test_an_unknown_question_lists_the_known_ones():
    with pytest.raises(ValueError, match="'weather' cannot be asked; choose one of tile, overview, tokens, axis, csv"):
        Answers({"": plain()}).answer({"ask": "weather"})


@pytest.mark.parametrize(("shape", "found"), [((7,), (1, 7, 1)), ((7, 2), (1, 7, 2)), ((3, 7, 2), (3, 7, 2))])
def test_a_series_has_sequences_steps_and_channels(shape, found):
    assert Series(np.zeros(shape)).values.shape == found


def test_even_steps_are_two_numbers_and_uneven_ones_none():
    assert even(np.arange(5) * 0.5) == {"dates": False, "first": 0.0, "step": 0.5}
    assert even(np.array([0.0, 1.0, 5.0])) == {"dates": False}
