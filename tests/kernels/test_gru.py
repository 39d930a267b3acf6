"""GRU: the contract, and equality with torch's own layer."""

import pytest
import torch
from torch.testing import assert_close

from tests import contract
from workbench.kernels.gru import GRUState, gru, gru_gates

B, D = 2, 4


def kernel(heads):
    def make_inputs(g, steps):
        wx = torch.randn(3, B, heads, steps, D, generator=g, dtype=torch.float64)
        r = 0.5 * torch.randn(3, heads, D, D, generator=g, dtype=torch.float64)
        return [wx, r, torch.randn(heads, D, generator=g, dtype=torch.float64)]

    def make_state(g):
        return GRUState(torch.randn(B, heads, D, generator=g, dtype=torch.float64))

    return contract.Kernel(gru, make_inputs, make_state, (3, None, None))


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


@forms
def test_gradcheck(form, heads):
    contract.passes_gradcheck(kernel(heads), form)


@forms
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)], ids=str)
def test_narrow_types_stay_close(form, heads, dtype, bound):
    contract.stays_close(kernel(heads), form, dtype, bound)


@forms
@pytest.mark.parametrize("gate", range(3))
@pytest.mark.parametrize("size", [-90.0, -30.0, 30.0, 90.0])
def test_extreme_gates_stay_finite(form, heads, gate, size):
    wx, r, b = kernel(heads).inputs(torch.Generator().manual_seed(1), 17)
    wx[gate] += size
    contract.survives(kernel(heads), form, [wx, r, b], torch.float32, 1e-4, carried=True)


@pytest.mark.parametrize("steps", [1, 8])
def test_equals_torch(steps):
    layer = torch.nn.GRU(3, D, batch_first=True).double()
    x = torch.randn(B, steps, 3).double()
    wanted, h = layer(x)
    bias = (layer.bias_ih_l0 + torch.cat([layer.bias_hh_l0[: 2 * D], torch.zeros(D)])).view(3, 1, 1, D)
    wx = torch.einsum("gde,bte->gbtd", layer.weight_ih_l0.view(3, D, 3), x) + bias
    y, state = gru(
        wx[:, :, None], layer.weight_hh_l0.view(3, 1, D, D), layer.bias_hh_l0[2 * D :][None], backend="reference"
    )
    assert_close(y[:, 0], wanted)
    assert_close(state.h[:, 0], h[0])


def test_gates_are_those_of_the_run():
    inputs, state = contract.make(kernel(3), 7, carried=True)
    y, last, gates = gru_gates(*inputs, state)
    assert_close(y, gru(*inputs, state)[0], rtol=0, atol=0)
    before = torch.cat([state.h[:, :, None], y[:, :, :-1]], 2)
    assert_close(gates.update * before + (1 - gates.update) * gates.candidate, y)
    assert_close(last.h, y[:, :, -1])


@pytest.mark.usefixtures("unchecked")
def test_bad_inputs_are_refused():
    inputs, state = contract.make(kernel(3), 4, carried=True)
    wx, r, b = inputs
    with pytest.raises(ValueError, match=r"wx is \(2, 2, 3, 4, 4\)"):
        gru(wx[:2], r, b)
    with pytest.raises(ValueError, match=r"b is \(2, 4\), and must be \(H, D\) = \(3, 4\)"):
        gru(wx, r, b[:2])
    with pytest.raises(TypeError, match="must be None or the GRUState"):
        gru(wx, r, b, (state.h,))
    with pytest.raises(RuntimeError, match=r"runs one head, and got 3\.\nChoose one of reference"):
        gru(wx, r, b, backend="fused")
    with pytest.raises(ValueError, match="no backend 'cudnn'; choose one of auto, fused, reference"):
        gru(wx, r, b, backend="cudnn")
