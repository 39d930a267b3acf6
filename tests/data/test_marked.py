"""The marked task: one mark in each window, its value asked for, nothing else to go by."""

import math

import pytest
import torch

from workbench.data.marked import Marked


def test_the_target_is_the_value_at_the_one_mark():
    task = Marked(200, 12, seed=0)
    batch = task[torch.arange(200)]
    value, mark = batch.past.unbind(-1)
    assert torch.equal(mark.sum(1), torch.ones(200))
    assert torch.equal(mark.argmax(1), task.at)
    assert torch.equal(batch.target[:, 0], (value * mark).sum(1))
    assert batch.known.shape == (200, 1, 0)


def test_the_mark_falls_on_each_step_alike_and_the_value_tells_nothing():
    task = Marked(20_000, 8, seed=1)
    shares = torch.bincount(task.at, minlength=8) / 20_000
    assert (shares - 1 / 8).abs().max() < 4 * math.sqrt(1 / 8 * 7 / 8 / 20_000)
    assert abs(float(task.target.mean())) < 4 / math.sqrt(20_000)
    assert float(task.target.abs().mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)


def test_same_seed_same_windows_another_seed_others():
    first, again, other = (Marked(5, 6, seed=seed).past for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rows_that_are_asked_for_come_in_their_order():
    task = Marked(9, 4, seed=0)
    assert torch.equal(task[torch.tensor([7, 2])].past, task.past[[7, 2]])
    assert len(task) == 9


def test_one_step_is_always_the_marked_one():
    assert Marked(3, 1, seed=0).past[..., 1].eq(1).all()


def test_nothing_to_mark_is_refused():
    with pytest.raises(ValueError, match="rows=3 and steps=0 leave nothing to mark"):
        Marked(3, 0, seed=0)
