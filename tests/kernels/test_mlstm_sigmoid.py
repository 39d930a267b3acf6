"""mLSTM with a sigmoid input gate: the contract, and equality with gated linear attention."""

import pytest
import torch
from torch.testing import assert_close

from tests import contract
from workbench.kernels.backends import Choice
from workbench.kernels.mlstm import MLSTMSigmoidState, MLSTMState, mlstm_sigmoid, mlstm_sigmoid_gates

B, H, K, V = 2, 2, 6, 5
FORMS = {"chunkwise": "chunkwise", "chunkwise-1": Choice("chunkwise", 1), "chunkwise-8": Choice("chunkwise", 8)}


def make_inputs(g, steps):
    q, k, v = (torch.randn(B, H, steps, size, generator=g, dtype=torch.float64) for size in (K, K, V))
    i, f = 3 * torch.randn(2, B, H, steps, generator=g, dtype=torch.float64)
    return [q, k, v, i, f]


def make_state(g):
    return MLSTMSigmoidState(torch.randn(B, H, K, V, generator=g, dtype=torch.float64))


KERNEL = contract.Kernel(mlstm_sigmoid, make_inputs, make_state, (2, 2, 2, 2, 2))
every_form = pytest.mark.parametrize("form", ["reference", *FORMS.values()], ids=["reference", *FORMS])


@every_form
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
@pytest.mark.parametrize("steps", [1, 2, 16, 21])
def test_form_equals_reference(form, steps, carried):
    contract.matches_reference(KERNEL, form, steps, carried)


@every_form
@pytest.mark.parametrize("cuts", [(1,), (8,), (20,), (3, 4, 17), tuple(range(1, 21))], ids=str)
def test_state_hand_over(form, cuts):
    contract.hands_over(KERNEL, form, 21, cuts, carried=False)
    contract.hands_over(KERNEL, form, 21, cuts, carried=True)


@every_form
def test_looks_back_only(form):
    contract.looks_back_only(KERNEL, form, 13)


@every_form
@pytest.mark.parametrize("lengths", [[5, 13], [13, 1], [0, 9]], ids=str)
def test_padding_changes_nothing(form, lengths):
    contract.ignores_padding(KERNEL, form, lengths, 13, carried=False)
    contract.ignores_padding(KERNEL, form, lengths, 13, carried=True)
    contract.forgives_padding(KERNEL, form, lengths, 13)


@every_form
@pytest.mark.parametrize("forget", [-90.0, -30.0, 30.0, 90.0])
@pytest.mark.parametrize("write", [-50.0, 0.0, 50.0])
def test_extreme_gates_stay_finite(form, forget, write):
    q, k, v, i, f = make_inputs(torch.Generator().manual_seed(1), 17)
    contract.survives(KERNEL, form, [q, k, v, i + write, f + forget], torch.float32, 1e-4)


@every_form
def test_gradcheck(form):
    contract.passes_gradcheck(KERNEL, form)


@every_form
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)], ids=str)
def test_narrow_types_stay_close(form, dtype, bound):
    contract.stays_close(KERNEL, form, dtype, bound)


def test_is_gated_linear_attention():
    """h_t = sum over s <= t of (q_t k_s) sigmoid(i_s) times the forget gates between, in one sum."""
    q, k, v, i, f = make_inputs(torch.Generator().manual_seed(2), 9)
    wanted = torch.zeros(B, H, 9, V).double()
    for t in range(9):
        for s in range(t + 1):
            weight = torch.sigmoid(i[:, :, s]) * torch.sigmoid(f[:, :, s + 1 : t + 1]).prod(-1)
            wanted[:, :, t] += ((q[:, :, t] * k[:, :, s]).sum(-1) / K**0.5 * weight)[..., None] * v[:, :, s]
    assert_close(mlstm_sigmoid(q, k, v, i, f)[0], wanted, **contract.TIGHT)


def test_gates_are_those_of_the_run():
    q, k, v, i, f = make_inputs(torch.Generator().manual_seed(7), 9)
    y, last, gates = mlstm_sigmoid_gates(q, k, v, i, torch.nn.functional.logsigmoid(f))
    assert_close(y, mlstm_sigmoid(q, k, v, i, f, backend="reference")[0], rtol=0, atol=0)
    for t in (0, 4, 8):
        _, state = mlstm_sigmoid(*KERNEL.cut([q, k, v, i, f], 0, t + 1))
        assert_close(gates.size[:, :, t], state.c.flatten(-2).norm(dim=-1))
    assert_close(last.c, state.c)


@pytest.mark.usefixtures("unchecked")
def test_bad_inputs_are_refused():
    inputs, state = contract.make(KERNEL, 4, carried=True)
    with pytest.raises(TypeError, match="mlstm_sigmoid: state must be None or the MLSTMSigmoidState"):
        mlstm_sigmoid(*inputs, MLSTMState(state.c, state.c[..., 0], state.c[..., 0, 0]))
    with pytest.raises(ValueError, match="mlstm_sigmoid has no backend 'parallel'; choose one of auto, chunkwise, ref"):
        mlstm_sigmoid(*inputs, backend="parallel")
    with pytest.raises(ValueError, match=r"i is \(2, 1, 4\)"):
        mlstm_sigmoid(*inputs[:3], inputs[3][:, :1], inputs[4])
