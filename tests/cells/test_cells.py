"""Every cell: any split equals one pass, ragged batches, no look-ahead, files, narrow types, roles, and its trace."""

from inspect import signature

import pytest
import torch
from torch.testing import assert_close

from tests.cells.table import (
    BATCH,
    CELLS,
    STEPS,
    TRACED,
    WIDTH,
    carried,
    every_cell,
    flat,
    gradients,
    make,
    rows,
    steps,
    stream,
)
from tests.contract import TIGHT, relative, weigh
from workbench.cells.parts import CausalConv, HeadNorm, HeadwiseLinear
from workbench.cells.roles import ROLES, parameter_roles, tag
from workbench.cells.slstm import SLSTM, power_law
from workbench.cells.states import load_state, map_state, save_state
from workbench.kernels.checks import inside
from workbench.trace.names import NAMES

STEP_BY_STEP = tuple(range(1, STEPS))


@every_cell
@pytest.mark.parametrize("start", ["empty", "carried"])
@pytest.mark.parametrize("cuts", [(1,), (4, 6), STEP_BY_STEP], ids=["1", "4-6", "step-by-step"])
def test_any_split_equals_one_pass(kind, start, cuts):
    """Outputs, last state, and gradients towards weights, inputs and the first state."""
    cell, inputs = make(kind)
    first = None if start == "empty" else carried(cell, inputs)
    for x in inputs.values():
        x.requires_grad_()
    wanted, last = cell(**inputs, state=first)
    y, state = stream(cell, inputs, cuts, first)
    assert type(state) is type(last)
    assert_close(y, wanted, **TIGHT)
    assert_close(flat(state), flat(last), **TIGHT)
    assert_close(gradients(cell, inputs, first, y, state), gradients(cell, inputs, first, wanted, last), **TIGHT)


@every_cell
@pytest.mark.parametrize("start", ["empty", "carried"])
def test_padding_changes_nothing(kind, start):
    """A ragged batch is its sequences one by one, and their gradients together, whatever the padding holds."""
    cell, inputs = make(kind)
    first = None if start == "empty" else carried(cell, inputs)
    lengths = [STEPS, 4, 1]
    for x in inputs.values():
        for b, length in enumerate(lengths):
            x[b, length:] = torch.nan
        x.requires_grad_()
    y, last = cell(**inputs, state=first, lengths=torch.tensor(lengths))
    mass, total = [torch.randn_like(x) for x in real(y, last)], 0
    for b, length in enumerate(lengths):
        assert y[b, length:].abs().sum() == 0
        before = map_state(lambda x, b=b: x[b : b + 1], first)
        y_b, state = cell(**steps(rows(inputs, b), 0, length), state=before)
        assert_close(y[b : b + 1, :length], y_b, **TIGHT)
        assert_close([x[b : b + 1] for x in flat(last)], flat(state), **TIGHT)
        weights = [mass[0][b : b + 1, :length], *(w[b : b + 1] for w in mass[1:])]
        total += sum((x * w).sum() for x, w in zip(real(y_b, state), weights, strict=True))
    wanted = [*cell.parameters(), *inputs.values()]
    together = sum((x * w).sum() for x, w in zip(real(y, last), mass, strict=True))
    found, alone = (
        torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True) for loss in (together, total)
    )
    assert_close(found, alone, **TIGHT)


def real(y, state):
    """The output and those tensors of the state that can have a gradient."""
    return [y, *(x for x in flat(state) if x.is_floating_point())]


@every_cell
def test_a_sequence_without_steps_stays_as_it_was(kind):
    cell, inputs = make(kind)
    first, none = carried(cell, inputs), torch.zeros(BATCH, dtype=torch.int64)
    y, state = cell(**inputs, state=first, lengths=none)
    assert y.abs().sum() == 0
    assert all(torch.equal(a, b) for a, b in zip(flat(state), flat(first), strict=True))
    _, empty = cell(**inputs, lengths=none)
    wanted, _ = cell(**inputs)
    y, _ = cell(**inputs, state=empty)
    assert_close(y, wanted, **TIGHT)


@every_cell
def test_later_steps_cannot_be_seen(kind):
    """The gradient towards later inputs is exactly zero; towards a step itself and the one before it is not."""
    cell, inputs = make(kind)
    for x in inputs.values():
        x.requires_grad_()
    for t in (1, 5, STEPS - 2):
        y, _ = cell(**inputs)
        for gradient in torch.autograd.grad(weigh([y[:, t]]), list(inputs.values())):
            assert gradient[:, t + 1 :].abs().max() == 0
            assert gradient[:, : t + 1].abs().amax((0, 2))[-2:].min() > 1e-6


@pytest.mark.parametrize("kind", TRACED)
@pytest.mark.parametrize("lengths", [None, torch.tensor([STEPS - 3, 2, 0])], ids=["full", "ragged"])
def test_trace_belongs_to_the_output(kind, lengths):
    cell, inputs = make(kind)
    _, state = cell(**steps(inputs, 0, 3))
    now = steps(inputs, 3, None)
    y, _ = cell(**now, state=state, lengths=lengths)
    traced, quantities = cell.trace(**now, state=state, lengths=lengths)
    assert_close(traced, y, **TIGHT)
    assert {(len(x), x.shape[2]) for x in quantities.values()} == {(BATCH, STEPS - 3)}
    alive = slice(None) if lengths is None else inside(lengths, STEPS - 3)
    write, keep = (quantities[name].transpose(1, 2)[alive] for name in ("input", "forget"))
    assert 0 <= write.min() <= write.max() <= 1
    assert keep.min() >= 0
    assert keep.max() <= 1 or kind in ("slstm-exponential", "mlstm-expforget")
    assert_close(quantities["log_forget"].exp(), quantities["forget"])


