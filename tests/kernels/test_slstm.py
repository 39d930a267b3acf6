"""sLSTM: the contract, and what is peculiar to it."""

import pytest
import torch
from torch.testing import assert_close

from tests import contract
from workbench.kernels.slstm import SLSTMState, exponential, slstm, slstm_expforget, slstm_gates

B, H, D = 2, 3, 4


def make_inputs(g, steps):
    wx = 2 * torch.randn(4, B, H, steps, D, generator=g, dtype=torch.float64)
    return [wx, 0.5 * torch.randn(4, H, D, D, generator=g, dtype=torch.float64)]


def make_state(g):
    h, c, n, m = torch.randn(4, B, H, D, generator=g, dtype=torch.float64)
    return SLSTMState(h, c, n.exp(), m)


KERNEL = contract.Kernel(slstm, make_inputs, make_state, (3, None))
EXPFORGET = contract.Kernel(slstm_expforget, make_inputs, make_state, (3, None))
every_kernel = pytest.mark.parametrize("kernel", [KERNEL, EXPFORGET], ids=["sigmoid", "exponential"])


@every_kernel
@pytest.mark.parametrize("cuts", [(1,), (7,), (12,), (3, 4, 9), tuple(range(1, 13))], ids=str)
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
def test_state_hand_over(kernel, cuts, carried):
    contract.hands_over(kernel, "reference", 13, cuts, carried)


@every_kernel
def test_looks_back_only(kernel):
    contract.looks_back_only(kernel, "reference", 9)


@every_kernel
@pytest.mark.parametrize("lengths", [[5, 9], [9, 1], [0, 4]], ids=str)
def test_padding_changes_nothing(kernel, lengths):
    contract.ignores_padding(kernel, "reference", lengths, 9, carried=False)
    contract.ignores_padding(kernel, "reference", lengths, 9, carried=True)
    contract.forgives_padding(kernel, "reference", lengths, 9)


@every_kernel
@pytest.mark.parametrize("forget", [-90.0, -30.0, 30.0, 90.0])
@pytest.mark.parametrize("write", [-50.0, 0.0, 50.0])
def test_extreme_gates_stay_finite(kernel, forget, write):
    wx, r = make_inputs(torch.Generator().manual_seed(1), 17)
    wx[1] += write
    wx[2] += forget
    contract.survives(kernel, "auto", [wx, r], torch.float32, 1e-4)


@every_kernel
def test_gradcheck(kernel):
    contract.passes_gradcheck(kernel, "auto")


@every_kernel
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)], ids=str)
def test_narrow_types_stay_close(kernel, dtype, bound):
    contract.stays_close(kernel, "auto", dtype, bound)


def test_forget_gates_agree_where_they_are_one_number():
    """exp(log sigmoid(x)) = sigmoid(x): without recurrence, the two kernels are one."""
    wx, r = make_inputs(torch.Generator().manual_seed(8), 9)
    sigmoid = wx.clone()
    wx[2] = torch.nn.functional.logsigmoid(wx[2])
    got, wanted = slstm_expforget(wx, 0 * r), slstm(sigmoid, 0 * r)
    assert_close(got[0], wanted[0], **contract.TIGHT)
    assert_close(tuple(got[1]), tuple(wanted[1]), **contract.TIGHT)


def test_exponential_gates_are_those_of_the_run():
    inputs, state = contract.make(EXPFORGET, 9, carried=True)
    y, _, gates = slstm_gates(*inputs, state, log_forget=exponential)
    assert_close(y, slstm_expforget(*inputs, state)[0], rtol=0, atol=0)
    before = torch.cat([state.c[:, :, None], gates.c[:, :, :-1]], 2)
    scale = torch.cat([state.m[:, :, None], gates.m[:, :, :-1]], 2)
    kept = torch.exp(gates.log_f + scale - gates.m) * before
    assert_close(kept + torch.exp(gates.i - gates.m) * gates.z, gates.c)


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


def test_bad_inputs_are_refused():
    wx, r = make_inputs(torch.Generator().manual_seed(6), 3)
    with pytest.raises(ValueError, match=r"wx is \(3, 2, 3, 3, 4\), and must be .* = \(4, 2, 3, 3, 4\)"):
        slstm(wx[:3], r)
    with pytest.raises(ValueError, match=r"r is \(4, 2, 4, 4\)"):
        slstm(wx, r[:, :2])
    with pytest.raises(ValueError, match="no backend 'triton'; choose one of auto, reference"):
        slstm(wx, r, backend="triton")
