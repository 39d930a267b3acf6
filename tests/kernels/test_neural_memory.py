"""Titans' neural memory: both kernels, every form and every refresh owe the contract; then the linear one."""

from functools import partial

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from tests import contract
from workbench.kernels.backends import Choice
from workbench.kernels.gated_delta import gated_delta
from workbench.kernels.neural_memory import (
    BACKENDS,
    MLP_BACKENDS,
    NeuralMemoryMLPState,
    NeuralMemoryState,
    neural_memory,
    neural_memory_gates,
    neural_memory_mlp,
)

B, H, K, V, F = 2, 2, 6, 5, 7
FORMS = {"chunkwise": "chunkwise", "chunkwise-1": Choice("chunkwise", 1), "chunkwise-4": Choice("chunkwise", 4)}


def random(g, *sizes):
    return torch.randn(B, H, *sizes, generator=g, dtype=torch.float64)


def make_inputs(g, steps):
    """Keys of length 1, and steps so small that a span of 7 on one old gradient does not overshoot."""
    q, k, v = normalize(random(g, steps, K), dim=-1), normalize(random(g, steps, K), dim=-1), random(g, steps, V)
    alpha, eta, theta = torch.rand(3, B, H, steps, generator=g, dtype=torch.float64)
    return [q, k, v, 0.5 * alpha, 0.9 * eta, 0.3 * theta]


def make_inputs_mlp(g, steps):
    w1, w2 = (0.4 * torch.randn(H, *size, generator=g, dtype=torch.float64) for size in ((F, K), (V, F)))
    return [*make_inputs(g, steps), w1, w2]


