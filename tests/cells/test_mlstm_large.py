"""The mLSTM layer of xLSTM 7B: its equations written out once more, caps, fused matrices, fresh weights, refusals."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from workbench.cells.mlstm_large import MLSTMLarge
from workbench.cells.parts import HeadNorm, soft_cap
from workbench.cells.roles import parameter_roles
from workbench.cells.states import map_state
from workbench.kernels.mlstm import MLSTMSigmoidState, MLSTMState
from workbench.training.optimizer import parameter_groups

WIDTH, HEADS, KEYS, STEPS = 16, 2, 8, 7
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def make(**options):
    """A cell in float64 with random weights everywhere, and an input."""
    torch.manual_seed(0)
    cell = MLSTMLarge(WIDTH, **{"heads": HEADS} | options).double()
    for parameter in cell.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return cell, torch.randn(3, STEPS, WIDTH, dtype=torch.float64)


def separate(cell):
    """The matrices that the fused ones hold: q, k, v, o, and i, f with their biases."""
    q, k, v, o = cell.qkvo.weight.split([KEYS, KEYS, WIDTH, WIDTH])
    (i, f), (i_bias, f_bias) = cell.input_forget.weight.chunk(2), cell.input_forget.bias.chunk(2)
    return {"q": q, "k": k, "v": v, "o": o, "i": i, "f": f, "i_bias": i_bias, "f_bias": f_bias}


def written_out(cell, x, cap):
    """The layer by its equations, unstabilised, step by step and head by head, with separate matrices."""
    w, rows = separate(cell), []
    for b in range(x.shape[0]):
        c = [torch.zeros(KEYS // HEADS, WIDTH // HEADS, dtype=x.dtype) for _ in range(HEADS)]
        n = [torch.zeros(KEYS // HEADS, dtype=x.dtype) for _ in range(HEADS)]
        outputs = []
        for t in range(x.shape[1]):
            q, k, v = ((w[name] @ x[b, t]).view(HEADS, -1) for name in "qkv")
            i, f = (w[name] @ x[b, t] + w[f"{name}_bias"] for name in "if")
            i, f = (cap * torch.tanh(gate / cap) for gate in (i, f))
            answers = []
            for h in range(HEADS):
                c[h] = torch.sigmoid(f[h]) * c[h] + torch.exp(i[h]) * torch.outer(k[h], v[h])
                n[h] = torch.sigmoid(f[h]) * n[h] + torch.exp(i[h]) * k[h]
                read = q[h] / math.sqrt(KEYS // HEADS)
                answer = c[h].T @ read / (n[h] @ read).abs().clamp(min=1)
                centred = answer - answer.mean()
                answers.append(centred / torch.sqrt(centred.square().mean() + 1e-6))
            gate = torch.sigmoid(w["o"] @ x[b, t])
            outputs.append(cell.out.weight @ (gate * torch.cat(answers) * cell.norm.weight))
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


@pytest.mark.parametrize("cap", [15.0, 1.5])
def test_is_its_equations(cap):
    cell, x = make(gate_cap=cap)
    assert_close(cell(x)[0], written_out(cell, x, cap), **TIGHT)


def test_fused_projections_equal_separate_ones():
    cell, x = make()
    at, w = cell.project(x, None), separate(cell)
    for name in ("q", "k", "v"):
        assert_close(getattr(at, name).transpose(1, 2).flatten(2), F.linear(x, w[name]), **TIGHT)
    assert_close(at.gate, torch.sigmoid(F.linear(x, w["o"])), **TIGHT)
    for name in ("i", "f"):
        alone = soft_cap(F.linear(x, w[name], w[f"{name}_bias"]), 15.0)
        assert_close(getattr(at, name).transpose(1, 2), alone, **TIGHT)


def test_gates_are_held_within_the_cap():
    cell, x = make(gate_cap=2.0)
    at = cell.project(1e3 * x, None)
    assert 1.999 < torch.cat([at.i, at.f]).abs().max() <= 2
    free, _ = make(gate_cap=None)
    at = free.project(x, None)
    raw = F.linear(x, free.input_forget.weight, free.input_forget.bias).transpose(1, 2)
    assert torch.equal(torch.cat([at.i, at.f], 1), raw)
    assert raw.abs().max() > 2


@pytest.mark.parametrize("cap", [15.0, 30.0])
def test_soft_cap_keeps_what_is_small_and_bounds_what_is_large(cap):
    x = torch.tensor([0.0, 1e-3, -1e-3, 1e6, -1e6], dtype=torch.float64)
    assert_close(soft_cap(x, cap), torch.tensor([0, 1e-3, -1e-3, cap, -cap], dtype=x.dtype), rtol=1e-8, atol=0)
    assert soft_cap(x, None) is x


def test_soft_cap_of_narrow_numbers_rounds_once():
    x = torch.linspace(-40, 40, 201).bfloat16()
    assert torch.equal(soft_cap(x, 15.0), (15 * torch.tanh(x.double() / 15)).bfloat16())


def test_norm_is_reduced_in_float32():
    """In bfloat16 a mean of 256 numbers near 100 would lose what distinguishes them."""
    torch.manual_seed(1)
    h = (100 + torch.randn(2, 1, 3, 256)).bfloat16()
    y = HeadNorm(256, 1, eps=1e-6).bfloat16()(h)
    wanted = F.layer_norm(h.double(), (256,), eps=1e-6).transpose(1, 2).flatten(2)
    assert y.dtype == torch.bfloat16
    assert_close(y.double(), wanted, rtol=2**-8, atol=1e-6)


def test_narrow_types_keep_a_wide_memory():
    torch.manual_seed(1)
    cell, x = MLSTMLarge(32, heads=2).bfloat16(), torch.randn(2, 40, 32).bfloat16()
    cell.qkvo.weight.data[-32:] = 0.1 * torch.randn(32, 32)
    y, state = cell(x)
    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}
    wanted, _ = cell.double()(x.double())
    assert (y.double() - wanted).norm() / wanted.norm() < 0.05


@pytest.mark.parametrize(
    ("gates", "kind"), [("exponential", MLSTMState), ("expforget", MLSTMState), ("sigmoid", MLSTMSigmoidState)]
)
def test_every_kind_of_gate_streams_and_is_traced(gates, kind):
    cell, x = make(gates=gates)
    wanted, last = cell(x)
    _, state = cell(x[:, :3])
    y, again = cell(x[:, 3:], state)
    assert isinstance(last, kind)
    assert_close(y, wanted[:, 3:], **TIGHT)
    assert_close(tuple(again), tuple(last), **TIGHT)
    traced, quantities = cell.trace(x[:, 3:], state)
    assert_close(traced, y, **TIGHT)
    assert quantities["output"].shape == (3, HEADS, STEPS - 3, WIDTH // HEADS)
    assert_close(quantities["log_forget"].exp(), quantities["forget"])
    assert 0 <= quantities["input"].min() <= quantities["input"].max() <= 1


def test_padding_changes_nothing():
    cell, x = make()
    lengths = torch.tensor([STEPS, 3, 0])
    x[1, 3:], x[2] = torch.nan, torch.nan
    y, last = cell(x, lengths=lengths)
    assert y[1, 3:].abs().sum() + y[2].abs().sum() == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().sum(), list(cell.parameters())))
    alone, state = cell(x[1:2, :3])
    assert_close(y[1:2, :3], alone, **TIGHT)
    assert_close(tuple(map_state(lambda s: s[1:2], last)), tuple(state), **TIGHT)
    assert (last.m[2] == -torch.inf).all()


def test_fresh_weights_are_those_of_the_training_code():
    """Input gates nearly shut, forget gates open, output gates half open; both gates blind to x."""
    torch.manual_seed(2)
    cell = MLSTMLarge(256, heads=4, layers=8)
    w = cell.qkvo.weight
    assert_close(w[:512].std(), torch.tensor(math.sqrt(2 / (5 * 256))), rtol=0.02, atol=0)
    assert_close(cell.out.weight.std(), torch.tensor(2 / 8 / math.sqrt(256)), rtol=0.02, atol=0)
    assert (w[512:] == 0).all()
    assert (cell.input_forget.weight == 0).all()
    assert_close(cell.input_forget.bias, torch.tensor([-10.0] * 4 + [3, 4, 5, 6]))
    assert (cell.norm.weight == 1).all()
    assert (cell.qkvo.bias, cell.out.bias) == (None, None)
    at = cell.project(torch.randn(2, 3, 256), None)
    assert (at.gate == 0.5).all()
    assert_close(at.i, torch.full((2, 4, 3), -15 * math.tanh(10 / 15)))
    same = MLSTMLarge(256, heads=4, gates="expforget").input_forget.bias[4:]
    assert_close(same.exp(), torch.sigmoid(torch.tensor([3.0, 4, 5, 6])))


def test_sizes_are_those_of_the_paper():
    """At 4096 with 8 heads: keys of 256 and values of 512, as the published model has them."""
    with torch.device("meta"):
        cell = MLSTMLarge(4096)
    assert cell.sizes == (2048, 2048, 4096, 4096)
    assert sum(p.numel() for p in cell.parameters()) == 4 * 4096**2 + 16 * 4096 + 16 + 4096
    y, state = MLSTMLarge(12, heads=3, qk_factor=0.25)(torch.randn(2, 5, 12))
    assert (y.shape, state.c.shape, state.n.shape, state.m.shape) == ((2, 5, 12), (2, 3, 1, 4), (2, 3, 1), (2, 3))


def test_roles_and_weight_decay():
    """Projections decay; norm and gates, which decide what is kept, do not."""
    cell, _ = make()
    roles = parameter_roles(cell)
    assert roles.keys() == dict(cell.named_parameters()).keys()
    assert {name for name, role in roles.items() if role == "core"} == {"input_forget.weight", "input_forget.bias"}
    _, free = parameter_groups(cell, 0.1)
    gates = cell.input_forget
    assert {id(p) for p in free["params"]} == {id(p) for p in (gates.weight, gates.bias, cell.norm.weight)}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"width": 12, "heads": 8},
            r"width=12 and the width of the keys, 0.5 x 12 = 6, must be multiples of heads=8; ",
        ),
        ({"width": 12, "heads": 8}, "try heads=6"),
        ({"width": 24, "heads": 8}, "0.5 x 24 = 12, must be multiples of heads=8; try heads=12"),
        ({"width": 16, "heads": 2, "qk_factor": 0.01}, "heads=2 and keys of width 0.01 x 16 = 0 leave no memory"),
        ({"width": 16, "heads": 0}, "heads=0 and keys of width 0.5 x 16 = 8 leave no memory"),
        ({"width": 16, "gate_cap": 0.0}, "gate_cap=0.0 leaves the gates no room; take a number above 0, or None"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        MLSTMLarge(**options)


def test_what_does_not_fit_is_refused_at_the_door(unchecked):
    cell, x = make()
    _, state = cell(x)
    with pytest.raises(ValueError, match=r"MLSTMLarge: x is \(3, 7, 15\), and must be \(B, T, E\) with E = 16"):
        cell(x[..., 1:])
    with pytest.raises(ValueError, match=r"the cell is torch\.float64"):
        cell(x.float())
    with pytest.raises(TypeError, match="state must be None or the MLSTMState that MLSTMLarge returned"):
        cell(x, tuple(state))
    with pytest.raises(TypeError, match="state must be None or the MLSTMSigmoidState that MLSTMLarge returned"):
        make(gates="sigmoid")[0](x, state)
    with pytest.raises(ValueError, match=r"state.c is \(3, 2, 4, 8\), and must be \(B, H, K, V\) = \(2, 2, 4, 8\)"):
        cell(x[:2], state)
    with pytest.raises(ValueError, match="mlstm has no backend 'cuda'"):
        make(backend="cuda")[0](x)
