"""Lists of pairs: what a trace says of them is what is in the memory, and a trained network's is more than chance."""

import numpy as np
import pytest
import torch

from workbench.data.recall import Lists
from workbench.experiments import recall
from workbench.kernels.gated_delta import gated_delta
from workbench.trace.store import Trace
from workbench.training.fit import FitParams

FEW = FitParams(steps=4, batch=8, lr=1e-2, evaluate_every=2)
NETWORKS = recall.Network.__args__


@pytest.fixture(scope="module")
def trained():
    """A network that learns in a second what others take ten for."""
    params = FitParams(steps=200, batch=64, lr=1e-2, evaluate_every=50)
    return recall.train("mLSTM", params, size=32, pairs=4, rows=4096, seed=0)


def by_hand(pairs, *, gap):
    """A trace of a delta rule that writes each pair `gap` steps behind its key, and is asked with its own keys."""
    lists = Lists(20, pairs, seed=5)
    steps = 3 * pairs
    g = torch.Generator().manual_seed(0)
    codes = torch.linalg.qr(torch.randn(64, 64, generator=g, dtype=torch.float64))[0]
    key, value = (torch.zeros(20, 1, steps, 64, dtype=torch.float64) for _ in range(2))
    query, beta = torch.zeros_like(key), torch.zeros(20, 1, steps, dtype=torch.float64)
    tokens = lists.data.tokens
    for j in range(pairs):
        at = 2 * j + gap
        key[:, 0, at], value[:, 0, at] = codes[tokens[:, 2 * j]], codes[lists.values[:, j] - lists.keys]
        beta[:, 0, at] = 1
    query[:, 0, 2 * pairs :] = codes[tokens[:, 2 * pairs :]]
    hidden, _ = gated_delta(query, key, value, beta, 0 * beta)
    names = {"query": query, "key": key, "value": value, "write_strength": beta, "log_forget": 0 * beta}
    about = {"cells": {recall.CELL: {"kind": "GatedDelta", "carried": False}}}
    return lists, Trace({f"{recall.CELL}.{name}": x for name, x in (names | {"hidden": hidden}).items()}, about=about)


@pytest.mark.parametrize("gap", [1, 3])
def test_the_trace_tells_when_a_pair_is_written(gap):
    lists, trace = by_hand(6, gap=gap)
    weights = recall.reading(trace, lists)
    if gap == 1:
        np.testing.assert_allclose(weights, np.eye(4)[1], atol=1e-9)
    assert int(np.abs(weights).argmax()) == gap


def test_a_pair_is_held_from_the_step_that_writes_it():
    lists, trace = by_hand(6, gap=1)
    held = recall.held(trace, lists, 1)
    there = np.arange(held.shape[2])[None] >= 2 * np.arange(6)[:, None] + 1
    distinct = np.array([len(set(row.tolist())) == 6 for row in lists.values])
    assert distinct.any(), "lists with a repeated value hold it from its first pair on"
    assert (held[distinct][:, there]).all()
    assert held[distinct][:, ~there].mean() < 0.35, "before, the answer is one of six by chance"
    assert recall.by_age(trace, lists, 1).all()
    assert (recall.by_age(trace, lists, 1)[:, ::-1] == held[:, :, 11]).all()


def test_a_key_that_fits_and_one_that_is_random():
    lists, trace = by_hand(6, gap=1)
    assert recall.question_fit(trace, lists, 1) == pytest.approx(1)
    assert recall.key_overlap(trace, 6, 1) == pytest.approx(0, abs=1e-9), "the keys are orthogonal"


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns_and_is_looked_into(network):
    model = recall.train(network, FEW, size=8, pairs=5, rows=64, seed=0)
    lists = Lists(2, 5, seed=1)
    trace, right = recall.look(model, lists)
    assert trace.cells[recall.CELL]["kind"] in ("MLSTM", "GatedDelta", "Titans")
    assert trace.error < 1e-4
    held = recall.held(trace, lists, 1)
    assert held.shape == (2, 5, 15)
    assert right.shape == (2, 5)


def test_a_trained_network_holds_the_list_and_a_fresh_one_does_not_answer(trained):
    lists = Lists(64, 4, seed=9)
    trace, right = recall.look(trained, lists)
    behind = int(np.abs(recall.reading(trace, lists)).argmax())
    assert right.mean() > 0.9
    assert recall.by_age(trace, lists, behind).mean() > 0.9
    assert trace.notes == []
    fresh = trained.config.build(0)
    trace, right = recall.look(fresh, lists)
    assert right.mean() < 0.15
    assert trace.notes == ["untrained: the model has its fresh weights"]


def test_answers_are_in_the_order_of_the_list(trained):
    lists = Lists(32, 4, seed=3)
    _, right = recall.look(trained, lists)
    batch = lists[torch.arange(32)]
    with torch.no_grad():
        asked = recall.answers(trained, batch).argmax(-1) == batch.answers
    for row in range(32):
        for question, pair in enumerate(batch.asked[row].tolist()):
            assert right[row, pair] == bool(asked[row, question])
