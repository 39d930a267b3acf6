"""The memory as a layer: its equations written out, its gates, persistent inputs, streams, and refusals."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from workbench.cells.gated_delta import GatedDelta
from workbench.cells.roles import parameter_roles
from workbench.cells.states import load_state, map_state, save_state
from workbench.cells.titans import Titans
from workbench.kernels.neural_memory import NeuralMemoryMLPState, NeuralMemoryState
from workbench.models.layouts import TitansStackConfig
from workbench.trace.names import derive

WIDTH, STEPS = 16, 11
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
KINDS = {
    "linear": {},
    "spans": {"refresh": 4},
    "mlp": {"memory": "mlp", "factor": 2},
    "all": {"memory": "mlp", "factor": 2, "refresh": 3, "persistent": 5},
    "persistent": {"persistent": 2},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, **more):
    """A layer in float64 whose gates depend on the input, which fresh ones do not."""
    torch.manual_seed(0)
    cell = Titans(WIDTH, heads=2, **KINDS[kind], **more).double()
    for parameter in cell.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return cell, torch.randn(3, STEPS, WIDTH, dtype=torch.float64)


def flat(state):
    """The tensors of a state."""
    found = []
    map_state(lambda x: found.append(x) or x, state)
    return found


def recall(memory, k):
    """What the memory answers to a key (B, H, D) with the weights at which gradients are taken."""
    if isinstance(memory, NeuralMemoryState):
        return torch.einsum("bhkv,bhk->bhv", memory.anchor, k)
    hidden = F.gelu(torch.einsum("bhfk,bhk->bhf", memory.anchor1, k))
    return torch.einsum("bhvf,bhf->bhv", memory.anchor2, hidden)


def test_layer_is_its_equations():
    """Step by step in plain torch, one matrix for each head, as the class describes it."""
    cell, x = make("linear")
    qkv = F.pad(x @ cell.qkv.weight.T, (0, 0, 3, 0))
    smooth = F.silu(sum(qkv[:, lag : lag + STEPS] * cell.conv.weight[:, lag] for lag in range(4)))
    q, k, v = (part.unflatten(-1, (2, 8)) for part in smooth.chunk(3, -1))
    q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    alpha, eta, theta = (part[..., None, None] for part in torch.sigmoid(cell.gates(x)).chunk(3, -1))
    m = s = torch.zeros(3, 2, 8, 8).double()  # to values from keys
    outputs = []
    for t in range(STEPS):
        error = (m @ k[:, t, :, :, None])[..., 0] - v[:, t]
        s = eta[:, t] * s - 0.5 * theta[:, t] * 2 * error[..., :, None] * k[:, t, :, None, :]
        m = (1 - alpha[:, t]) * m + s
        o = (m @ q[:, t, :, :, None])[..., 0]
        outputs.append(o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * cell.norm.weight)
    gated = torch.stack(outputs, 1).flatten(2) * F.silu(x @ cell.gate.weight.T)
    assert_close(cell(x)[0], gated @ cell.down.weight.T, **TIGHT)


@pytest.mark.parametrize(
    ("memory", "refresh", "gates"),
    [("linear", 1, (0.01, 0.9, 0.005)), ("linear", 5, (0.01, 0.9, 0.001)), ("mlp", 1, (0.001, 0.9, 0.005))],
)
def test_fresh_gates_are_as_stated(memory, refresh, gates):
    cell, x = Titans(WIDTH, heads=2, memory=memory, refresh=refresh), torch.randn(2, 3, WIDTH)
    at, *_ = cell.project(x, None, None)
    for gate, value in zip((at.alpha, at.eta, at.theta), gates, strict=True):
        assert_close(gate, torch.full((2, 2, 3), value))


@torch.no_grad()
@pytest.mark.parametrize("refresh", [1, 16, 64])
@pytest.mark.parametrize(("memory", "least"), [("linear", 0.01), ("mlp", 1.0)])
def test_a_fresh_memory_neither_explodes_nor_dies(memory, least, refresh):
    """Noise, one input again and again, and sines, slow and fast, for 1000 steps."""
    torch.manual_seed(1)
    phase, time = 6.28 * torch.rand(32), torch.arange(1000.0)[:, None]
    sines = [1.5 * torch.sin(time * pace + phase) for pace in (0.05, 0.3)]
    x = torch.stack([torch.randn(1000, 32), torch.randn(1, 32).expand(1000, 32), *sines])
    _, state = Titans(32, memory=memory, refresh=refresh)(x)
    sizes = state.memory[0].flatten(1).norm(dim=1)
    assert least < sizes.min() <= sizes.max() < 10


def test_without_momentum_and_forgetting_it_is_deltanet():
    """The error is corrected by the share 2 theta: a Gated DeltaNet that forgets nothing, with beta = 2 theta."""
    cell, x = make("linear")
    other = GatedDelta(WIDTH, heads=2, head_size=8, expand_v=1.0).double()
    for name in ("qkv", "conv", "gate", "norm", "down"):
        getattr(other, name).load_state_dict(getattr(cell, name).state_dict())
    cell.gates.bias.data[:4] = -200  # alpha = eta = 0
    cell.gates.weight.data[:4] = 0
    other.write.weight.data = cell.gates.weight[4:].clone()
    cell.gates.bias.data[4:] = 0
    other.log_rate.data[:] = -200
    at, *_ = cell.project(x, None, None)
    there, *_ = other.project(x, None, None)
    assert_close(2 * at.theta, there.beta, **TIGHT)
    assert_close(cell(x)[1].memory.m, other(x)[1].memory.s, **TIGHT)


@every_kind
@pytest.mark.parametrize("cuts", [(1,), (2, 5), (4,), tuple(range(1, STEPS))], ids=str)
def test_any_split_equals_one_pass(kind, cuts):
    cell, x = make(kind)
    wanted, last = cell(x)
    state, outputs = None, []
    for start, end in pairwise((0, *cuts, STEPS)):
        y, state = cell(x[:, start:end], state)
        outputs.append(y)
    got = torch.cat(outputs, 1)
    assert_close(got, wanted, **TIGHT)
    assert_close(flat(state), flat(last), **TIGHT)
    gradients = [torch.autograd.grad(y.square().sum(), list(cell.parameters())) for y in (got, wanted)]
    assert_close(*gradients, rtol=1e-9, atol=1e-9)


@every_kind
def test_padding_changes_nothing(kind):
    cell, x = make(kind)
    lengths = torch.tensor([STEPS, 4, 1])
    x[1, 4:], x[2, 1:] = torch.nan, torch.nan
    y, last = cell(x, lengths=lengths)
    traced, quantities = cell.trace(x, lengths=lengths)
    assert_close(traced, y, **TIGHT)
    assert y[1, 4:].abs().sum() + y[2, 1:].abs().sum() == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), list(cell.parameters()), retain_graph=True))
    for b, length in enumerate(lengths):
        alone, state = cell(x[b : b + 1, :length])
        assert_close(y[b : b + 1, :length], alone, **TIGHT)
        assert_close([part[b : b + 1] for part in flat(last)], flat(state), **TIGHT)
        behind = {name: part[b, :, length:] for name, part in quantities.items()}
        assert all((behind[name] == 1).all() for name in ("forget", "momentum"))
        assert all((behind[name] == 0).all() for name in ("input", "step_size", "log_forget", "surprise", "hidden"))
        for name in ("state_norm", "surprise_norm"):
            assert (behind[name] == quantities[name][b, :, length - 1, None]).all()


@every_kind
def test_saved_and_loaded_a_stream_goes_on(kind, tmp_path):
    cell, x = make(kind)
    wanted, _ = cell(x)
    _, state = cell(x[:, :5])
    save_state(tmp_path / "state.safetensors", state)
    assert_close(cell(x[:, 5:], load_state(tmp_path / "state.safetensors"))[0], wanted[:, 5:], **TIGHT)


@every_kind
def test_trace_belongs_to_the_output(kind):
    cell, x = make(kind)
    _, state = cell(x[:, :3])
    for before, rest in ((None, x), (state, x[:, 3:])):
        y, _ = cell(rest, before)
        traced, quantities = cell.trace(rest, before)
        assert_close(traced, y, **TIGHT)
        for name in ("forget", "input", "momentum"):
            assert 0 < quantities[name].min() <= quantities[name].max() < 1
        assert quantities["surprise"].min() > 0
        assert_close(quantities["log_forget"].exp(), quantities["forget"])
        assert "half_life" in derive(quantities)


@every_kind
def test_trace_is_what_happens_between_the_states(kind):
    """Gates by name, and the memory's error and norms from the states around each step."""
    cell, x = make(kind)
    _, state = cell(x[:, :3])
    at, *_ = cell.project(x[:, 3:], state, None)
    y, seen = cell.trace(x[:, 3:], state)
    named = {"query": at.q, "key": at.k, "value": at.v, "momentum": at.eta, "step_size": at.theta}
    named |= {"forget": 1 - at.alpha, "input": at.theta / cell.step_max}
    assert_close({name: seen[name] for name in named}, named, **TIGHT)
    assert_close(cell.leave(seen["hidden"], at), y, **TIGHT)
    for t in range(STEPS - 3):
        error = recall(state.memory, at.k[:, :, t]) - at.v[:, :, t]
        _, state = cell(x[:, 3 + t : 4 + t], state)
        layers = len(cell.first) or 1
        weights, surprises = state.memory[:layers], state.memory[layers : 2 * layers]
        size, moved = (sum(w.square().sum((-2, -1)) for w in part).sqrt() for part in (weights, surprises))
        wanted = {"surprise": error.norm(dim=-1), "state_norm": size, "surprise_norm": moved}
        assert_close({name: seen[name][:, :, t] for name in wanted}, wanted, **TIGHT)