def make_state(g, refresh):
    """Each sequence stands at another place of its span."""
    return NeuralMemoryState(*(random(g, K, V) for _ in range(3)), torch.tensor([refresh // 3, refresh - 1]))


def make_state_mlp(g, refresh):
    layers = (0.4 * random(g, *size) for _ in range(3) for size in ((F, K), (V, F)))
    return NeuralMemoryMLPState(*layers, torch.tensor([refresh // 3, refresh - 1]))


def linear(refresh):
    call, state = partial(neural_memory, refresh=refresh), partial(make_state, refresh=refresh)
    return contract.Kernel(call, make_inputs, state, (2,) * 6)


def mlp(refresh):
    call, state = partial(neural_memory_mlp, refresh=refresh), partial(make_state_mlp, refresh=refresh)
    return contract.Kernel(call, make_inputs_mlp, state, (*(2,) * 6, None, None))


KERNELS = {f"{make.__name__}-{refresh}": make(refresh) for make in (linear, mlp) for refresh in (1, 4, 7)}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
form_or_reference = pytest.mark.parametrize("form", ["reference", *FORMS.values()], ids=["reference", *FORMS])
both_forms = pytest.mark.parametrize("form", ["reference", "chunkwise"])


@every_kernel
@every_form
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
@pytest.mark.parametrize("steps", [1, 2, 8, 13])
def test_form_equals_reference(kernel, form, steps, carried):
    contract.matches_reference(kernel, form, steps, carried)


@every_kernel
@form_or_reference
@pytest.mark.parametrize("cuts", [(1,), (7,), (3, 4, 11), tuple(range(1, 13))], ids=str)
def test_state_hand_over(kernel, form, cuts):
    contract.hands_over(kernel, form, 13, cuts, carried=False)
    contract.hands_over(kernel, form, 13, cuts, carried=True)


@every_kernel
@form_or_reference
def test_looks_back_only(kernel, form):
    contract.looks_back_only(kernel, form, 9)


@every_kernel
@form_or_reference
@pytest.mark.parametrize("lengths", [[4, 9], [9, 1], [0, 7]], ids=str)
def test_padding_changes_nothing(kernel, form, lengths):
    contract.ignores_padding(kernel, form, lengths, 9, carried=False)
    contract.ignores_padding(kernel, form, lengths, 9, carried=True)
    contract.forgives_padding(kernel, form, lengths, 9)


@pytest.mark.parametrize(
    "kernel", [linear(1), linear(2), mlp(1), mlp(2)], ids=["linear-1", "linear-2", "mlp-1", "mlp-2"]
)
@both_forms
def test_gradcheck(kernel, form):
    contract.passes_gradcheck(kernel, form)


@every_kernel
@form_or_reference
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)], ids=str)
def test_narrow_types_stay_close(kernel, form, dtype, bound):
    contract.stays_close(kernel, form, dtype, bound)


@every_kernel
@both_forms
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("theta", [0.0, 0.3])
def test_extreme_gates_are_exact(kernel, form, alpha, eta, theta):
    """Nothing is divided by: a memory that is cleared at each step, or never, has its values and gradients.

    Two layers take a tenth of the step: with full momentum and no decay 0.3 overshoots more with each step, to 1e126.
    """
    inputs, state = contract.make(kernel, 9, carried=True, seed=1)
    theta = theta if len(inputs) == 6 else theta / 10
    for x, value in zip(inputs[3:6], (alpha, eta, theta), strict=True):
        x.fill_(value)
    contract.survives(kernel, form, inputs, torch.float32, 1e-4, carried=True)
    wanted = contract.run(kernel, inputs, state, "reference")
    contract.assert_same(contract.run(kernel, inputs, state, form), wanted, **contract.TIGHT)


@every_kernel
def test_recomputed_chunks_have_the_same_gradients(kernel):
    inputs, state = contract.make(kernel, 13, carried=True)
    wanted = contract.run(kernel, inputs, state, Choice("chunkwise", 4))
    got = contract.run(kernel, inputs, state, Choice("chunkwise", 4, recompute=True))
    contract.assert_same(got, wanted, rtol=1e-12, atol=1e-12)


def golden():
    """Inputs that are given by a formula: T = 4, K = V = 2."""
    t, i = torch.arange(4.0).double(), torch.arange(2.0).double()
    q, k, v = (torch.sin(0.7 * t[:, None] + 1.3 * i + s)[None, None] for s in range(3))
    c = [torch.sigmoid(torch.sin(0.7 * t + s))[None, None] for s in (3, 4, 5)]
    return normalize(q, dim=-1), normalize(k, dim=-1), v, 0.1 * c[0], 0.9 * c[1], 0.2 * c[2]


@form_or_reference
@pytest.mark.parametrize(
    ("refresh", "last", "total", "m", "s"),
    [
        (
            1,
            [-0.018564, -0.452712],
            -0.455191,
            [[0.079602, 0.334291], [-0.379551, 0.312738]],
            [[-0.021489, 0.205494], [-0.083544, 0.228496]],
        ),
        (2, [-0.009897, -0.465794], -0.441008, [[0.093396, 0.350353], [-0.383497, 0.345494]], None),
        (4, [0.000526, -0.485520], -0.451857, [[0.107383, 0.360885], [-0.401698, 0.353504]], None),
    ],
)
def test_golden_vector(form, refresh, last, total, m, s):
    y, state = neural_memory(*golden(), refresh=refresh, backend=form)
    near = {"rtol": 0, "atol": 6e-7}
    assert_close(y[0, 0, -1], torch.tensor(last).double(), **near)
    assert_close(y.sum(), torch.tensor(total).double(), **near)
    assert_close(state.m[0, 0].T, torch.tensor(m).double(), **near)
    if s:
        assert_close(state.s[0, 0].T, torch.tensor(s).double(), **near)


@form_or_reference
def test_without_momentum_it_is_a_decayed_delta_rule(form):
    """M <- M ((1 - alpha) I - beta k k^T) + beta v k^T, beta = 2 theta: the error is that of the memory as it was."""
    (q, k, v, alpha, eta, theta), first = contract.make(linear(1), 13, carried=True)
    first = first._replace(anchor=first.m)
    y, state = neural_memory(q, k, v, alpha, 0 * eta, theta, first, backend=form)
    m, outputs = first.m.mT, []
    for t in range(13):
        kt, beta = k[:, :, t, :, None], 2 * theta[:, :, t, None, None]
        turn = (1 - alpha[:, :, t, None, None]) * torch.eye(K).double() - beta * kt @ kt.mT
        m = m @ turn + beta * v[:, :, t, :, None] @ kt.mT
        outputs.append((m @ q[:, :, t, :, None])[..., 0])
    assert_close(y, torch.stack(outputs, 2), **contract.TIGHT)
    assert_close(state.m, m.mT, **contract.TIGHT)


@form_or_reference
def test_without_momentum_and_decay_it_is_deltanet(form):
    q, k, v, alpha, eta, theta = make_inputs(torch.Generator().manual_seed(2), 13)
    y, state = neural_memory(q, k, v, 0 * alpha, 0 * eta, theta, backend=form)
    wanted, memory = gated_delta(q, k, v, 2 * theta, 0 * alpha, backend="reference")
    assert_close(y, wanted, **contract.TIGHT)
    assert_close(state.m, memory[0], **contract.TIGHT)


@form_or_reference
def test_one_large_span_is_gradient_descent_on_the_first_memory(form):
    """With one anchor, no decay and no momentum the memory moves by the gradient of the whole loss, once."""
    q, k, v, alpha, eta, theta = make_inputs(torch.Generator().manual_seed(3), 9)
    first = make_state(torch.Generator().manual_seed(4), 1)
    m = first.m.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((theta[..., None] * (k @ m - v).square()).sum(), m)
    state = NeuralMemoryState(m.detach(), 0 * first.s, m.detach(), torch.zeros(B, dtype=torch.int64))
    _, last = neural_memory(q, k, v, 0 * alpha, 0 * eta, theta, state, refresh=100, backend=form)
    assert_close(last.m, m.detach() - gradient, **contract.TIGHT)


@both_forms
@pytest.mark.parametrize("make", [linear, mlp])
def test_a_span_that_is_too_long_ends_with_the_next_step(form, make):
    inputs, state = contract.make(make(4), 9, carried=True)
    far = state._replace(position=torch.tensor([3, 9]))
    got = contract.run(make(4), inputs, far, form)
    wanted = contract.run(make(4), inputs, far._replace(position=torch.tensor([3, 3])), form)
    contract.assert_same(got, wanted, rtol=0, atol=0)


def test_gates_are_those_of_the_run():
    inputs, state = contract.make(linear(4), 9, carried=True)
    y, last, gates = neural_memory_gates(*inputs, state, refresh=4)
    wanted, _ = neural_memory(*inputs, state, refresh=4, backend="reference")
    assert_close(y, wanted, rtol=0, atol=0)
    assert_close(gates.size[:, :, -1], last.m.flatten(-2).norm(dim=-1))
    assert_close(gates.momentum[:, :, -1], last.s.flatten(-2).norm(dim=-1))
    _, k, v, *_ = inputs
    first = (torch.einsum("bhk,bhkv->bhv", k[:, :, 0], state.anchor) - v[:, :, 0]).norm(dim=-1)
    assert_close(gates.error[:, :, 0], first)


def change(position, to):
    inputs = make_inputs(torch.Generator().manual_seed(5), 4)
    inputs[position] = to(inputs[position])
    return inputs


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        (change(1, lambda k: k[..., :5]), ValueError, r"k is \(2, 2, 4, 5\), and must be .* = \(2, 2, 4, 6\)"),
        (change(3, lambda alpha: alpha[:, :1]), ValueError, r"alpha is \(2, 1, 4\)"),
        (change(5, lambda theta: theta[..., None]), ValueError, "theta is"),
        (change(0, lambda q: q[0]), ValueError, "q is"),
        (change(2, lambda v: v.long()), TypeError, "v must be a floating-point tensor"),
        (change(4, lambda eta: eta.float()), ValueError, "move both to one dtype"),
    ],
)
def test_bad_inputs_are_refused(inputs, error, says):
    with pytest.raises(error, match=says):
        neural_memory(*inputs)


@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_refused():
    inputs, state = contract.make(linear(4), 4, carried=True)
    with pytest.raises(ValueError, match=r"neural_memory: refresh=0 is not a number of steps; take 1 or more"):
        neural_memory(*inputs, refresh=0)
    with pytest.raises(ValueError, match=r"refresh=2\.5"):
        neural_memory(*inputs, refresh=2.5)
    with pytest.raises(ValueError, match="choose one of auto, chunkwise, reference"):
        neural_memory(*inputs, backend="cuda")
    with pytest.raises(TypeError, match="must be None or the NeuralMemoryState"):
        neural_memory(*inputs, make_state_mlp(torch.Generator(), 4))
    with pytest.raises(ValueError, match=r"state.m is \(1, 2, 6, 5\)"):
        neural_memory(*inputs, state._replace(m=state.m[:1]))
    with pytest.raises(ValueError, match=r"state.position is \(1,\), and must be \(B\) = \(2,\)"):
        neural_memory(*inputs, state._replace(position=state.position[:1]))
    with pytest.raises(ValueError, match=r"state.position is torch.float32, and must be torch.int64"):
        neural_memory(*inputs, state._replace(position=state.position.float()))
    with pytest.raises(ValueError, match=r"state.s is torch.float32 on cpu, and must be torch.float64"):
        neural_memory(*inputs, state._replace(s=state.s.float()))
    with pytest.raises(ValueError, match="between 0 and T = 4"):
        neural_memory(*inputs, lengths=torch.tensor([-1, 3]))
    with pytest.raises(TypeError, match="whole numbers"):
        neural_memory(*inputs, lengths=torch.tensor([2.0, 3.0]))
    with pytest.raises(ValueError, match=r"has no steps \(T = 0\)"):
        neural_memory(*linear(4).cut(inputs, 0, 0))


@pytest.mark.usefixtures("unchecked")
def test_bad_weights_are_refused():
    inputs, state = contract.make(mlp(4), 4, carried=True)
    *rest, w1, w2 = inputs
    with pytest.raises(ValueError, match=r"w2 is \(2, 5, 6\), and must be \(H, V, F\) = \(2, 5, 7\)"):
        neural_memory_mlp(*rest, w1, w2[..., :6])
    with pytest.raises(ValueError, match=r"w1 is \(1, 7, 6\)"):
        neural_memory_mlp(*rest, w1[:1], w2)
    with pytest.raises(ValueError, match=r"state.s2 is \(2, 2, 5, 6\)"):
        neural_memory_mlp(*inputs, state._replace(s2=state.s2[..., :6]))
    with pytest.raises(TypeError, match="must be None or the NeuralMemoryMLPState"):
        neural_memory_mlp(*inputs, make_state(torch.Generator(), 4))


@pytest.mark.parametrize("table", [BACKENDS, MLP_BACKENDS])
def test_auto_takes_the_first_row(table):
    q = torch.zeros(1)
    assert table.choose("auto", q) is table.choose("chunkwise", q)


@pytest.mark.parametrize("make", [linear, mlp])
def test_autocast_does_not_reach_inside(make):
    kernel = make(4)
    inputs = [x.float() for x in contract.make(kernel, 9, carried=False)[0]]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = kernel.call(*inputs)
    assert torch.equal(y, kernel.call(*inputs)[0])
