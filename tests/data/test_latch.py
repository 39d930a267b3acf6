"""The latch: its definition, and what an answer with a short memory can reach."""

import pytest
import torch

from workbench.data.latch import Latch

STREAMS = Latch(200, 100, gap=10.0, seed=3)


def test_the_target_is_held_from_mark_to_mark():
    data = Latch(20, 60, gap=7.0, seed=0)
    for row, right in zip(data.inputs, data.target, strict=True):
        held = torch.tensor(0.0)
        for (value, sets, resets), y in zip(row, right, strict=True):
            held = value if sets else torch.tensor(0.0) if resets else held
            assert y == held


def test_before_the_first_mark_the_answer_is_0():
    before = STREAMS.age >= 100
    assert before.any()
    assert (STREAMS.target[before] == 0).all()


def test_age_counts_from_the_last_mark():
    assert torch.equal(STREAMS.age == 0, STREAMS.marked)
    grown = STREAMS.age[:, 1:] - STREAMS.age[:, :-1]
    assert (grown[~STREAMS.marked[:, 1:]] == 1).all()


def test_marks_set_three_times_of_four_and_never_both():
    sets, resets = STREAMS.inputs[..., 1].bool(), STREAMS.inputs[..., 2].bool()
    assert not (sets & resets).any()
    assert torch.equal(sets | resets, STREAMS.marked)
    assert STREAMS.marked.float().mean() == pytest.approx(0.1, abs=0.01)
    assert (sets.sum() / STREAMS.marked.sum()) == pytest.approx(0.75, abs=0.03)


def test_nothing_but_the_mark_tells_which_value_is_held():
    value = STREAMS.inputs[..., 0]
    for part in (value[STREAMS.marked], value[~STREAMS.marked]):
        assert part.mean() == pytest.approx(0, abs=0.05)
        assert part.var() == pytest.approx(1 / 3, abs=0.03)


def test_an_answer_gets_better_with_its_window_from_chance_to_perfect():
    errors = [STREAMS.error(STREAMS.answer(window)) for window in (0, 1, 5, 20, 100)]
    assert errors[0] == pytest.approx(1)
    assert errors[-1] == 0
    assert errors == sorted(errors, reverse=True)


def test_a_window_of_w_steps_misses_what_is_older():
    """The last mark is w steps back or more with a chance of (1 - 1 / gap) ** w, had there been marks before."""
    late = Latch(4000, 200, gap=10.0, seed=5)
    there = late.age < 200
    missed = ((late.age >= 5) & there)[:, -1].float().mean()
    assert missed == pytest.approx(0.9**5, abs=0.03)


def test_the_same_seed_makes_the_same_streams():
    again = Latch(200, 100, gap=10.0, seed=3)
    assert torch.equal(again.inputs, STREAMS.inputs)
    assert not torch.equal(Latch(200, 100, gap=10.0, seed=4).inputs, STREAMS.inputs)
    batch = STREAMS[torch.tensor([5, 2])]
    assert torch.equal(batch.target, STREAMS.target[[5, 2]])


def test_more_than_one_mark_in_a_step_is_refused():
    with pytest.raises(ValueError, match=r"gap=0.5 asks for more than one mark in a step; give 1 or more"):
        Latch(2, 5, gap=0.5)