def test_persistent_inputs_come_before_the_first_step_alone():
    cell, x = make("persistent")
    tokens = cell.persistent["tokens"].expand(3, -1, -1)
    bare, _ = make("linear")
    bare.load_state_dict({name: w for name, w in cell.state_dict().items() if not name.startswith("persistent")})
    wanted, _ = bare(torch.cat([tokens, x], 1))
    assert_close(cell(x)[0], wanted[:, 2:], **TIGHT)


def test_it_recalls_a_value_by_its_key():
    """What was written under a key is found again behind other steps, whatever was written under other keys."""
    cell, _ = make("linear")
    at, _, _ = cell.project(torch.randn(1, 6, WIDTH).double(), None, None)
    k = torch.eye(8).double()[None, None, :6].expand(1, 2, 6, 8)
    one, none = torch.full((1, 2, 6), 0.5).double(), torch.zeros(1, 2, 6).double()
    o, _ = cell.learn(at._replace(q=k[:, :, :1].expand_as(k), k=k, alpha=none, eta=none, theta=one), None, None)
    assert_close(o, at.v[:, :, :1].expand_as(o), **TIGHT)


def test_roles_and_state_kinds():
    cell, x = make("all")
    roles = parameter_roles(cell)
    assert {roles["first.w1"], roles["first.w2"], roles["persistent.tokens"]} == {"memory", "persistent"}
    assert isinstance(cell(x)[1].memory, NeuralMemoryMLPState)
    assert isinstance(make("linear")[0](x)[1].memory, NeuralMemoryState)


def test_a_stack_streams():
    torch.manual_seed(0)
    stack = TitansStackConfig(width=16, heads=2, refresh=3, persistent=2).build().double()
    x = torch.randn(2, 9, 16).double()
    wanted, _ = stack(x)
    first, state = stack(x[:, :4])
    assert_close(torch.cat([first, stack(x[:, 4:], state)[0]], 1), wanted, **TIGHT)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory": "deep"}, "memory='deep' is unknown; choose one of linear, mlp"),
        ({"heads": 3}, "width=16 is not a multiple of heads=3; try heads=1"),
        ({"refresh": 0}, "refresh=0"),
        ({"persistent": -1}, "persistent=-1"),
        ({"step_max": 0}, "step_max=0 is not a step size; take a number above 0"),
        ({"step_max": float("nan")}, "step_max=nan is not a step size"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Titans(WIDTH, **options)


def test_the_state_of_another_memory_is_refused():
    cell, x = make("linear")
    _, other = make("mlp")[0](x)
    with pytest.raises(TypeError, match="NeuralMemoryState"):
        cell(x, other)
