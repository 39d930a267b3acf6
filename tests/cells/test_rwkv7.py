"""RWKV-7's time mix and channel mix: their equations written out, token shift, shared values, fresh weights, sizes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.cells.table import flat
from workbench.cells.channel_mix import ChannelMix, ChannelMixState
from workbench.cells.rwkv7 import RWKV7, LowRank
from workbench.cells.rwkv7_initial import Ranks, official_ranks
from workbench.cells.token_shift import fresh_blend, token_shift
from workbench.models.layouts import RWKV7StackConfig

WIDTH, SIZE, STEPS = 16, 8, 7
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def shake(module):
    """Random weights everywhere: in a fresh time mix most of the gates are constant, and the output is zero."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module.double()


def sequence(*shape):
    return torch.randn(*(shape or (3, STEPS, WIDTH)), dtype=torch.float64)


def written_out(cell, x, v_first, eps):
    """One sequence (T, E) by the equations, the state V x K as printed; outputs, and the state of each head."""
    heads = [torch.zeros(SIZE, SIZE, dtype=x.dtype) for _ in range(WIDTH // SIZE)]
    before, outputs = torch.zeros(WIDTH, dtype=x.dtype), []

    def low(gate, y, act=lambda inner: inner):
        return act(y @ gate.down) @ gate.up + (0 if gate.bias is None else gate.bias)

    for t in range(len(x)):
        x_r, x_w, x_k, x_v, x_a, x_g = (x[t] + (before - x[t]) * mu for mu in cell.blend)
        before = x[t]
        r, k, v = cell.receptance.weight @ x_r, cell.key.weight @ x_k, cell.value.weight @ x_v
        w = torch.exp(-torch.exp(-F.softplus(-low(cell.decay, x_w, torch.tanh)) - 0.5))
        if cell.layer > 0:
            v = v + (v_first[t] - v) * torch.sigmoid(low(cell.share, x_v))
        a = torch.sigmoid(low(cell.rate, x_a))
        gate = low(cell.gate, x_g, torch.sigmoid)
        kappa, k = k * cell.removal, k * (1 + (a - 1) * cell.replacement)
        answer = []
        for h, channels in enumerate(torch.arange(WIDTH).split(SIZE)):
            r_h, w_h, k_h, v_h, a_h, kappa_h = (y[channels] for y in (r, w, k, v, a, kappa))
            kappa_h = kappa_h / kappa_h.norm()
            s = heads[h]
            s = s @ torch.diag(w_h) - torch.outer(s @ kappa_h, kappa_h * a_h) + torch.outer(v_h, k_h)
            heads[h], y = s, s @ r_h
            y = (y - y.mean()) / torch.sqrt((y - y.mean()).square().mean() + eps)
            y = y * cell.norm.weight[channels] + cell.norm.bias[channels]
            answer.append(y + (r_h * k_h * cell.bonus[h]).sum() * v_h)
        outputs.append(cell.output.weight @ (torch.cat(answer) * gate))
    return torch.stack(outputs), torch.stack(heads)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("eps", [None, 0.3], ids=["official-eps", "eps-0.3"])
def test_time_mix_is_its_equations(layer, eps):
    cell = shake(RWKV7(WIDTH, head_size=SIZE, layer=layer, layers=2, norm_eps=eps))
    x, v_first = sequence(), sequence()
    y, state = cell(x, v_first=v_first if layer else None)
    for b in range(len(x)):
        wanted, heads = written_out(cell, x[b], v_first[b], eps or 1e-5 * SIZE)
        assert_close(y[b], wanted, **TIGHT)
        assert_close(state.memory.s[b], heads.transpose(-1, -2), **TIGHT)
    assert torch.equal(state.shift, x[:, -1:])


def test_channel_mix_is_its_equations():
    cell, x = shake(ChannelMix(WIDTH, layers=2)), sequence()
    y, state = cell(x)
    for b in range(len(x)):
        before = torch.zeros(WIDTH, dtype=x.dtype)
        for t in range(STEPS):
            mixed = x[b, t] + (before - x[b, t]) * cell.blend
            hidden = (cell.key.weight @ mixed).clamp(min=0) ** 2
            assert_close(y[b, t], cell.value.weight @ hidden, **TIGHT)
            before = x[b, t]
    assert isinstance(state, ChannelMixState)
    assert torch.equal(state.shift, x[:, -1:])


def test_token_shift_sees_the_step_before_and_keeps_the_last_one():
    x, last = sequence(), sequence(3, 1, WIDTH)
    delta, kept = token_shift(x, None, None)
    assert torch.equal(delta[:, 0], -x[:, 0])
    assert torch.equal(delta[:, 1:], x[:, :-1] - x[:, 1:])
    assert torch.equal(kept, x[:, -1:])
    delta, kept = token_shift(x, last, torch.tensor([STEPS, 2, 0]))
    assert torch.equal(delta[:, :1], last - x[:, :1])
    assert torch.equal(kept, torch.stack([x[0, -1:], x[1, 1:2], last[2]]))


def test_values_of_the_first_layer_reach_every_other():
    """The stack hands them on; each layer above blends them with its own, by a share that depends on the input."""
    stack = shake(RWKV7StackConfig(width=WIDTH, head_size=SIZE, layers=3).build())
    x, shared = sequence(), None
    y, state = stack(x)
    hidden = x
    for block in stack.blocks:
        inner = block.norm(hidden)
        out, _, shared = block.cell.mix(inner, v_first=shared)
        if block.cell.layer == 0:
            before = F.pad(inner, (0, 0, 1, 0))[:, :-1]
            assert_close(shared, (inner + (before - inner) * block.cell.blend[3]) @ block.cell.value.weight.T, **TIGHT)
            assert_close(block.cell(inner)[0], out, **TIGHT)
            first = shared
        assert shared is first
        hidden = hidden + out
        hidden = hidden + block.mlp(block.mlp_norm(hidden))[0]
    assert_close(y, stack.norm(hidden), **TIGHT)
    _, half = stack(x[:, :3])
    rest, last = stack(x[:, 3:], half)
    assert_close(rest, y[:, 3:], **TIGHT)
    assert_close(flat(last), flat(state), **TIGHT)


def test_shared_values_carry_a_gradient_and_layer_0_has_no_share():
    first, second = (shake(RWKV7(WIDTH, head_size=SIZE, layer=layer, layers=2)) for layer in (0, 1))
    x = sequence()
    _, _, v_first = first.mix(x)
    y, _, _ = second.mix(x, v_first=v_first)
    y.square().sum().backward()
    assert first.value.weight.grad.abs().min() > 0
    assert second.share.up.grad.abs().max() > 0
    assert second.share.bias.grad.abs().max() > 0
    y, _ = first(x)
    assert torch.autograd.grad(y.sum(), list(first.share.parameters()), allow_unused=True) == (None, None, None)


@pytest.mark.parametrize(("layer", "layers"), [(0, 1), (0, 4), (2, 4), (3, 4)], ids=["only", "first", "third", "last"])
def test_fresh_weights_are_the_official_ones(layer, layers):
    """Channel by channel; a single layer, for which the official code divides by zero, starts as the first of many."""
    cell = RWKV7(WIDTH, head_size=SIZE, layer=layer, layers=layers)
    ratio, left = layer / (layers - 1) if layers > 1 else 0.0, 1 - layer / layers
    powers = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)  # r, w, k, v, a, g
    for c in range(WIDTH):
        linear = c / (WIDTH - 1) - 0.5
        z = (c % SIZE - (SIZE - 1) / 2) / ((SIZE - 1) / 2)
        zigzag = z * abs(z)
        decay = -6 + 6 * (c / (WIDTH - 1)) ** (1 + ratio**0.3) + 0.5 + 2.5 * zigzag
        wanted = [1 - (c / WIDTH) ** (power * left) for power in powers]
        wanted += [decay, -0.19 + 0.3 * zigzag + 0.4 * linear, 0.73 - 0.4 * linear, 0.71 - 0.1 * linear, 1.02]
        vectors = (cell.decay.bias, cell.rate.bias, cell.share.bias, cell.removal, cell.replacement)
        got = [*cell.blend[:, c], *(x[c] for x in vectors)]
        assert_close(torch.stack(got).detach(), torch.tensor(wanted), rtol=1e-5, atol=1e-5)
    assert_close(cell.bonus.detach(), torch.full((WIDTH // SIZE, SIZE), -0.04))
    assert_close(cell.norm.weight.detach(), torch.full((WIDTH,), ((layer + 1) / layers) ** 0.7))
    assert cell.norm.bias.abs().max() == cell.output.weight.abs().max() == 0
    for linear, gain in ((cell.receptance, 1.0), (cell.key, 0.1), (cell.value, 1.0)):
        assert_close(linear.weight @ linear.weight.T, gain**2 * torch.eye(WIDTH), rtol=1e-5, atol=1e-5)
    mix = ChannelMix(WIDTH, layer=layer, layers=layers)
    assert_close(mix.blend.detach(), torch.tensor([1 - (c / WIDTH) ** (left**4) for c in range(WIDTH)]))
    assert mix.value.weight.abs().max() == 0
    assert_close(mix.key.weight.T @ mix.key.weight, torch.eye(WIDTH), rtol=1e-5, atol=1e-5)


def test_low_rank_gates_start_as_their_bias():
    """`down` is zero; `up` is orthogonal, of gain 0.1, and wider by the root of its sides' ratio where it is tall."""
    for width, rank in ((32, 8), (8, 32)):
        gate = LowRank(width, rank, torch.tanh, torch.arange(float(width)))
        assert gate.down.abs().max() == 0
        flat_side = gate.up @ gate.up.T if rank <= width else gate.up.T @ gate.up
        gain = 0.1 * math.sqrt(max(1, rank / width))
        assert_close(flat_side, gain**2 * torch.eye(min(width, rank)), rtol=1e-4, atol=1e-6)
        assert torch.equal(gate(torch.randn(2, 3, width)), torch.arange(float(width)).expand(2, 3, -1))


def test_fresh_blend_is_all_of_the_input_before_in_the_first_channel():
    assert_close(fresh_blend(4, 1.0), torch.tensor([1, 0.75, 0.5, 0.25]))
    assert (fresh_blend(4, 0.0) == 0).all()


def test_ranks_follow_the_formula_or_the_config():
    assert official_ranks(1024) == Ranks(decay=64, rate=64, value=64, gate=160)
    assert official_ranks(64) == Ranks(32, 32, 32, 32)
    assert official_ranks(4096) == Ranks(160, 160, 96, 320)
    stored = Ranks(5, 4, 3, 2)
    cell = RWKV7StackConfig(width=WIDTH, head_size=SIZE, layers=2, ranks=stored).build().blocks[1].cell
    assert Ranks(*(gate.down.shape[1] for gate in (cell.decay, cell.rate, cell.share, cell.gate))) == stored
    assert RWKV7StackConfig.model_validate({"ranks": list(stored)}).ranks == stored


def test_sizes_are_those_of_the_published_model():
    """A block of C: 19 C + 12 C^2 + 2 C ranks; its memory: two inputs, and 64 numbers for each channel."""
    C, ranks = 1024, Ranks(64, 64, 32, 128)
    with torch.device("meta"):
        block = RWKV7StackConfig(width=C, head_size=64, layers=1, ranks=ranks).build().blocks[0]
    assert sum(p.numel() for p in block.parameters()) == 19 * C + 12 * C**2 + 2 * C * sum(ranks)
    assert block.cell.norm.eps == 64e-5
    stack = RWKV7StackConfig(width=WIDTH, head_size=SIZE, layers=1).build()
    _, state = stack(torch.randn(1, 2, WIDTH))
    assert sum(x.numel() for x in flat(state)) == 2 * WIDTH + SIZE * WIDTH


def test_memory_is_at_rest_in_float32_in_narrow_types():
    torch.manual_seed(1)
    cell, x = shake(RWKV7(WIDTH, head_size=SIZE)).bfloat16(), torch.randn(2, 5, WIDTH).bfloat16()
    at, shift, _ = cell.project(x, None, None, None)
    assert {part.dtype for part in at[:6]} == {torch.float32}
    assert (shift.dtype, at.gate.dtype) == (torch.bfloat16, torch.bfloat16)
    assert_close(at.kappa.norm(dim=-1), torch.ones(2, 2, 5), rtol=1e-5, atol=1e-5)
    assert -math.exp(-0.5) < at.log_w.min() <= at.log_w.max() < 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": 20, "head_size": 8}, "width=20 is not a multiple of head_size=8; try head_size=4 or width=24"),
        ({"width": 16, "head_size": 8, "layer": 2, "layers": 2}, "layer=2 is not one of layers=2; count from 0"),
        ({"width": 16, "head_size": 8, "layer": -1}, "layer=-1 is not one of layers=1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        RWKV7(**options)
    if "layer" in options:
        with pytest.raises(ValueError, match=says):
            ChannelMix(options["width"], layer=options["layer"], layers=options.get("layers", 1))
