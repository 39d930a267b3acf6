"""mLSTM: every form owes the contract; then what is peculiar to it."""

import pytest
import torch
from torch.testing import assert_close

from tests import contract
from workbench.kernels.backends import Choice, load
from workbench.kernels.mlstm import BACKENDS, MLSTMState, mlstm, mlstm_expforget, mlstm_gates
from workbench.kernels.slstm import SLSTMState

B, H, K, V = 2, 2, 6, 5
FORMS = {
    "parallel": "parallel",
    "chunkwise": "chunkwise",
    "chunkwise-1": Choice("chunkwise", 1),
    "chunkwise-8": Choice("chunkwise", 8),
}


def make_inputs(g, steps):
    q, k, v = (torch.randn(B, H, steps, size, generator=g, dtype=torch.float64) for size in (K, K, V))
    i, f = 3 * torch.randn(2, B, H, steps, generator=g, dtype=torch.float64)
    return [q, k, v, i, f]


def make_state(g):
    c, n, m = (torch.randn(B, H, *size, generator=g, dtype=torch.float64) for size in ((K, V), (K,), ()))
    return MLSTMState(c, n, m)


def make_mild_inputs(g, steps):
    """Forget gates between about exp(-2) and exp(2): beyond, a gradient is a sum of numbers much larger than itself."""
    *others, f = make_inputs(g, steps)
    return [*others, f / 3]


KERNEL = contract.Kernel(mlstm, make_inputs, make_state, (2, 2, 2, 2, 2))
EXPFORGET = contract.Kernel(mlstm_expforget, make_mild_inputs, make_state, (2, 2, 2, 2, 2))
every_kernel = pytest.mark.parametrize("kernel", [KERNEL, EXPFORGET], ids=["sigmoid", "exponential"])
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
form_or_reference = pytest.mark.parametrize("form", ["reference", *FORMS.values()], ids=["reference", *FORMS])


@every_kernel
@every_form
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
@pytest.mark.parametrize("steps", [1, 2, 16, 21])
def test_form_equals_reference(kernel, form, steps, carried):
    contract.matches_reference(kernel, form, steps, carried)


@every_kernel
@form_or_reference
@pytest.mark.parametrize("cuts", [(1,), (7,), (8,), (20,), (3, 4, 17), tuple(range(1, 21))], ids=str)
def test_state_hand_over(kernel, form, cuts):
    contract.hands_over(kernel, form, 21, cuts, carried=False)
    contract.hands_over(kernel, form, 21, cuts, carried=True)


@every_kernel
@form_or_reference
def test_looks_back_only(kernel, form):
    contract.looks_back_only(kernel, form, 13)


@every_kernel
@form_or_reference
@pytest.mark.parametrize("lengths", [[5, 13], [13, 1], [0, 9]], ids=str)
def test_padding_changes_nothing(kernel, form, lengths):
    contract.ignores_padding(kernel, form, lengths, 13, carried=False)
    contract.ignores_padding(kernel, form, lengths, 13, carried=True)
    contract.forgives_padding(kernel, form, lengths, 13)


@every_kernel
@form_or_reference
@pytest.mark.parametrize("forget", [-90.0, -30.0, 30.0, 90.0])
@pytest.mark.parametrize("write", [-120.0, -50.0, 0.0, 50.0, 120.0])
def test_extreme_gates_stay_finite(kernel, form, forget, write):
    q, k, v, i, f = make_inputs(torch.Generator().manual_seed(1), 17)
    inputs = [q.abs(), k.abs(), v, i + write, f + forget]  # of one sign: n q does not cancel to a division by zero
    contract.survives(kernel, form, inputs, torch.float32, 1e-4)


def test_no_stabiliser_gives_the_same_output():
    """Eq. 15's m is only a scale: the plain, unstabilised equations give the same h."""
    q, k, v, i, f = make_inputs(torch.Generator().manual_seed(2), 9)
    c, n, outputs = torch.zeros(B, H, K, V).double(), torch.zeros(B, H, K).double(), []
    for t in range(9):
        keep, write = torch.sigmoid(f[:, :, t, None]), torch.exp(i[:, :, t, None])
        c = keep[..., None] * c + (write * k[:, :, t])[..., None] * v[:, :, t, None]
        n = keep * n + write * k[:, :, t]
        query = q[:, :, t] / K**0.5
        outputs.append((query[..., None] * c).sum(-2) / (n * query).sum(-1, keepdim=True).abs().clamp(min=1))
    assert_close(mlstm(q, k, v, i, f)[0], torch.stack(outputs, 2), **contract.TIGHT)


def test_open_gates_recall_a_stored_value():
    """One pair written alone comes back as its value, scaled by nothing, when its key asks."""
    k, v = torch.eye(4)[None, None, :1].double() * 4, torch.arange(3.0).double()[None, None, None]
    y, _ = mlstm(k, k, v, torch.zeros(1, 1, 1).double(), torch.zeros(1, 1, 1).double())
    assert_close(y, v)


@every_kernel
@form_or_reference
def test_gradcheck(kernel, form):
    contract.passes_gradcheck(kernel, form)


@every_kernel
@form_or_reference
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)], ids=str)
def test_narrow_types_stay_close(kernel, form, dtype, bound):
    contract.stays_close(kernel, form, dtype, bound)


