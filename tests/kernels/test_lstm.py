"""LSTM: the contract, and equality with torch's own layer."""

import pytest
import torch
from torch.testing import assert_close

from tests import contract
from workbench.kernels.lstm import LSTMState, lstm, lstm_gates

B, D = 2, 4


def kernel(heads):
    def make_inputs(g, steps):
        wx = torch.randn(4, B, heads, steps, D, generator=g, dtype=torch.float64)
        return [wx, 0.5 * torch.randn(4, heads, D, D, generator=g, dtype=torch.float64)]

    def make_state(g):
        return LSTMState(*torch.randn(2, B, heads, D, generator=g, dtype=torch.float64))

    return contract.Kernel(lstm, make_inputs, make_state, (3, None))


forms = pytest.mark.parametrize(("form", "heads"), [("fused", 1), ("reference", 1), ("reference", 3)])


@forms
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
@pytest.mark.parametrize("cuts", [(), (1,), (7,), tuple(range(1, 13))], ids=str)
def test_state_hand_over(form, heads, carried, cuts):
    contract.hands_over(kernel(heads), form, 13, cuts, carried)


@forms
def test_looks_back_only(form, heads):
    contract.looks_back_only(kernel(heads), form, 9)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("lengths", [[5, 9], [9, 1], [0, 4]], ids=str)
def test_padding_changes_nothing(heads, lengths):
    contract.ignores_padding(kernel(heads), "auto", lengths, 9, carried=True)
    contract.forgives_padding(kernel(heads), "auto", lengths, 9)


@pytest.mark.parametrize("steps", [1, 8])
def test_fused_equals_torch(steps):
    layer = torch.nn.LSTM(3, D, batch_first=True).double()
    x = torch.randn(B, steps, 3).double()
    wanted, (h, c) = layer(x)
    order = [2, 0, 1, 3]  # torch's i, f, z, o as our z, i, f, o
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).view(4, 1, 1, D)
    wx = torch.einsum("gde,bte->gbtd", layer.weight_ih_l0.view(4, D, 3), x) + bias
    y, state = lstm(wx[order][:, :, None], layer.weight_hh_l0.view(4, D, D)[order][:, None])
    assert_close(y[:, 0], wanted)
    assert_close((state.h[:, 0], state.c[:, 0]), (h[0], c[0]))


def test_gates_are_those_of_the_run():
    wx, r = kernel(3).inputs(torch.Generator().manual_seed(0), 7)
    y, last, gates = lstm_gates(wx, r)
    assert_close(y, lstm(wx, r)[0], rtol=0, atol=0)
    assert_close(gates.o * torch.tanh(gates.c), y)
    before = torch.cat([torch.zeros_like(gates.c[:, :, :1]), gates.c[:, :, :-1]], 2)
    assert_close(gates.log_f.exp() * before + gates.i * gates.z, gates.c)
    assert_close(last.c, gates.c[:, :, -1])


def test_fused_says_why_it_cannot_run():
    wx, r = kernel(3).inputs(torch.Generator().manual_seed(0), 4)
    with pytest.raises(RuntimeError, match=r"runs one head, and got 3\.\nChoose one of reference"):
        lstm(wx, r, backend="fused")
    with pytest.raises(RuntimeError, match="takes sequences of one length"):
        lstm(wx[:, :, :1], r[:, :1], lengths=torch.tensor([2, 4]), backend="fused")
