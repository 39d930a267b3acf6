"""RWKV-7: every form owes the contract; then what is peculiar to it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests import contract
from workbench.kernels.backends import Choice
from workbench.kernels.rwkv7 import BACKENDS, RWKV7State, rwkv7, rwkv7_gates
from workbench.kernels.rwkv7.chunkwise import products

B, H, K, V = 2, 2, 6, 5
FORMS = {
    "chunkwise": "chunkwise",
    "chunkwise-1": Choice("chunkwise", 1),
    "chunkwise-8": Choice("chunkwise", 8),
    "chunkwise-4-again": Choice("chunkwise", 4, recompute=True),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
with_reference = pytest.mark.parametrize("form", ["reference", *FORMS.values()], ids=["reference", *FORMS])


def make_inputs(g, steps):
    """Inputs in their declared ranges: decays 0 ... 1, removal keys of norm 1, learning rates 0 ... 1."""
    r, w, k, kappa, a = torch.randn(5, B, H, steps, K, generator=g, dtype=torch.float64)
    v = torch.randn(B, H, steps, V, generator=g, dtype=torch.float64)
    return [r, F.logsigmoid(2 * w), k, v, F.normalize(kappa, dim=-1), torch.sigmoid(2 * a)]


def make_state(g):
    return RWKV7State(torch.randn(B, H, K, V, generator=g, dtype=torch.float64))


KERNEL = contract.Kernel(rwkv7, make_inputs, make_state, (2,) * 6)


@every_form
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
@pytest.mark.parametrize("steps", [1, 2, 16, 21, 70])
def test_form_equals_reference(form, steps, carried):
    contract.matches_reference(KERNEL, form, steps, carried)


@with_reference
@pytest.mark.parametrize("cuts", [(1,), (7,), (8,), (20,), (3, 4, 17), tuple(range(1, 21))], ids=str)
def test_state_hand_over(form, cuts):
    contract.hands_over(KERNEL, form, 21, cuts, carried=False)
    contract.hands_over(KERNEL, form, 21, cuts, carried=True)


@with_reference
def test_looks_back_only(form):
    contract.looks_back_only(KERNEL, form, 13)


@with_reference
@pytest.mark.parametrize("lengths", [[5, 13], [13, 1], [0, 9]], ids=str)
def test_padding_changes_nothing(form, lengths):
    contract.ignores_padding(KERNEL, form, lengths, 13, carried=False)
    contract.ignores_padding(KERNEL, form, lengths, 13, carried=True)
    contract.forgives_padding(KERNEL, form, lengths, 13)


@with_reference
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("log_w", [0.0, -30.0, -90.0, -1e4, -math.inf, "mixed"])
def test_extreme_gates_stay_finite(form, log_w, rate, carried):
    g = torch.Generator().manual_seed(1)
    r, w, k, v, kappa, a = make_inputs(g, 19)
    if log_w == "mixed":  # each step and channel its own
        w = torch.tensor([0.0, -1e-3, -30.0, -90.0, -math.inf])[torch.randint(5, w.shape, generator=g)]
    else:
        w = torch.full_like(w, log_w)
    contract.survives(KERNEL, form, [r, w, k, v, kappa, torch.full_like(a, rate)], torch.float32, 1e-4, carried)


@with_reference
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-3)], ids=str)
def test_narrow_types_stay_close(form, dtype, bound):
    contract.stays_close(KERNEL, form, dtype, bound)


@pytest.mark.parametrize("form", ["reference", "chunkwise", Choice("chunkwise", 2)], ids=str)
def test_gradcheck(form):
    contract.passes_gradcheck(KERNEL, form)


@pytest.mark.parametrize("form", ["reference", "chunkwise", Choice("chunkwise", 2)], ids=str)
def test_golden_vectors(form):
    """Four steps by hand: sines as inputs, the state read in the paper's orientation, V x K."""

    def sines(shift):
        return torch.sin(0.7 * torch.arange(4.0).double()[:, None] + 1.3 * torch.arange(2.0) + shift)[None, None]

    log_w = -math.exp(-0.5) * torch.sigmoid(sines(3))
    removal = sines(1) / sines(1).norm(dim=-1, keepdim=True)
    y, last = rwkv7(sines(0), log_w, sines(1), sines(2), removal, torch.sigmoid(sines(4)), backend=form)
    close = {"rtol": 0, "atol": 6e-7}
    assert_close(y[0, 0, 3], torch.tensor([0.097362, -1.100815]).double(), **close)
    assert_close(y.sum(), torch.tensor(-0.526127).double(), **close)
    wanted = torch.tensor([[0.350718, 0.803708], [-1.068049, 0.699945]]).double()
    assert_close(last.s[0, 0].T, wanted, **close)


