"""The layer that rounds on a GPU runs, forwards and backwards, while torch is told not to round."""

import pytest
import torch
from torch.testing import assert_close

from workbench.kernels import cudnn
from workbench.kernels.cudnn import in_full, rounds
from workbench.kernels.lstm import BACKENDS

SEEN: list[str] = []


class Watch(torch.autograd.Function):
    """x^3, which notes the setting in both directions."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        SEEN.append(torch.backends.cudnn.rnn.fp32_precision)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        SEEN.append(torch.backends.cudnn.rnn.fp32_precision)
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


def layer(x, weight, fixed):
    return Watch.apply(x * weight), x + fixed


@pytest.fixture
def rounding(monkeypatch):
    """Every tensor counts as one that would be rounded."""
    monkeypatch.setattr(cudnn, "rounds", lambda x: True)
    SEEN.clear()


def test_both_passes_run_in_full_and_the_setting_comes_back(rounding):
    before = torch.backends.cudnn.rnn.fp32_precision
    x, weight = torch.randn(2, 3, dtype=torch.float64, requires_grad=True), torch.ones(3, requires_grad=True)
    y, _ = in_full(layer, x, weight.double(), torch.ones(3).double())
    assert torch.backends.cudnn.rnn.fp32_precision == before
    y.sum().backward()
    assert SEEN == ["ieee", "ieee"]
    assert torch.backends.cudnn.rnn.fp32_precision == before


def test_values_and_gradients_are_those_of_the_layer(rounding):
    x, weight, fixed = (torch.randn(2, 3, dtype=torch.float64) for _ in range(3))
    x.requires_grad_(), weight.requires_grad_()
    got, wanted = in_full(layer, x, weight, fixed), layer(x, weight, fixed)
    assert_close(got, wanted)
    total = [(y * torch.arange(6.0).reshape(2, 3)).sum() for pair in zip(got, wanted, strict=True) for y in pair]
    a = torch.autograd.grad(total[0] + total[2], [x, weight], retain_graph=True)
    b = torch.autograd.grad(total[1] + total[3], [x, weight])
    assert_close(a, b)
    assert torch.autograd.gradcheck(lambda *inputs: in_full(layer, *inputs, fixed), (x, weight))


def test_without_gradients_nothing_is_kept(rounding):
    x = torch.randn(2, 3, requires_grad=True)
    with torch.no_grad():
        y, _ = in_full(layer, x, x, x)
    assert not y.requires_grad
    assert SEEN == ["ieee"]


def test_only_float32_on_a_gpu_would_be_rounded():
    fake = torch._subclasses.FakeTensorMode()
    with fake:
        assert rounds(torch.empty(1, device="cuda"))
        assert not rounds(torch.empty(1, device="cuda", dtype=torch.float64))
    assert not rounds(torch.ones(1))


def test_a_compiled_graph_runs_another_form(monkeypatch):
    wx, r = torch.zeros(4, 1, 1, 2, 3), torch.zeros(4, 1, 3, 3)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert BACKENDS.name("auto", (wx, r), {}) == "fused"
    monkeypatch.setattr("workbench.kernels.lstm.rounds", lambda x: True)
    assert BACKENDS.name("auto", (wx, r), {}) == "reference"
    with pytest.raises(RuntimeError, match="float32 products in full inside a compiled graph on a GPU"):
        BACKENDS.name("fused", (wx, r), {})
