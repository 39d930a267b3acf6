"""The latch experiment: networks learn to hold a value, and the reading of their gates is what it says."""

import numpy as np
import pytest
import torch

from workbench.data.latch import Latch
from workbench.experiments import latch, latching
from workbench.experiments.latch import CELL, Params
from workbench.runs.folder import Run
from workbench.runs.params import build
from workbench.trace.edits import edited
from workbench.trace.store import Trace
from workbench.training.control import ask

SMALL = Params(window=16, gap=6.0, width=8, heads=2, steps=6, batch=8)


def trace_of(log_input: np.ndarray, log_forget: np.ndarray) -> Trace:
    """A trace of an sLSTM, from gates (B, T, M): heads of one unit each."""
    log_i, log_f = (torch.from_numpy(np.moveaxis(x, 1, 2)[..., None].copy()) for x in (log_input, log_forget))
    c = n = m = torch.full_like(log_i[:, :, 0], -torch.inf).exp()
    m = torch.full_like(c, -torch.inf)
    scale, normalizer = [], []
    for i, f in zip(log_i.unbind(2), log_f.unbind(2), strict=True):
        new = torch.maximum(f + m, i)
        n, m = n * (f + m - new).exp() + (i - new).exp(), new
        scale.append(m)
        normalizer.append(n)
    arrays = {"log_input": log_i, "log_forget": log_f, "stabilizer": torch.stack(scale, 2)}
    arrays["normalizer"] = torch.stack(normalizer, 2)
    about = {"cells": {CELL: {"kind": "SLSTM", "carried": False}}}
    return Trace({f"{CELL}.{name}": x for name, x in arrays.items()}, about=about)


def gates(data: Latch, at_mark: float, elsewhere: float) -> np.ndarray:
    """A gate of one memory (B, T, 1)."""
    return np.where(data.marked.numpy(), at_mark, elsewhere).astype(np.float64)[..., None]


@pytest.mark.parametrize("network", ["sLSTM", "mLSTM"])
def test_a_trained_network_holds_values_better_than_any_window_of_8_steps(network):
    params = Params(window=32, gap=8.0, width=8, heads=2, steps=150)
    parts = latch.streams(params, 0)
    model = latch.build(network, params, 0)
    before = latch.error(model, parts.test)
    result = latch.train(model, parts, params, 0, every=50)
    assert result.step == 150
    assert latch.error(model, parts.test) < parts.test.error(parts.test.answer(8)) < before


def test_same_seed_same_weights_and_other_seed_other_weights():
    errors = []
    for seed in (0, 0, 1):
        model, parts = latch.build("mLSTM", SMALL, seed), latch.streams(SMALL, 0)
        latch.train(model, parts, SMALL, seed)
        errors.append(latch.error(model, parts.test))
    assert errors[0] == errors[1] != errors[2]


def test_streams_of_the_parts_and_of_seeds_differ():
    firsts = [part.inputs[0, :16] for seed in range(3) for part in latch.streams(SMALL, seed)]
    assert len({tuple(first.flatten().tolist()) for first in firsts}) == len(firsts) == 12


def test_training_is_resumed_where_a_run_stood(tmp_path):
    parts, ran = latch.streams(SMALL, 0), []
    run = Run.create("latch", root=tmp_path)
    for _ in range(2):
        model = latch.build("mLSTM", SMALL, 0)
        latch.train(model, parts, SMALL, 0, every=3, run=run)
        ran.append(latch.error(model, parts.test))
    assert ran[0] == ran[1]
    assert len(run.metrics()) == 2  # the second attempt had nothing left to do


def test_a_training_that_is_asked_to_stop_ends_the_experiment_and_goes_on_later(tmp_path):
    parts, run = latch.streams(SMALL, 0), Run.create("latch", root=tmp_path)
    ask(run, "stop")
    model = latch.build("mLSTM", SMALL, 0)
    with pytest.raises(KeyboardInterrupt, match="mLSTM, seed 0, was stopped; its progress is kept"):
        latch.train(model, parts, SMALL, 0, run=run)
    resumed, plain = (latch.build("mLSTM", SMALL, 0) for _ in range(2))
    assert latch.train(resumed, parts, SMALL, 0, run=run).step == SMALL.steps
    latch.train(plain, parts, SMALL, 0)
    assert latch.error(resumed, parts.test) == latch.error(plain, parts.test)