@with_reference
def test_no_learning_rate_makes_it_gated_linear_attention(form):
    r, log_w, k, v, kappa, a = make_inputs(torch.Generator().manual_seed(2), 13)
    s, outputs = torch.zeros(B, H, K, V).double(), []
    for t in range(13):
        s = s * log_w[:, :, t, :, None].exp() + k[:, :, t, :, None] * v[:, :, t, None]
        outputs.append((r[:, :, t, :, None] * s).sum(-2))
    y, last = rwkv7(r, log_w, k, v, kappa, torch.zeros_like(a), backend=form)
    assert_close(y, torch.stack(outputs, 2), **contract.TIGHT)
    assert_close(last.s, s, **contract.TIGHT)


@with_reference
def test_it_is_a_diagonal_plus_low_rank_transition(form):
    """S_t = S_{t-1} (diag(w) - kappa (kappa * a)^T) + v k^T with the transition written out, and y = S r."""
    inputs = make_inputs(torch.Generator().manual_seed(3), 13)
    first = make_state(torch.Generator().manual_seed(4))
    s, outputs = first.s.mT, []
    for r, log_w, k, v, kappa, a in zip(*(x.unbind(2) for x in inputs), strict=True):
        transition = torch.diag_embed(log_w.exp()) - kappa[..., :, None] * (kappa * a)[..., None, :]
        s = s @ transition + v[..., :, None] * k[..., None, :]
        outputs.append((s @ r[..., None])[..., 0])
    y, last = rwkv7(*inputs, first, backend=form)
    assert_close(y, torch.stack(outputs, 2), **contract.TIGHT)
    assert_close(last.s.mT, s, **contract.TIGHT)


@with_reference
def test_full_removal_replaces_a_value(form):
    """With w = a = 1 a second value under the same key takes the place of the first; other keys keep theirs."""
    keys = torch.eye(3).double()[[0, 1, 0, 0, 1]][None, None]
    values = torch.arange(1.0, 6.0).double()[None, None, :, None]
    asked = torch.eye(3).double()[[0, 0, 0, 1, 0]][None, None]
    y, _ = rwkv7(asked, torch.zeros_like(keys), keys, values, keys, torch.ones_like(keys), backend=form)
    assert_close(y[0, 0, :, 0], torch.tensor([1.0, 1.0, 3.0, 2.0, 4.0]).double())


def test_products_are_those_of_all_pairs():
    g = torch.Generator().manual_seed(5)
    rows, columns = torch.randn(2, 2, 3, 8, K, generator=g, dtype=torch.float64)
    log_w = -3 * torch.rand(3, 8, K, generator=g, dtype=torch.float64)
    sums = log_w.cumsum(-2)
    decay = (sums[:, :, None] - sums[:, None]).exp() * torch.ones(8, 8).tril()[..., None]
    wanted = torch.einsum("pbik,qbjk,bijk->pqbij", rows, columns, decay)
    assert_close(products(rows, columns, log_w), wanted)


