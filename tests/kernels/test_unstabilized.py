"""Without the stabiliser: the same recurrence in float64, cut anywhere, from any scale; in float32 until exp ends."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests import contract
from workbench.kernels import mlstm as m
from workbench.kernels import slstm as s
from workbench.kernels.mlstm import unstabilized as mu
from workbench.kernels.slstm import unstabilized as su

B, H, K, V = 2, 3, 4, 5


def mlstm_inputs(g, steps):
    q, k, v = (torch.randn(B, H, steps, d, generator=g, dtype=torch.float64) for d in (K, K, V))
    i, f = (torch.randn(B, H, steps, generator=g, dtype=torch.float64) for _ in range(2))
    return [q, k, v, i, f - 1]


def slstm_inputs(g, steps):
    wx = torch.randn(4, B, H, steps, K, generator=g, dtype=torch.float64)
    return [wx, 0.3 * torch.randn(4, H, K, K, generator=g, dtype=torch.float64)]


KERNELS = {
    "mlstm": (m.mlstm, mu.mlstm_unstabilized, mlstm_inputs, (2, 2, 2, 2, 2)),
    "mlstm_expforget": (m.mlstm_expforget, mu.mlstm_expforget_unstabilized, mlstm_inputs, (2, 2, 2, 2, 2)),
    "slstm": (s.slstm, su.slstm_unstabilized, slstm_inputs, (3, None)),
    "slstm_expforget": (s.slstm_expforget, su.slstm_expforget_unstabilized, slstm_inputs, (3, None)),
}
every_kernel = pytest.mark.parametrize("kind", KERNELS)


def kernels(kind):
    stable, plain, inputs, time = KERNELS[kind]
    return tuple(contract.Kernel(call, inputs, None, time) for call in (stable, plain))


def unscaled(state):
    """A state without its log scale."""
    scale = state.m.masked_fill(state.m == -torch.inf, 0).exp()
    if isinstance(state, m.MLSTMState):
        return state.c * scale[..., None, None], state.n * scale[..., None]
    return state.h, state.c * scale, state.n * scale


@every_kernel
@pytest.mark.parametrize("lengths", [None, torch.tensor([9, 4])], ids=["full", "ragged"])
def test_values_gradients_and_memory_are_those_of_the_stabilised_form(kind, lengths):
    stable, plain = kernels(kind)
    inputs = stable.inputs(torch.Generator().manual_seed(1), 9)
    _, first = stable.call(*stable.inputs(torch.Generator().manual_seed(2), 3))
    y, last, _ = contract.run(stable, inputs, first, "reference", lengths=lengths)
    for cuts in ((), (1, 5)) if lengths is None else ((),):
        found, state, _ = contract.run(plain, inputs, first, "reference", cuts, lengths)
        assert_close(found, y, **contract.TIGHT)
        assert_close(unscaled(type(first)(*state)), unscaled(type(first)(*last)), **contract.TIGHT)
    leaves = contract.leaves(inputs)
    answers = [kernel.call(*leaves, first, lengths=lengths)[0] for kernel in (stable, plain)]
    slopes = [torch.autograd.grad(contract.weigh([y]), leaves, allow_unused=True) for y in answers]
    assert_close(*slopes, **contract.TIGHT)


@every_kernel
def test_the_stabilised_form_goes_on_from_its_state(kind):
    stable, plain = kernels(kind)
    inputs = stable.inputs(torch.Generator().manual_seed(3), 8)
    wanted, _ = stable.call(*inputs)
    _, state = plain.call(*plain.cut(inputs, 0, 5))
    assert state.m.abs().max() == 0
    assert_close(stable.call(*stable.cut(inputs, 5, 8), state)[0], wanted[:, :, 5:], **contract.TIGHT)


@every_kernel
def test_float32_has_no_numbers_beyond_its_exponent(kind):
    """exp(88.7) is one, exp(88.8) is not: the stabilised form does not notice."""
    stable, plain = kernels(kind)
    for write, fine in ((88.7, True), (88.8, False)):
        inputs = [x.float() for x in stable.inputs(torch.Generator().manual_seed(4), 1)]
        if kind.startswith("mlstm"):
            inputs[1], inputs[2] = (F.normalize(x, dim=-1) for x in inputs[1:3])  # products of at most 1
            inputs[3] = torch.full_like(inputs[3], write)
        else:
            inputs[0][1] = write
        assert stable.call(*inputs)[0].isfinite().all()
        y, state = plain.call(*inputs)
        assert bool(y.isfinite().all()) == fine
        assert bool(state.c.isfinite().all()) == fine


@every_kernel
def test_gates_are_those_of_the_run(kind):
    stable, plain = kernels(kind)
    inputs = stable.inputs(torch.Generator().manual_seed(5), 9)
    y, last = plain.call(*inputs)
    if kind.startswith("mlstm"):
        *qkvi, f = inputs
        log_f = f if "exp" in kind else F.logsigmoid(f)
        h, state, gates = mu.mlstm_unstabilized_gates(*qkvi, log_f)
        _, _, scaled = m.mlstm_gates(*qkvi, log_f)
        scale = scaled.m.exp()
        assert_close(gates.norm, scaled.norm * scale, **contract.TIGHT)
        assert_close(gates.size, scaled.size * scale, **contract.TIGHT)
        assert_close(gates.rank, scaled.rank, **contract.TIGHT)
        assert_close(gates.n, scaled.n * scale[..., None], **contract.TIGHT)
    else:
        log_forget = s.exponential if "exp" in kind else F.logsigmoid
        h, state, gates = su.slstm_unstabilized_gates(*inputs, log_forget=log_forget)
        _, _, scaled = s.slstm_gates(*inputs, log_forget=log_forget)
        assert_close(gates[:4], scaled[:4], **contract.TIGHT)
        assert_close(gates.c, scaled.c * scaled.m.exp(), **contract.TIGHT)
        assert_close(gates.n, scaled.n * scaled.m.exp(), **contract.TIGHT)
    assert torch.equal(h, y)
    assert torch.equal(state.c, last.c)
    assert gates.m.abs().max() == 0


@pytest.mark.usefixtures("unchecked")
@every_kernel
def test_states_of_others_are_refused(kind):
    _, plain = kernels(kind)
    inputs = plain.inputs(torch.Generator().manual_seed(6), 2)
    with pytest.raises(TypeError, match="state must be None or the"):
        plain.call(*inputs, (1, 2))