def test_told_apart_is_the_chance_that_one_is_above_the_other():
    assert latching.told_apart(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert latching.told_apart(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.5
    assert latching.told_apart(np.array([0.0]), np.array([1.0, 2.0])) == 0
    assert latching.told_apart(np.array([1.0]), np.array([0.0, 1.0, 2.0, 3.0])) == 0.375


def test_contrast_reads_what_a_made_up_latch_does():
    data = Latch(4, 50, gap=6.0, seed=1)
    trace = trace_of(gates(data, 5.0, -1.0), gates(data, np.log(0.1), np.log(0.98)))
    found = latching.contrast(trace, data.marked)
    assert found.opening == pytest.approx([6.0])
    assert found.kept == pytest.approx([0.98])
    assert found.left == pytest.approx([0.1])
    assert found.told_apart == pytest.approx([1.0])


def test_a_perfect_latch_is_full_of_its_mark_and_an_average_is_not():
    data = Latch(4, 50, gap=6.0, seed=1)
    latched = trace_of(gates(data, 30.0, -30.0), gates(data, -30.0, 0.0))
    average = trace_of(gates(data, 0.0, 0.0), gates(data, 0.0, 0.0))
    share = latching.share_of_mark(latched, data.age)[:, 0]
    there = ~np.isnan(share)
    assert np.array_equal(there, data.age.numpy() < 50)
    assert share[there] == pytest.approx(1)
    share = latching.share_of_mark(average, data.age)[:, 0]
    steps = np.broadcast_to(np.arange(50), share.shape)
    expected = (1 + (data.age.numpy() > 0)) / (steps + 1)  # the mark and the step after it, of all steps so far
    assert share[there] == pytest.approx(expected[there])


def test_input_gates_hold_what_forget_gates_alone_would_have_lost():
    """Forgetting half at each step, a mark written e^12 times as strongly still outweighs what came in 8 steps."""
    marked = torch.zeros(2, 60, dtype=torch.bool)
    marked[:, [10, 40]] = True
    age = torch.arange(60).expand(2, 60) - torch.where(torch.arange(60) < 40, 10, 40)
    age = torch.where(age < 0, 60, age)
    half = np.full((2, 60, 1), np.log(0.5))
    trace = trace_of(np.where(marked.numpy(), 12.0, 0.0)[..., None], half)
    left = latching.by_age(latching.left_by_forgetting(trace, age), age, 0, 8)
    share = latching.by_age(latching.share_of_mark(trace, age), age, 0, 8)
    assert left.mean(0) == pytest.approx([1, *0.5 ** np.arange(8.0)])
    assert (share > 0.99).all()


def test_by_age_averages_each_stream_alone():
    age = torch.tensor([[5, 0, 1, 0, 1], [5, 6, 7, 0, 1]])
    values = np.array([[[np.nan, 1.0, 2.0, 3.0, 4.0]], [[np.nan, np.nan, np.nan, 7.0, 8.0]]])
    assert latching.by_age(values, age, 0, 1).tolist() == [[2.0, 3.0], [7.0, 8.0]]
    assert np.isnan(latching.by_age(values, age, 0, 2)[:, 2]).all()


def test_the_latch_is_full_of_its_mark_in_a_head_that_is_missed():
    data = Latch(4, 50, gap=6.0, seed=1)
    full, half, empty = (gates(data, write, 0.0) for write in (20.0, 3.0, 0.0))
    trace = trace_of(np.concatenate([full, empty, half, empty], -1), np.zeros((4, 50, 4)))
    assert latching.the_latch(trace, data.age, [0.1, 0.2, 0.9, 0.3]) == 2
    assert latching.the_latch(trace, data.age, [0.1, 0.9]) == 2  # two heads of two units
    assert latching.the_latch(trace, data.age, [0.9, 0.1]) == 0
    assert latching.the_latch(trace, data.age, [1.0, 4.0, 1.0, 1.0]) == 0  # missed more, but nothing is held there


@pytest.mark.parametrize("network", ["sLSTM", "mLSTM"])
def test_a_gate_held_still_is_the_same_at_every_step(network):
    parts, model = latch.streams(SMALL, 0), latch.build(network, SMALL, 0)
    latch.train(model, parts, SMALL, 0)
    trace = latch.look_inside(model, parts.valid)
    edits = latching.interventions(trace)
    free = latch.error(model, parts.test)
    assert latch.error(model, parts.test, *edits["as it learned"]) == free
    with edited(model, *edits["both held at their means"]):
        held = latch.look_inside(model, parts.test)
    for name in ("log_input", "log_forget"):
        was, now = (latching.memories(of, f"{CELL}.{name}") for of in (trace, held))
        assert np.ptp(now, (0, 1)).max() < 1e-5
        assert now[0, 0] == pytest.approx(was.mean((0, 1)), rel=1e-4, abs=1e-5)
    assert latch.error(model, parts.test, *edits["both held at their means"]) != free
    assert latch.error(model, parts.test) == free


def test_memories_are_units_of_an_slstm_and_heads_of_an_mlstm():
    parts = latch.streams(SMALL, 0)
    names = []
    for network in ("sLSTM", "mLSTM"):
        trace = latch.look_inside(latch.build(network, SMALL, 0), parts.shown)
        names.append([latching.memory_name(trace, k) for k in range(latching.memories(trace, "forget").shape[2])])
    assert names[0] == [f"head {head}, unit {unit}" for head in range(2) for unit in range(4)]
    assert names[1] == ["head 0", "head 1"]


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width=10 is not a multiple of heads=4"):
        build(Params, {"width": 10})
