"""sLSTM: the contract, and what is peculiar to it."""

import pytest
import torch
from torch.testing import assert_close

from tests import contract
from workbench.kernels.slstm import SLSTMState, slstm, slstm_gates

B, H, D = 2, 3, 4


def make_inputs(g, steps):
    wx = 2 * torch.randn(4, B, H, steps, D, generator=g, dtype=torch.float64)
    return [wx, 0.5 * torch.randn(4, H, D, D, generator=g, dtype=torch.float64)]


def make_state(g):
    h, c, n, m = torch.randn(4, B, H, D, generator=g, dtype=torch.float64)
    return SLSTMState(h, c, n.exp(), m)


KERNEL = contract.Kernel(slstm, make_inputs, make_state, (3, None))


@pytest.mark.parametrize("cuts", [(1,), (7,), (12,), (3, 4, 9), tuple(range(1, 13))], ids=str)
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
def test_state_hand_over(cuts, carried):
    contract.hands_over(KERNEL, "reference", 13, cuts, carried)


def test_looks_back_only():
    contract.looks_back_only(KERNEL, "reference", 9)


@pytest.mark.parametrize("lengths", [[5, 9], [9, 1], [0, 4]], ids=str)
def test_padding_changes_nothing(lengths):
    contract.ignores_padding(KERNEL, "reference", lengths, 9, carried=False)
    contract.ignores_padding(KERNEL, "reference", lengths, 9, carried=True)
    contract.forgives_padding(KERNEL, "reference", lengths, 9)


@pytest.mark.parametrize("forget", [-90.0, -30.0, 30.0, 90.0])
@pytest.mark.parametrize("write", [-50.0, 0.0, 50.0])
def test_extreme_gates_stay_finite(forget, write):
    wx, r = make_inputs(torch.Generator().manual_seed(1), 17)
    wx[1] += write
    wx[2] += forget
    contract.survives(KERNEL, "auto", [wx, r], torch.float32, 1e-4)


def test_no_stabiliser_gives_the_same_output():
    """Eqs. 8-10 without Eqs. 15-17 give the same h, and the same gradient."""
    wx, r = contract.leaves(make_inputs(torch.Generator().manual_seed(2), 9))
    h = c = n = torch.zeros(B, H, D).double()
    outputs = []
    for t in range(9):
        z, i, f, o = wx[:, :, :, t] + torch.einsum("ghde,bhe->gbhd", r, h)
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        outputs.append(h)
    wanted = torch.stack(outputs, 2)
    got, _ = slstm(wx, r)
    assert_close(got, wanted, **contract.TIGHT)
    for a, b in zip(
        torch.autograd.grad(contract.weigh([got]), (wx, r)),
        torch.autograd.grad(contract.weigh([wanted]), (wx, r)),
        strict=True,
    ):
        assert_close(a, b, **contract.TIGHT)


def test_gates_are_those_of_the_run():
    """The traced gates rebuild the cell step by step, and the traced output is the kernel's own."""
    wx, r = make_inputs(torch.Generator().manual_seed(3), 9)
    state = make_state(torch.Generator().manual_seed(4))
    y, last, gates = slstm_gates(wx, r, state)
    assert_close(y, slstm(wx, r, state)[0], rtol=0, atol=0)
    assert_close(last.m, gates.m[:, :, -1])
    c = state.c * state.m.exp()  # without the scale
    for t in range(9):
        c = gates.log_f[:, :, t].exp() * c + gates.i[:, :, t].exp() * gates.z[:, :, t]
        assert_close(c, gates.c[:, :, t] * gates.m[:, :, t].exp())
        assert_close(y[:, :, t], gates.o[:, :, t] * gates.c[:, :, t] / gates.n[:, :, t])


def test_gradcheck():
    g = torch.Generator().manual_seed(5)
    inputs = contract.leaves(make_inputs(g, 3)) + contract.leaves(make_state(g))

    def flat(wx, r, *state):
        y, last = slstm(wx, r, SLSTMState(*state))
        return y, *last

    assert torch.autograd.gradcheck(flat, inputs)


def test_bad_inputs_are_refused():
    wx, r = make_inputs(torch.Generator().manual_seed(6), 3)
    with pytest.raises(ValueError, match=r"wx is \(3, 2, 3, 3, 4\), and must be .* = \(4, 2, 3, 3, 4\)"):
        slstm(wx[:3], r)
    with pytest.raises(ValueError, match=r"r is \(4, 2, 4, 4\)"):
        slstm(wx, r[:, :2])
    with pytest.raises(ValueError, match="no backend 'triton'; choose one of auto, reference"):
        slstm(wx, r, backend="triton")