@pytest.mark.parametrize("kind", TRACED)
def test_trace_takes_what_forward_takes_and_refuses_what_it_refuses(kind):
    cell, inputs = make(kind)
    forward, trace = (signature(getattr(type(cell), name)).parameters for name in ("forward", "trace"))
    assert [(p.name, p.kind, p.default) for p in forward.values()] == [
        (p.name, p.kind, p.default) for p in trace.values()
    ]
    for call in (cell, cell.trace):
        with pytest.raises(ValueError, match=rf"x is \(3, 11, 15\), and must be \(B, T, E\) with E = {WIDTH}"):
            call(**{name: x[..., 1:] for name, x in inputs.items()})


@pytest.mark.parametrize("kind", TRACED)
def test_trace_uses_the_vocabulary_and_matrix_memories_have_a_rank(kind):
    cell, inputs = make(kind)
    _, quantities = cell.trace(**inputs)
    assert quantities.keys() <= NAMES.keys()
    assert cell.levers().keys() <= NAMES.keys()
    matrix = not kind.startswith(("lstm", "gru", "slstm"))
    assert ("state_rank" in quantities) == matrix
    if matrix:
        smaller = min(quantities[name].shape[-1] for name in ("key", "value"))
        most = 2 * smaller if "mlp" in kind else smaller  # two layers are one matrix, block by block
        assert 1 - 1e-9 <= quantities["state_rank"].min() <= quantities["state_rank"].max() <= most + 1e-9
    if "write_norm" in quantities and "error" in quantities:
        wanted = quantities["write_strength"] * quantities["error"].norm(dim=-1)
        assert_close(quantities["write_norm"], wanted, rtol=1e-2, atol=1e-6)  # keys fall short of length 1 by 1e-6 / 2
    if kind.startswith("titans-linear"):
        assert_close(quantities["write_norm"], 2 * quantities["step_size"] * quantities["surprise"], rtol=1e-2, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", TRACED)
def test_trace_of_a_narrow_cell_is_as_wide_as_its_memory(kind):
    """In bfloat16 and under autocast the trace belongs to the output as closely as bfloat16 can say."""
    cell, inputs = make(kind, torch.bfloat16)
    y, _ = cell(**inputs)
    traced, quantities = cell.trace(**inputs)
    assert traced.dtype == y.dtype
    assert relative(traced, y) < 0.005
    assert {quantities[name].dtype for name in ("state_norm", "cell") if name in quantities} <= {torch.float32}
    cell, inputs = make(kind, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = cell(**inputs)
        traced, _ = cell.trace(**inputs)
    assert relative(traced, y) < 0.005


@every_cell
def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(kind, tmp_path):
    cell, inputs = make(kind)
    whole, last = cell(**inputs)
    _, state = cell(**steps(inputs, 0, 5))
    save_state(tmp_path / "state.safetensors", state)
    loaded = load_state(tmp_path / "state.safetensors")
    y, end = cell(**steps(inputs, 5, None), state=loaded)
    uninterrupted, wanted = cell(**steps(inputs, 5, None), state=state)
    assert torch.equal(y, uninterrupted)
    assert all(torch.equal(a, b) for a, b in zip(flat(end), flat(wanted), strict=True))
    assert_close(y, whole[:, 5:], **TIGHT)
    assert_close(flat(end), flat(last), **TIGHT)


@torch.no_grad()
@every_cell
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)], ids=["32", "bf16"])
def test_narrow_types_stay_near_float64(kind, dtype, bound):
    """Outputs come in the type of the inputs, memory in float32; weights and inputs are rounded alike in both runs."""
    cell, inputs = make(kind, dtype)
    y, state = stream(cell, inputs, (4,))
    assert y.dtype == dtype
    memory = getattr(state, "memory", state if kind in ("lstm", "gru") or "large" in kind else ())
    assert {x.dtype for x in flat(memory)} <= {torch.float32, torch.int64}
    wanted, _ = cell.double()(**{name: x.double() for name, x in inputs.items()})
    assert relative(y, wanted) < bound


@every_cell
def test_every_parameter_has_one_role(kind):
    cell, _ = make(kind)
    roles = parameter_roles(cell)
    assert roles.keys() == dict(cell.named_parameters()).keys()
    assert set(roles.values()) <= set(ROLES)
    assert len(set(roles.values())) > 1


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


@every_cell
def test_an_empty_batch_has_an_empty_answer(kind):
    cell, inputs = make(kind)
    y, state = cell(**{name: x[:0] for name, x in inputs.items()})
    assert y.shape == inputs["x"][:0].shape
    assert cell(**{name: x[:0] for name, x in inputs.items()}, state=state)[0].shape == y.shape
