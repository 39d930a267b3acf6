"""Gated DeltaNet: every form owes the contract; then what is peculiar to it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests import contract
from workbench.kernels.backends import Choice, load
from workbench.kernels.gated_delta import BACKENDS, GatedDeltaState, gated_delta, gated_delta_gates
from workbench.kernels.mlstm import MLSTMState

B, H, K, V = 2, 2, 6, 5
FORMS = {
    "chunkwise": "chunkwise",
    "chunkwise-1": Choice("chunkwise", 1),
    "chunkwise-8": Choice("chunkwise", 8),
    "chunkwise-8-recompute": Choice("chunkwise", 8, recompute=True),
}


def make_inputs(g, steps):
    """Keys of length 1, writing strengths over all of 0 ... 2, log decays down to about -4."""
    q, k, v = (torch.randn(B, H, steps, size, generator=g, dtype=torch.float64) for size in (K, K, V))
    beta, decay = torch.randn(2, B, H, steps, generator=g, dtype=torch.float64)
    return [q, F.normalize(k, dim=-1), v, 2 * torch.sigmoid(2 * beta), -F.softplus(2 * decay - 1)]


def make_state(g):
    return GatedDeltaState(torch.randn(B, H, K, V, generator=g, dtype=torch.float64))


KERNEL = contract.Kernel(gated_delta, make_inputs, make_state, (2, 2, 2, 2, 2))
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
form_or_reference = pytest.mark.parametrize("form", ["reference", *FORMS.values()], ids=["reference", *FORMS])


@every_form
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
@pytest.mark.parametrize("steps", [1, 2, 16, 21])
def test_form_equals_reference(form, steps, carried):
    contract.matches_reference(KERNEL, form, steps, carried)


@pytest.mark.parametrize("steps", [64, 70, 129])
def test_whole_chunks_equal_reference(steps):
    contract.matches_reference(KERNEL, "chunkwise", steps, carried=True)


@form_or_reference
@pytest.mark.parametrize("cuts", [(1,), (7,), (8,), (20,), (3, 4, 17), tuple(range(1, 21))], ids=str)
def test_state_hand_over(form, cuts):
    contract.hands_over(KERNEL, form, 21, cuts, carried=False)
    contract.hands_over(KERNEL, form, 21, cuts, carried=True)


@form_or_reference
def test_looks_back_only(form):
    contract.looks_back_only(KERNEL, form, 13)


@form_or_reference
@pytest.mark.parametrize("lengths", [[5, 13], [13, 1], [0, 9]], ids=str)
def test_padding_changes_nothing(form, lengths):
    contract.ignores_padding(KERNEL, form, lengths, 13, carried=False)
    contract.ignores_padding(KERNEL, form, lengths, 13, carried=True)
    contract.forgives_padding(KERNEL, form, lengths, 13)


@form_or_reference
def test_gradcheck(form):
    contract.passes_gradcheck(KERNEL, form)


@form_or_reference
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)], ids=str)
def test_narrow_types_stay_close(form, dtype, bound):
    contract.stays_close(KERNEL, form, dtype, bound)


def extreme(decay, write, steps=17):
    """Inputs in which all steps decay and write alike."""
    q, k, v, beta, g = make_inputs(torch.Generator().manual_seed(1), steps)
    return [q, k, v, torch.full_like(beta, write), torch.full_like(g, decay)]


@form_or_reference
@pytest.mark.parametrize("decay", [-math.inf, -90.0, -30.0, -1e-3, 0.0])
@pytest.mark.parametrize("write", [0.0, 1.0, 2.0])
def test_extreme_gates_stay_finite(form, decay, write):
    contract.survives(KERNEL, form, extreme(decay, write), torch.float32, 1e-4)
    contract.survives(KERNEL, form, extreme(decay, write), torch.float32, 1e-4, carried=True)


@every_form
@pytest.mark.parametrize("decay", [-90.0, -30.0, -1e-3, 0.0])
@pytest.mark.parametrize("write", [0.0, 1.0, 2.0])
def test_extreme_gates_equal_reference(form, decay, write):
    """Gates at their ends, and both ends within one chunk: all gradients, too."""
    inputs, state = extreme(decay, write, 19), make_state(torch.Generator().manual_seed(2))
    inputs[4][..., 5:9] = 0
    wanted = contract.run(KERNEL, inputs, state, "reference")
    contract.assert_same(contract.run(KERNEL, inputs, state, form), wanted, **contract.TIGHT)


@every_form
def test_keys_of_any_length_equal_reference(form):
    q, _, v, beta, g = make_inputs(torch.Generator().manual_seed(3), 12)
    k = torch.randn(q.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    inputs = [q, k, v, beta / k.square().sum(-1).clamp(min=1), g]
    wanted = contract.run(KERNEL, inputs, None, "reference")
    contract.assert_same(contract.run(KERNEL, inputs, None, form), wanted, **contract.TIGHT)


def golden_inputs():
    """T = 4, d = 2: waves, keys and queries of length 1."""
    steps, units = torch.arange(4.0, dtype=torch.float64), torch.arange(2.0, dtype=torch.float64)
    q, k, v = (torch.sin(0.7 * steps[:, None] + 1.3 * units + s)[None, None] for s in (0, 1, 2))
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    beta, g = torch.sigmoid(torch.sin(0.7 * steps + 3)), -0.1 * (1 + steps)
    return [q / 2**0.5, k, v, beta[None, None], g[None, None]]


@form_or_reference
@pytest.mark.parametrize(
    ("double", "last", "total", "memory"),
    [
        (1, [0.002616, -0.246759], 0.002224, [0.109319, -0.287804, 0.356240, 0.257185]),
        (2, [-0.041494, -0.444774], -0.162473, [0.117234, -0.518241, 0.602739, 0.465309]),
    ],
    ids=["beta", "two-beta"],
)
def test_golden_vectors(form, double, last, total, memory):
    q, k, v, beta, g = golden_inputs()
    o, state = gated_delta(q, k, v, double * beta, g, backend=form)
    tolerance = {"rtol": 0, "atol": 5.1e-7}
    assert_close(o[0, 0, 3], torch.tensor(last, dtype=torch.float64), **tolerance)
    assert_close(o.sum(), torch.tensor(total, dtype=torch.float64), **tolerance)
    assert_close(state.s.flatten(), torch.tensor(memory, dtype=torch.float64), **tolerance)


def dplr(q, w, a, b, key, v, s):
    """Diagonal plus low rank, step by step: S = diag(w) S + b (a^T S) + key v^T, o = S^T q."""
    outputs = []
    for t in range(q.shape[2]):
        low_rank = b[:, :, t, :, None] * torch.einsum("bhk,bhkv->bhv", a[:, :, t], s)[:, :, None]
        s = w[:, :, t, :, None] * s + low_rank + key[:, :, t, :, None] * v[:, :, t, None]
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], s))
    return torch.stack(outputs, 2), s


@form_or_reference
def test_is_diagonal_plus_low_rank(form):
    """w = alpha, a = -k, b = alpha beta k, and beta k in the place of the key."""
    (q, k, v, beta, g), state = contract.make(KERNEL, 21, carried=True)
    alpha, write = g.exp()[..., None], beta[..., None] * k
    wanted, s = dplr(q, alpha.expand_as(k), -k, alpha * write, write, v, state.s)
    o, last = gated_delta(q, k, v, beta, g, state, backend=form)
    assert_close(o, wanted, **contract.TIGHT)
    assert_close(last.s, s, **contract.TIGHT)


@form_or_reference
def test_two_turns_the_sign_at_every_one(form):
    """Parity: beta = 2 at a 1, and 0 at a 0, on a constant key without decay."""
    bits = torch.tensor([1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1])
    k = F.normalize(torch.randn(K, dtype=torch.float64), dim=0).expand(1, 1, 11, K)
    beta = 2 * bits.double()[None, None]
    state = GatedDeltaState(k[:, :, 0, :, None] * torch.ones(V).double())  # answers 1 to the key
    o, _ = gated_delta(k, k, torch.zeros(1, 1, 11, V).double(), beta, torch.zeros_like(beta), state, backend=form)
    sign = 1 - 2 * (bits.cumsum(0) % 2)
    assert_close(o[0, 0], sign[:, None].double().expand(11, V), **contract.TIGHT)


@form_or_reference
def test_a_key_is_overwritten_alone(form):
    """With beta = 1 and no decay a key answers its last value, and other, orthogonal keys keep theirs."""
    keys = torch.eye(K, dtype=torch.float64)[[0, 1, 0]][None, None]
    v = torch.randn(1, 1, 3, V, dtype=torch.float64)
    ones = torch.ones(1, 1, 3, dtype=torch.float64)
    _, state = gated_delta(keys, keys, v, ones, 0 * ones, backend=form)
    assert_close(state.s[0, 0, :2], v[0, 0, [2, 1]], **contract.TIGHT)


def test_gates_are_those_of_the_run():
    """The traced error, written at the key on the decayed memory, rebuilds the memory and its norm."""
    (q, k, v, beta, g), first = contract.make(KERNEL, 9, carried=True)
    o, last, gates = gated_delta_gates(q, k, v, beta, g, first)
    assert_close(o, gated_delta(q, k, v, beta, g, first, backend="reference")[0], rtol=0, atol=0)
    s = first.s
    for t in range(9):
        error = v[:, :, t] - (k[:, :, t, None] @ (g[:, :, t].exp()[..., None, None] * s))[:, :, 0]
        assert_close(gates.error[:, :, t], error)
        write = k[:, :, t, :, None] * (beta[:, :, t, None] * gates.error[:, :, t])[:, :, None]
        s = g[:, :, t].exp()[..., None, None] * s + write
        assert_close(gates.size[:, :, t], torch.linalg.matrix_norm(s))
        assert_close(gates.write[:, :, t], torch.linalg.matrix_norm(write))
    assert_close(last.s, s)


def test_half_precision_keeps_a_wide_state():
    inputs = make_inputs(torch.Generator().manual_seed(5), 20)
    o, state = gated_delta(*(x.bfloat16() for x in inputs))
    assert o.dtype == torch.bfloat16
    assert state.s.dtype == torch.float32


def test_autocast_does_not_reach_inside():
    inputs = [x.float() for x in make_inputs(torch.Generator().manual_seed(6), 9)]
    with torch.autocast("cpu", torch.bfloat16):
        o, _ = gated_delta(*inputs)
    assert torch.equal(o, gated_delta(*inputs)[0])


def test_auto_takes_the_first_row():
    assert BACKENDS.choose("auto", torch.zeros(1)) is load(BACKENDS.rows["chunkwise"].path)


def change(position, to):
    inputs = make_inputs(torch.Generator().manual_seed(7), 4)
    inputs[position] = to(inputs[position])
    return inputs


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        (change(1, lambda k: k[..., :5]), ValueError, r"k is \(2, 2, 4, 5\), and must be .* = \(2, 2, 4, 6\)"),
        (change(2, lambda v: v[:, :1]), ValueError, r"v is \(2, 1, 4, 5\)"),
        (change(3, lambda beta: beta[..., None]), ValueError, r"beta is \(2, 2, 4, 1\)"),
        (change(4, lambda g: g[:, :, :3]), ValueError, r"g is \(2, 2, 3\)"),
        (change(0, lambda q: q[0]), ValueError, "q is"),
        (change(4, lambda g: g.long()), TypeError, "g must be a floating-point tensor"),
        (change(3, lambda beta: beta.float()), ValueError, "move both to one dtype"),
        (change(2, lambda v: v.to("meta")), ValueError, "move both to one dtype and device"),
    ],
)
def test_bad_inputs_are_refused(inputs, error, says):
    with pytest.raises(error, match=says):
        gated_delta(*inputs)


@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_refused():
    inputs, state = contract.make(KERNEL, 4, carried=True)
    with pytest.raises(ValueError, match="gated_delta has no backend 'cuda'; choose one of auto, chunkwise, reference"):
        gated_delta(*inputs, backend="cuda")
    with pytest.raises(ValueError, match="belongs to the chunkwise form"):
        gated_delta(*inputs, backend=Choice("reference", 8))
    with pytest.raises(TypeError, match="must be None or the GatedDeltaState that gated_delta returned"):
        gated_delta(*inputs, MLSTMState(state.s, state.s[..., 0], state.s[..., 0, 0]))
    with pytest.raises(ValueError, match=r"state.s is \(1, 2, 6, 5\), and must be \(B, H, K, V\) = \(2, 2, 6, 5\)"):
        gated_delta(*inputs, GatedDeltaState(state.s[:1]))
    with pytest.raises(ValueError, match=r"state.s is torch.float32 on cpu, and must be torch.float64"):
        gated_delta(*inputs, GatedDeltaState(state.s.float()))
    with pytest.raises(ValueError, match=r"has no steps \(T = 0\)"):
        gated_delta(*KERNEL.cut(inputs, 0, 0))
    for lengths, says in (([2, 5], "between 0 and T = 4"), ([-1, 2], "run from -1 to 2")):
        with pytest.raises(ValueError, match=says):
            gated_delta(*inputs, lengths=torch.tensor(lengths))
    with pytest.raises(TypeError, match="whole numbers"):
        gated_delta(*inputs, lengths=torch.tensor([2.0, 3.0]))
