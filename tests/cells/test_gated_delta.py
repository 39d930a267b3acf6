"""The Gated DeltaNet layer: its equations written out once more, its state, its trace and its fresh weights."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from workbench.cells.gated_delta import GatedDelta
from workbench.cells.roles import parameter_roles
from workbench.cells.states import map_state
from workbench.kernels.backends import Choice
from workbench.training.optimizer import parameter_groups

WIDTH, STEPS = 16, 11
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
FORMS = ["auto", "reference", Choice("chunkwise", 4), Choice("chunkwise", 4, recompute=True)]
every_form = pytest.mark.parametrize("form", FORMS, ids=["auto", "reference", "chunkwise-4", "chunkwise-4-recompute"])
both_ranges = pytest.mark.parametrize("negative", [False, True], ids=["0..1", "0..2"])


def make(form="auto", **options):
    """A cell in float64 with K = 3 and V = 6, and an input."""
    torch.manual_seed(0)
    cell = GatedDelta(WIDTH, backend=form, **options).double()
    for parameter in cell.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return cell, torch.randn(3, STEPS, WIDTH, dtype=torch.float64)


def assert_same_state(a, b):
    """Two states agree."""
    assert_close((a.tail, a.memory.s), (b.tail, b.memory.s), **TIGHT)


def smoothed(x, matrix, filters):
    """SiLU of a causal convolution of one projection, (B, T, H D) by loops over the taps."""
    x, taps = x @ matrix.T, filters.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    return F.silu(sum(padded[:, tap : tap + x.shape[1]] * filters[:, tap] for tap in range(taps)))


def written_out(cell, x, heads, K, V, strongest):
    """The layer by its equations, with three projections and convolutions, step by step and head by head."""
    ends = [0, heads * K, 2 * heads * K, heads * (2 * K + V)]
    parts = [(cell.qkv.weight[a:b], cell.conv.weight[a:b]) for a, b in pairwise(ends)]
    q, k, v = (smoothed(x, *part).unflatten(-1, (heads, -1)) for part in parts)  # (B, T, H, D)
    q, k = (y / torch.sqrt((y**2).sum(-1, keepdim=True) + 1e-6) for y in (q, k))
    beta = strongest * torch.sigmoid(x @ cell.write.weight.T)
    alpha = torch.exp(-torch.exp(cell.log_rate) * F.softplus(x @ cell.forget.weight.T + cell.forget_bias))
    gate = (x @ cell.gate.weight.T).unflatten(-1, (heads, -1))
    rows = []
    for b in range(x.shape[0]):
        memory, outputs = torch.zeros(heads, V, K, dtype=x.dtype), []
        for t in range(x.shape[1]):
            read = []
            for h in range(heads):
                key, eye = k[b, t, h], torch.eye(K, dtype=x.dtype)
                turn = alpha[b, t, h] * (eye - beta[b, t, h] * torch.outer(key, key))
                memory = memory.clone()
                memory[h] = memory[h] @ turn + beta[b, t, h] * torch.outer(v[b, t, h], key)
                o = memory[h] @ q[b, t, h] / math.sqrt(K)
                o = o / torch.sqrt((o**2).mean() + 1e-5) * cell.norm.weight
                read.append(o * F.silu(gate[b, t, h]))
            outputs.append(torch.cat(read) @ cell.down.weight.T)
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


@both_ranges
def test_is_its_equations(negative):
    cell, x = make(negative_eigenvalues=negative)
    assert_close(cell(x)[0], written_out(cell, x, 4, 3, 6, 2 if negative else 1), **TIGHT)


@every_form
@both_ranges
@pytest.mark.parametrize("cuts", [(1,), (2, 5), (4,), tuple(range(1, STEPS))], ids=str)
def test_any_split_equals_one_pass(form, negative, cuts):
    cell, x = make(form, negative_eigenvalues=negative)
    wanted, last = cell(x)
    state, outputs = None, []
    for start, end in pairwise((0, *cuts, STEPS)):
        y, state = cell(x[:, start:end], state)
        outputs.append(y)
    got = torch.cat(outputs, 1)
    assert_close(got, wanted, **TIGHT)
    assert_same_state(state, last)
    gradients = [
        torch.autograd.grad(y.square().sum() + s.memory.s.sum(), list(cell.parameters()))
        for y, s in ((got, state), (wanted, last))
    ]
    assert_close(*gradients, **TIGHT)


@every_form
def test_padding_changes_nothing(form):
    cell, x = make(form)
    before = cell(torch.randn_like(x))[1]
    lengths = torch.tensor([STEPS, 4, 0])
    x[1, 4:], x[2] = torch.nan, torch.nan
    y, last = cell(x, before, lengths=lengths)
    assert y[1, 4:].abs().sum() + y[2].abs().sum() == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().sum(), list(cell.parameters())))
    for b, length in enumerate([STEPS, 4]):
        first = map_state(lambda s, b=b: s[b : b + 1], before)
        alone, state = cell(x[b : b + 1, :length], first)
        assert_close(y[b : b + 1, :length], alone, **TIGHT)
        assert_same_state(map_state(lambda s, b=b: s[b : b + 1], last), state)
    assert torch.equal(last.memory.s[2], before.memory.s[2])
    assert torch.equal(last.tail[2], before.tail[2])


def test_later_steps_cannot_be_seen():
    cell, x = make()
    y, _ = cell(x)
    changed = x.clone()
    changed[:, 6:] += 10
    assert_close(cell(changed)[0][:, :6], y[:, :6], rtol=0, atol=0)
    assert (cell(changed)[0][:, 6:] - y[:, 6:]).abs().max() > 1e-3


@both_ranges
def test_trace_belongs_to_the_output(negative):
    cell, x = make(negative_eigenvalues=negative)
    _, state = cell(x[:, :3])
    lengths = torch.tensor([8, 2, 5])
    y, _ = cell(x[:, 3:], state, lengths=lengths)
    traced, quantities = cell.trace(x[:, 3:], state, lengths=lengths)
    assert_close(traced, y, **TIGHT)
    assert 0 <= quantities["input"].min() <= quantities["input"].max() <= 1
    assert_close(quantities["write_strength"], (2 if negative else 1) * quantities["input"])
    assert_close(quantities["log_forget"].exp(), quantities["forget"])
    assert quantities["input"][1, :, 2:].abs().max() == 0
    assert (quantities["forget"][1, :, 2:] == 1).all()
    assert_close(quantities["key"][0].norm(dim=-1), torch.ones(4, 8).double(), rtol=1e-4, atol=1e-4)
    write = quantities["write_strength"][..., None] * quantities["error"]
    s = state.memory.s[0] * quantities["forget"][0, :, 0, None, None]
    s = s + quantities["key"][0, :, 0, :, None] * write[0, :, 0, None]
    assert_close(quantities["state_norm"][0, :, 0], torch.linalg.matrix_norm(s))


def test_roles_and_weight_decay():
    """Matrices decay, as in the official implementation; rate, bias and norm do not."""
    cell, _ = make()
    roles = parameter_roles(cell)
    assert roles.keys() == dict(cell.named_parameters()).keys()
    assert {name for name, role in roles.items() if role == "core"} == {"log_rate", "forget_bias"}
    _, free = parameter_groups(cell, 0.1)
    assert {id(p) for p in free["params"]} == {id(p) for p in (cell.log_rate, cell.forget_bias, cell.norm.weight)}


def test_fresh_weights_are_the_official_ones():
    cell = GatedDelta(192, heads=64, head_size=1)
    rate, pace = cell.log_rate.exp(), F.softplus(cell.forget_bias)
    assert 0 < rate.min() < 0.9 < 15 < rate.max() <= 16
    assert 0.999e-3 <= pace.min() < 2e-3 < 0.05 < pace.max() <= 0.1001
    assert abs(pace.log().mean() - math.log(0.01)) < 0.6  # log-uniform: its middle is 0.01
    for linear, inputs in [(cell.qkv, 192), (cell.write, 192), (cell.forget, 192), (cell.gate, 192), (cell.down, 128)]:
        bound = 1 / math.sqrt(inputs)
        assert linear.bias is None
        assert 0.98 * bound < linear.weight.abs().max() <= bound
    assert 0.49 < cell.conv.weight.abs().max() <= 0.5
    assert cell.conv.bias is None
    assert (cell.norm.weight == 1).all()


def test_sizes_follow_the_official_rule():
    """0.75 E for keys, twice that for values: about 6 E^2 parameters, to the digit at the official default."""
    with torch.device("meta"):
        cell = GatedDelta(2048, heads=6)
    assert (cell.qkv.weight.shape[0], cell.down.weight.shape[1], cell.norm.weight.shape[0]) == (6144, 3072, 512)
    small = 2 * 2048 * 6 + 4 * 6144 + 6 + 6 + 512  # gates, filters, rate, bias, norm
    assert sum(p.numel() for p in cell.parameters()) == 6 * 2048**2 + small
    wide = GatedDelta(10, heads=3, head_size=2, expand_v=1.5, conv=2)
    y, state = wide(torch.randn(2, 5, 10))
    assert (y.shape, state.tail.shape, state.memory.s.shape) == ((2, 5, 10), (2, 1, 21), (2, 3, 2, 3))


def test_narrow_types_keep_a_wide_memory():
    torch.manual_seed(1)
    cell, x = GatedDelta(32).bfloat16(), torch.randn(2, 40, 32).bfloat16()
    y, state = cell(x)
    assert {part.dtype for part in cell.project(x, None, None)[0][:5]} == {torch.float32}
    assert (y.dtype, state.tail.dtype, state.memory.s.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    wanted, _ = cell.double()(x.double())
    assert (y.double() - wanted).norm() / wanted.norm() < 0.02


def test_autocast_keeps_gates_and_memory_wide():
    torch.manual_seed(2)
    cell, x = GatedDelta(32), torch.randn(2, 40, 32)
    wanted, _ = cell(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = cell(x)
        at, *_ = cell.project(x, None, None)
    assert (y.dtype, state.memory.s.dtype) == (torch.bfloat16, torch.float32)
    assert (y - wanted).norm() / wanted.norm() < 0.02
    assert {part.dtype for part in at[:5]} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": 10, "heads": 3}, r"head_size = 0.75 x 10 / 3 = 2.5.*pass head_size, or try width=12"),
        ({"width": 10, "heads": 4}, "try width=16"),
        ({"width": 16, "head_size": 0}, "head_size=0 leaves no room for a key"),
        ({"width": 16, "heads": 0}, "heads=0 leaves no memory"),
        ({"width": 16, "expand_v": 1.5}, r"expand_v=1.5 with head_size=3 makes values of 4.5 units.*try expand_v=2"),
        ({"width": 16, "expand_v": 0.0}, "try expand_v=1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        GatedDelta(**options)


def test_backend_reaches_the_kernel():
    cell, x = make("cuda")
    with pytest.raises(ValueError, match="gated_delta has no backend 'cuda'"):
        cell(x)
