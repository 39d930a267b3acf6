"""Titans' neural memory equals that of titans-pytorch: answers, memory, momentum and gradients, in float64.

The file in tests/goldens was made once (make_titans_pytorch.py there) with the package's additions off. Two things are
undone here: its loss is the mean over features, so its steps are divided by their number, and its gates are kept as
preactivations.
"""

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from workbench.kernels.neural_memory import (
    NeuralMemoryState,
    first_state,
    neural_memory,
    neural_memory_mlp,
)

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture
def goldens(root):
    with safe_open(root / "tests" / "goldens" / "titans_pytorch.safetensors", "pt") as file:
        assert "titans-pytorch" in file.metadata()["source"]
        largest = float(file.metadata()["largest_step"])
        return {name: file.get_tensor(name) for name in file.keys()}, largest  # noqa: SIM118  (not a dict)


@pytest.mark.parametrize("refresh", [1, 5])
@pytest.mark.parametrize("layers", [1, 2])
def test_answers_memory_and_gradients(goldens, layers, refresh):
    found, largest = goldens
    prefix = f"layers{layers}.refresh{refresh}."
    golden = {name.removeprefix(prefix): x for name, x in found.items() if name.startswith(prefix)}
    steps, width = golden["y"].shape[1:]
    inputs = {
        name: golden[name][:, :steps].clone().requires_grad_() for name in ("q", "k", "v", "alpha", "eta", "theta")
    }
    weights = [golden[f"w{at}"].clone().requires_grad_() for at in range(layers)]

    def run(x, state):
        alpha, eta, theta = (torch.sigmoid(x[name])[:, None] for name in ("alpha", "eta", "theta"))
        tensors = [*(x[name][:, None] for name in "qkv"), alpha, eta, theta * largest / width]
        if layers == 1:
            return neural_memory(*tensors, state, refresh=refresh)
        return neural_memory_mlp(*tensors, weights[0].mT, weights[1].mT, state, refresh=refresh)

    if layers == 1:
        m = weights[0].expand(2, 1, width, width)
        first = NeuralMemoryState(m, torch.zeros_like(m), m, torch.zeros(2, dtype=torch.int64))
    else:
        first = first_state(weights[0].mT, weights[1].mT, 2)
    y, state = run(inputs, first)
    assert_close(y[:, 0], golden["y"], **TIGHT)
    last = [state.m] if layers == 1 else [state.w1.mT, state.w2.mT]
    momentum = [state.s] if layers == 1 else [state.s1.mT, state.s2.mT]
    anchor = [state.anchor] if layers == 1 else [state.anchor1.mT, state.anchor2.mT]
    for name, tensors in (("last", last), ("momentum", momentum), ("anchor", anchor)):
        for at, x in enumerate(tensors):
            assert_close(x[:, 0], golden[f"{name}{at}"], **TIGHT)
    rest = {name: golden[name][:, steps:] for name in inputs}
    assert_close(run(rest, state)[0][:, 0], golden["y_rest"], **TIGHT)
    total = (y[:, 0] * golden["weigh"]).sum() + sum(x.square().sum() for x in last + momentum)
    total.backward()
    for name, x in inputs.items():
        assert_close(x.grad, golden[f"gradient.{name}"], **TIGHT)
    for at, w in enumerate(weights):
        assert_close(w.grad, golden[f"gradient.w{at}"], **TIGHT)
