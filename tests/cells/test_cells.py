"""Every cell: any split equals one pass, ragged batches, roles, and what its trace says."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from workbench.cells.lstm import LSTM
from workbench.cells.mlstm import MLSTM
from workbench.cells.parts import CausalConv, HeadNorm, HeadwiseLinear
from workbench.cells.roles import ROLES, parameter_roles, tag
from workbench.cells.slstm import SLSTM, power_law
from workbench.cells.states import detach, map_state

WIDTH, STEPS = 16, 11
CELLS = {"lstm": LSTM, "slstm": SLSTM, "mlstm": MLSTM}
every_cell = pytest.mark.parametrize("kind", CELLS)


def make(kind):
    """A cell in float64 whose gates and recurrence have random weights: fresh ones are zero."""
    torch.manual_seed(0)
    cell = CELLS[kind](WIDTH).double()
    for parameter in cell.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return cell, torch.randn(3, STEPS, WIDTH, dtype=torch.float64)


@every_cell
@pytest.mark.parametrize("cuts", [(1,), (2, 5), (4,), tuple(range(1, STEPS))], ids=str)
def test_any_split_equals_one_pass(kind, cuts):
    cell, x = make(kind)
    wanted, last = cell(x)
    state, outputs = None, []
    edges = (0, *cuts, STEPS)
    for start, end in pairwise(edges):
        y, state = cell(x[:, start:end], state)
        outputs.append(y)
    got = torch.cat(outputs, 1)
    assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    assert_same_state(state, last)
    gradients = [torch.autograd.grad(y.square().sum(), list(cell.parameters())) for y in (got, wanted)]
    assert_close(*gradients, rtol=1e-9, atol=1e-9)


def assert_same_state(a, b):
    """Two states agree, tensor by tensor."""
    flat = ([], [])
    for state, out in zip((a, b), flat, strict=True):
        map_state(lambda x, out=out: out.append(x) or x, state)
    assert len(flat[0]) == len(flat[1]) > 0
    for x, y in zip(*flat, strict=True):
        assert_close(x, y, rtol=1e-10, atol=1e-10)


@every_cell
def test_padding_changes_nothing(kind):
    cell, x = make(kind)
    lengths = torch.tensor([STEPS, 4, 1])
    x[1, 4:], x[2, 1:] = torch.nan, torch.nan
    y, last = cell(x, lengths=lengths)
    assert y[1, 4:].abs().sum() + y[2, 1:].abs().sum() == 0 or kind == "slstm"
    gradients = torch.autograd.grad(y.square().sum(), list(cell.parameters()), retain_graph=True)
    assert all(g.isfinite().all() for g in gradients)
    for b, length in enumerate(lengths):
        alone, state = cell(x[b : b + 1, :length])
        assert_close(y[b : b + 1, :length], alone, rtol=1e-10, atol=1e-10)
        assert_same_state(row(last, b), state)


def row(state, b):
    """The state of one sequence of a batch."""
    return map_state(lambda x: x[b : b + 1], state)


@every_cell
def test_later_steps_cannot_be_seen(kind):
    cell, x = make(kind)
    y, _ = cell(x)
    changed = x.clone()
    changed[:, 6:] += 10
    assert_close(cell(changed)[0][:, :6], y[:, :6], rtol=0, atol=0)
    assert (cell(changed)[0][:, 6:] - y[:, 6:]).abs().max() > 1e-3


@every_cell
def test_trace_belongs_to_the_output(kind):
    cell, x = make(kind)
    _, state = cell(x[:, :3])
    y, _ = cell(x[:, 3:], state)
    traced, quantities = cell.trace(x[:, 3:], state, None)
    assert_close(traced, y, rtol=1e-10, atol=1e-10)
    for name in ("forget", "input"):
        assert 0 <= quantities[name].min() <= quantities[name].max() <= 1
    assert_close(quantities["log_forget"].exp(), quantities["forget"])


@every_cell
def test_every_parameter_has_one_role(kind):
    cell, _ = make(kind)
    roles = parameter_roles(cell)
    assert roles.keys() == dict(cell.named_parameters()).keys()
    assert set(roles.values()) <= set(ROLES)
    assert "core" in roles.values()


def test_roles_are_refused_when_wrong():
    with pytest.raises(ValueError, match="choose one of input"):
        tag("magic", torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"parameter 'weight' has no role"):
        parameter_roles(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("kind", ["slstm", "mlstm"])
def test_width_must_fit_the_heads(kind):
    with pytest.raises(ValueError, match="multiple of"):
        CELLS[kind](10, heads=8)


def test_conv_is_torchs_causal_conv_and_streams():
    torch.manual_seed(1)
    conv, x = CausalConv(5, 4).double(), torch.randn(2, 9, 5).double()
    padded = torch.nn.functional.pad(x.transpose(1, 2), (3, 0))
    wanted = torch.nn.functional.conv1d(padded, conv.weight[:, None], conv.bias, groups=5).transpose(1, 2)
    y, tail = conv(x)
    assert_close(y, wanted)
    assert_close(tail, x[:, -3:])


def test_head_norm_normalises_each_head():
    norm = HeadNorm(12, 3)
    y = norm(torch.randn(2, 3, 5, 4) * 7 + 2).unflatten(-1, (3, 4))
    assert_close(y.mean(-1), torch.zeros(2, 5, 3), atol=1e-5, rtol=0)
    assert_close(y.var(-1, unbiased=False), torch.ones(2, 5, 3), atol=1e-4, rtol=0)


def test_headwise_linear_is_block_diagonal():
    linear, x = HeadwiseLinear(6, 3), torch.randn(1, 1, 6)
    wanted = x @ torch.block_diag(*linear.weight).T
    assert_close(linear(x), wanted)
    with pytest.raises(ValueError, match="width=7 is not a multiple of blocks=3"):
        HeadwiseLinear(7, 3)


def test_forget_bias_spreads_from_long_to_short():
    first, last = power_law(8, 0.0), power_law(8, 1.0)
    assert (first[0], first[-1]) == (5.0, -7.0)
    assert (first.diff() < 0).all()
    assert (last[1:-1] > first[1:-1]).all()  # deeper blocks hold on longer
    even = SLSTM(16, heads=2, forget_bias=(6.0, -1.0)).bias[2, 0, 0]
    assert_close(even.detach(), torch.arange(6.0, -2.0, -1.0))


def test_detach_cuts_the_graph():
    cell, x = make("slstm")
    _, state = cell(x)
    assert state.memory.c.requires_grad
    assert not detach(state).memory.c.requires_grad
    assert detach(None) is None