def test_forget_gates_agree_where_they_are_one_number():
    """exp(log sigmoid(x)) = sigmoid(x)."""
    (q, k, v, i, f), state = contract.make(KERNEL, 9, carried=True)
    got, wanted = mlstm_expforget(q, k, v, i, torch.nn.functional.logsigmoid(f), state), mlstm(q, k, v, i, f, state)
    assert_close(got[0], wanted[0], **contract.TIGHT)
    assert_close(tuple(got[1]), tuple(wanted[1]), **contract.TIGHT)


def change(position, to):
    inputs = make_inputs(torch.Generator().manual_seed(5), 4)
    inputs[position] = to(inputs[position])
    return inputs


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        (change(1, lambda k: k[..., :5]), ValueError, r"k is \(2, 2, 4, 5\), and must be .* = \(2, 2, 4, 6\)"),
        (change(3, lambda i: i[:, :1]), ValueError, r"i is \(2, 1, 4\)"),
        (change(0, lambda q: q[0]), ValueError, "q is"),
        (change(2, lambda v: v.long()), TypeError, "v must be a floating-point tensor"),
        (change(2, lambda v: v.float()), ValueError, "move both to one dtype"),
    ],
)
def test_bad_inputs_are_refused(inputs, error, says):
    with pytest.raises(error, match=says):
        mlstm(*inputs)


@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_refused():
    inputs, state = contract.make(KERNEL, 4, carried=True)
    with pytest.raises(ValueError, match="choose one of auto, chunkwise, parallel, reference"):
        mlstm(*inputs, backend="cuda")
    with pytest.raises(ValueError, match="belongs to the chunkwise form"):
        mlstm(*inputs, backend=Choice("parallel", 8))
    with pytest.raises(TypeError, match="must be None or the MLSTMState"):
        mlstm(*inputs, SLSTMState(*[state.n] * 4))
    with pytest.raises(ValueError, match=r"state.c is \(1, 2, 6, 5\)"):
        mlstm(*inputs, MLSTMState(state.c[:1], state.n, state.m))
    with pytest.raises(ValueError, match="between 0 and T = 4"):
        mlstm(*inputs, lengths=torch.tensor([2, 5]))
    with pytest.raises(TypeError, match="whole numbers"):
        mlstm(*inputs, lengths=torch.tensor([2.0, 3.0]))


def test_auto_takes_the_first_row():
    q = torch.zeros(1)
    assert BACKENDS.choose("auto", q) is load(BACKENDS.rows["chunkwise"].path)


@form_or_reference
@pytest.mark.parametrize("write", [-120.0, 0.0, 120.0])
def test_an_empty_question_has_an_empty_answer(form, write):
    q, k, v, i, f = (x.float() for x in make_inputs(torch.Generator().manual_seed(6), 9))
    y, last, gradients = contract.run(KERNEL, [torch.zeros_like(q), k, v, i + write, f], None, form)
    assert y.abs().max() == 0
    assert all(x.isfinite().all() for x in (*last, *gradients))


def test_gates_are_those_of_the_run():
    """The traced quantities rebuild memory, normaliser and output, step by step and without any scale."""
    q, k, v, i, f = make_inputs(torch.Generator().manual_seed(7), 9)
    y, last, gates = mlstm_gates(q, k, v, i, torch.nn.functional.logsigmoid(f))
    assert_close(y, mlstm(q, k, v, i, f, backend="reference")[0], rtol=0, atol=0)
    c, n = torch.zeros(B, H, K, V).double(), torch.zeros(B, H, K).double()
    for t in range(9):
        keep, write, scale = torch.sigmoid(f[:, :, t]), torch.exp(i[:, :, t]), torch.exp(gates.m[:, :, t])
        c = keep[..., None, None] * c + write[..., None, None] * k[:, :, t, :, None] * v[:, :, t, None]
        n = keep[..., None] * n + write[..., None] * k[:, :, t]
        assert_close(gates.size[:, :, t] * scale, c.flatten(-2).norm(dim=-1))
        assert_close(gates.n[:, :, t] * scale[..., None], n)
        read = torch.einsum("bhk,bhkv->bhv", q[:, :, t] / K**0.5, c) / scale[..., None]
        assert_close(read / gates.norm[:, :, t, None], y[:, :, t])
    assert_close(last.m, gates.m[:, :, -1])


@pytest.mark.usefixtures("unchecked")
def test_empty_calls_and_wrong_states_are_refused():
    inputs, state = contract.make(KERNEL, 4, carried=True)
    with pytest.raises(ValueError, match=r"has no steps \(T = 0\)"):
        mlstm(*KERNEL.cut(inputs, 0, 0))
    with pytest.raises(ValueError, match="chunk_size=0 holds no step"):
        mlstm(*inputs, backend=Choice("chunkwise", 0))
    with pytest.raises(ValueError, match=r"state.c is torch.float32 on cpu, and must be torch.float64"):
        mlstm(*inputs, MLSTMState(*(x.float() for x in state)))


def test_autocast_does_not_reach_inside():
    inputs = [x.float() for x in make_inputs(torch.Generator().manual_seed(8), 9)]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = mlstm(*inputs)
    assert torch.equal(y, mlstm(*inputs)[0])