def test_gates_are_those_of_the_run():
    """Norm and removed values rebuild the run: what is removed is what the removal key finds a step before."""
    inputs = make_inputs(torch.Generator().manual_seed(7), 9)
    y, last, gates = rwkv7_gates(*inputs)
    wanted, state = rwkv7(*inputs, backend="reference")
    assert_close(y, wanted, rtol=0, atol=0)
    assert_close(last.s, state.s, rtol=0, atol=0)
    state = RWKV7State(torch.zeros_like(last.s))
    for t in range(9):
        now = [x[:, :, t : t + 1] for x in inputs]
        assert_close(gates.removed[:, :, t], (state.s * now[4].mT).sum(-2))
        kept = now[1][:, :, 0, :, None].exp() * state.s
        _, state = rwkv7(*now, state)
        assert_close(gates.size[:, :, t], state.s.square().sum((-2, -1)).sqrt())
        assert_close(gates.write[:, :, t], torch.linalg.matrix_norm(state.s - kept))


def test_half_precision_keeps_a_wide_state():
    y, state = rwkv7(*(x.bfloat16() for x in make_inputs(torch.Generator().manual_seed(8), 5)))
    assert y.dtype == torch.bfloat16
    assert state.s.dtype == torch.float32


def test_autocast_does_not_reach_inside():
    inputs = [x.float() for x in make_inputs(torch.Generator().manual_seed(9), 9)]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = rwkv7(*inputs)
    assert torch.equal(y, rwkv7(*inputs)[0])


def change(position, to):
    inputs = make_inputs(torch.Generator().manual_seed(10), 4)
    inputs[position] = to(inputs[position])
    return inputs


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        (change(2, lambda k: k[..., :5]), ValueError, r"k is \(2, 2, 4, 5\), and must be .* = \(2, 2, 4, 6\)"),
        (change(1, lambda w: w[..., 0]), ValueError, r"log_w is \(2, 2, 4\), and must be \(B, H, T, K\)"),
        (change(3, lambda v: v[:, :1]), ValueError, r"v is \(2, 1, 4, 5\)"),
        (change(4, lambda kappa: kappa[:, :, :3]), ValueError, r"kappa is \(2, 2, 3, 6\)"),
        (change(0, lambda r: r[0]), ValueError, "r is"),
        (change(5, lambda a: a.long()), TypeError, "a must be a floating-point tensor"),
        (change(3, lambda v: v.float()), ValueError, "move both to one dtype"),
    ],
)
def test_bad_inputs_are_refused(inputs, error, says):
    with pytest.raises(error, match=says):
        rwkv7(*inputs)


@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_refused():
    inputs, state = contract.make(KERNEL, 4, carried=True)
    with pytest.raises(ValueError, match="choose one of auto, chunkwise, reference"):
        rwkv7(*inputs, backend="cuda")
    with pytest.raises(ValueError, match="belongs to the chunkwise form"):
        rwkv7(*inputs, backend=Choice("reference", 8))
    with pytest.raises(ValueError, match="chunk_size=0 holds no step"):
        rwkv7(*inputs, backend=Choice("chunkwise", 0))
    with pytest.raises(TypeError, match="must be None or the RWKV7State"):
        rwkv7(*inputs, (state.s,))
    with pytest.raises(ValueError, match=r"state.s is \(2, 2, 5, 6\), and must be \(B, H, K, V\) = \(2, 2, 6, 5\)"):
        rwkv7(*inputs, RWKV7State(state.s.mT))
    with pytest.raises(ValueError, match=r"state.s is torch.float32 on cpu, and must be torch.float64"):
        rwkv7(*inputs, RWKV7State(state.s.float()))
    with pytest.raises(ValueError, match="between 0 and T = 4"):
        rwkv7(*inputs, lengths=torch.tensor([-1, 4]))
    with pytest.raises(TypeError, match="whole numbers"):
        rwkv7(*inputs, lengths=torch.tensor([2.0, 3.0]))
    with pytest.raises(ValueError, match=r"has no steps \(T = 0\)"):
        rwkv7(*KERNEL.cut(inputs, 0, 0))


def test_auto_takes_the_first_row():
    assert BACKENDS.choose("auto", torch.zeros(1)) is BACKENDS.choose("chunkwise", torch.zeros(1))
