"""What if: a forced gate is what the trace reports, nothing before it moves, and nothing of it stays."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.cells.table import BATCH, STEPS, TRACED, carried, make
from tests.contract import TIGHT
from workbench.cells.gru import GRU
from workbench.cells.lstm import LSTM
from workbench.cells.mlstm import MLSTM
from workbench.cells.slstm import SLSTM
from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import (
    GatedDeltaStackConfig,
    LSTMStackConfig,
    RWKV7StackConfig,
    TitansStackConfig,
    XLSTMLargeStackConfig,
    XLSTMStackConfig,
)
from workbench.trace.edits import drop_stabilizer, edited, force, mask, what_if
from workbench.trace.record import record

VALUES = {"log_forget": -0.1, "half_life": 7.0, "step_size": 0.02, "write_strength": 0.7, "output": 0.6}  # else 0.3
LOOP = ("lstm", "gru", "slstm")  # cells whose gates depend on their last output
every_kind = pytest.mark.parametrize("kind", TRACED)


class Holder(nn.Module):
    """A model of one cell."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, **inputs):
        return self.cell(**inputs)[0]


def hold(kind, dtype=torch.float64, **options):
    """A model of one cell, and inputs in the middle of a stream."""
    cell, inputs = make(kind, dtype, **options)
    state = tuple(carried(cell, inputs))
    return Holder(cell), inputs | {"state": type(cell(**inputs)[1])(*state)}


def traced(model, inputs, *edits):
    with torch.no_grad(), edited(model, *edits), record(model) as trace:
        return model(**inputs), trace


def levers(kind):
    return make(kind)[0].levers()


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in TRACED for name in levers(kind)])
def test_a_forced_quantity_is_what_the_trace_reports(kind, name):
    model, inputs = hold(kind)
    value = VALUES.get(name, 0.3)
    before, _ = traced(model, inputs)
    during, trace = traced(model, inputs, force(f"cell.{name}", value))
    found = trace.read(f"cell.{name}")
    assert_close(found, np.full_like(found, value), rtol=1e-12, atol=0)
    assert trace.error < 1e-10
    assert (during - before).abs().max() > 1e-6
    after, _ = traced(model, inputs)
    assert torch.equal(after, before)
    assert "project" not in model.cell.__dict__


@pytest.mark.parametrize("lengths", [None, torch.tensor([STEPS, 4, 0])], ids=["full", "ragged"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in TRACED for name in levers(kind) if name != "half_life" or "exp" not in kind],
)
def test_forcing_what_the_model_does_anyway_changes_nothing(kind, name, lengths):
    """Values and, where a gate sits inside the loop, its recurrent weights are swapped, and the answer is the same.

    Not by half-lives where a gate may pass 1: what grows has none.
    """
    model, inputs = hold(kind)
    inputs |= {"lengths": lengths}
    wanted, trace = traced(model, inputs)
    found, _ = traced(model, inputs, force(f"cell.{name}", trace.read(f"cell.{name}")))
    assert_close(found, wanted, **TIGHT)


@every_kind
def test_a_gate_is_exact_at_its_ends(kind):
    """No infinity stands in for 0 and 1: outputs and gradients stay finite, also through torch's fused layers."""
    model, inputs = hold(kind, torch.float32)
    for value in (0.0, 1.0):
        _, trace = traced(model, inputs, force("cell.forget", value))
        assert (trace.read("cell.forget") == value).all()
        assert trace.error < 1e-5
        with edited(model, force("cell.forget", value)):
            y = model(**inputs)
        gradients = torch.autograd.grad(y.sum(), list(model.parameters()), allow_unused=True, materialize_grads=True)
        assert all(bool(x.isfinite().all()) for x in (y, *gradients))


@every_kind
def test_heads_and_units_are_picked(kind):
    model, inputs = hold(kind)
    heads = (model.cell.heads - 1,)
    _, before = traced(model, inputs)
    _, after = traced(model, inputs, force("cell.forget", 0.125, heads=heads[0]))
    assert np.allclose(after.read("cell.forget")[:, heads[0]], 0.125, rtol=1e-12)
    others = [head for head in range(model.cell.heads) if head not in heads]
    if not kind.startswith(LOOP):
        assert np.array_equal(after.read("cell.forget")[:, others], before.read("cell.forget")[:, others])
    if before.read("cell.forget").ndim == 4:
        _, after = traced(model, inputs, force("cell.forget", 0.125, units=(0, 2)))
        first = after.read("cell.forget")
        assert np.allclose(first[..., [0, 2]], 0.125, rtol=1e-12)
        assert not np.isclose(first[..., [1, 3]], 0.125).any()


@every_kind
def test_an_array_forces_some_steps_and_leaves_the_others(kind):
    model, inputs = hold(kind)
    value = torch.full((1, 1, STEPS, 1) if levers(kind)["forget"].row is not None else (1, 1, STEPS), torch.nan)
    if kind.startswith("rwkv7"):
        value = value[..., None]
    value[:, :, 4:6] = 0.25
    edit = force("cell.forget", value)
    if kind.startswith(LOOP):
        with pytest.raises(ValueError, match=r"this gate depends on the last output: force it at every step"):
            traced(model, inputs, edit)
        return
    before, plain = traced(model, inputs)
    after, trace = traced(model, inputs, edit)
    outside = [t for t in range(STEPS) if t not in (4, 5)]
    assert np.allclose(trace.read("cell.forget")[:, :, 4:6], 0.25, rtol=1e-12)
    forget = [x.read("cell.forget")[:, :, outside] for x in (trace, plain)]
    assert np.array_equal(*forget)
    assert_close(after[:, :4], before[:, :4], **TIGHT)
    assert (after[:, 4:] - before[:, 4:]).abs().amax((0, 2)).min() > 0


def test_what_comes_before_does_not_move():
    model, inputs = forecaster(XLSTMStackConfig(width=8, heads=2, layers=3, slstm_at=(1,)))
    before, after, *_ = what_if(model, inputs, force("blocks.0.cell.forget", 0.5))
    first = [name for name in before.names("*blocks.0.cell.*") if name.rpartition(".")[2] in UPSTREAM]
    assert len(first) == len(UPSTREAM)
    assert all(np.array_equal(before.read(name), after.read(name)) for name in first)
    before, after, *_ = what_if(model, inputs, force("blocks.1.cell.forget", 0.5))
    for name in before.names("*cell.*"):
        same = np.array_equal(before.read(name), after.read(name))
        assert same or ".blocks.0." not in name
    assert not np.array_equal(before.read("blocks.2.cell.query"), after.read("blocks.2.cell.query"))


UPSTREAM = ("query", "key", "value", "log_input", "output")  # of the gate that is forced
STACKS = {
    "lstm": LSTMStackConfig(width=8),
    "xlstm": XLSTMStackConfig(width=8, heads=2, layers=2, slstm_at=(1,)),
    "xlstm_large": XLSTMLargeStackConfig(width=8, heads=2),
    "gated_deltanet": GatedDeltaStackConfig(width=16, heads=2),
    "rwkv7": RWKV7StackConfig(width=16, head_size=8),
    "titans": TitansStackConfig(width=8, heads=2, persistent=2),
}


def forecaster(stack):
    config = ForecasterConfig(inputs=3, known=2, horizon=4, stack=stack)
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # fresh layers of RWKV-7 answer 0
    return model, config.example()


@pytest.mark.parametrize("kind", STACKS)
def test_models_answer_otherwise_and_their_traces_stay_exact(kind):
    model, inputs = forecaster(STACKS[kind])
    training = model.stack.blocks[0].train(False)
    result = what_if(model, inputs, force("blocks.0.cell.half_life", 3.0), mask("blocks.1.cell", 0))
    assert result.before.error < 1e-5
    assert result.after.error < 1e-5
    assert not torch.equal(result.output_before, result.output_after)
    assert not result.output_after.requires_grad
    assert np.allclose(result.after.read("blocks.0.cell.half_life"), 3.0, rtol=1e-5)
    assert result.after.differences(result.before) == []
    assert result.after.notes[-2:] == [
        "edited: blocks.0.cell.half_life := 3",
        "edited: blocks.1.cell answers nothing in head 0",
    ]
    assert model.training
    assert not training.training
    assert torch.equal(model.eval()(*inputs), result.output_before)


@pytest.mark.parametrize(
    ("kind", "backends"),
    [
        ("mlstm", ("chunkwise", "parallel", "reference")),
        ("mlstm-sigmoid", ("chunkwise", "reference")),
        ("gated_delta", ("chunkwise", "reference")),
        ("rwkv7-first", ("chunkwise", "reference")),
        ("titans-mlp", ("chunkwise", "reference")),
        ("gru", ("fused", "reference")),
        ("lstm", ("fused", "reference")),
    ],
)
@pytest.mark.parametrize("value", [0.0, 0.6, 1.0])
def test_every_form_takes_the_same_edits(kind, backends, value):
    answers = []
    for backend in backends:
        model, inputs = hold(kind, backend=backend)
        answers.append(traced(model, inputs, force("cell.forget", value), mask("cell", model.cell.heads - 1))[0])
    assert all(bool(answer.isfinite().all()) for answer in answers)
    for answer in answers[1:]:
        assert_close(answer, answers[0], **TIGHT)


@every_kind
def test_masked_heads_answer_nothing_whatever_they_carry(kind):
    model, inputs = hold(kind)
    last = model.cell.heads - 1
    _, before = traced(model, inputs)
    _, after = traced(model, inputs, mask("cell", [last]))
    assert np.abs(before.read("cell.hidden")[:, last]).max() > 0
    assert np.abs(after.read("cell.hidden")[:, last]).max() == 0
    assert np.array_equal(before.read("cell.hidden")[:, :last], after.read("cell.hidden")[:, :last])
    assert after.error < 1e-10


STABILIZED = ("slstm", "slstm-exponential", "slstm-no-conv", "mlstm", "mlstm-expforget", "mlstm_large")


@pytest.mark.parametrize("kind", STABILIZED)
@pytest.mark.parametrize("lengths", [None, torch.tensor([STEPS, 4, 0])], ids=["full", "ragged"])
def test_without_stabilizer_the_answers_are_the_same_until_they_overflow(kind, lengths):
    model, inputs = hold(kind)
    inputs |= {"lengths": lengths}
    wanted, before = traced(model, inputs)
    found, after = traced(model, inputs, drop_stabilizer("cell"))
    assert_close(found, wanted, **TIGHT)
    assert after.error == 0
    assert np.nanmax(np.abs(after.read("cell.stabilizer"))) == 0 < np.nanmax(np.abs(before.read("cell.stabilizer")))
    model.float()
    inputs = {name: x if x is None or name == "lengths" else narrow(x) for name, x in inputs.items()}
    low = 88.7 if kind.startswith("slstm") else 80.0  # a matrix memory multiplies by key and value
    for write, fine in ((low, True), (88.8, False)):
        edits = [force("cell.log_input", write), force("cell.forget", 0.0)]
        assert traced(model, inputs, *edits)[0].isfinite().all()
        answer, _ = traced(model, inputs, *edits, drop_stabilizer("cell"))
        assert bool(answer.isfinite().all()) == fine


def narrow(x):
    return x.float() if isinstance(x, torch.Tensor) else type(x)(*map(narrow, x))


@pytest.mark.parametrize("kind", ["lstm", "gru", "slstm", "mlstm", "gated_delta", "rwkv7-first", "titans-linear"])
def test_everything_else_keeps_its_gradients(kind):
    """Twice, as in training; the forced gate has none, and weights that move meanwhile are seen."""
    model, inputs = hold(kind)
    with edited(model, force("cell.forget", 0.5)):
        for _ in range(2):
            y = model(**inputs)
            names, parameters = zip(*model.named_parameters(), strict=True)
            gradients = torch.autograd.grad(y.square().sum(), parameters, allow_unused=True)
            with torch.no_grad():
                for parameter in parameters:
                    parameter.mul_(0.9)
        found = dict(zip(names, gradients, strict=True))
        assert not torch.equal(model(**inputs), y)
    dead = {name for name, x in found.items() if x is None or x.abs().max() == 0}
    gates = {
        "mlstm": {"cell.forget_gate.weight", "cell.forget_gate.bias"},
        "slstm": {"cell.gates.f.weight"},
        "gated_delta": {"cell.forget.weight", "cell.log_rate", "cell.forget_bias"},
        "rwkv7-first": {f"cell.decay.{part}" for part in ("down", "up", "bias")}
        | {f"cell.share.{part}" for part in ("down", "up", "bias")},
    }
    assert dead == gates.get(kind, set())
    row = {"lstm": 2, "gru": 1, "slstm": 2}.get(kind)
    if row is not None:
        alive = found["cell.recurrent"].abs().amax((1, 2, 3)) > 0
        assert alive.tolist() == [g != row for g in range(len(alive))]


def test_recomputed_blocks_have_the_same_gradients_inside_the_block():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = XLSTMStackConfig(width=8, heads=2, layers=2, slstm_at=(1,), recompute=recompute).build().double()
        with edited(model, force("blocks.0.cell.forget", 0.5), force("blocks.1.cell.forget", 0.5)):
            loss = model(torch.ones(2, 6, 8).double())[0].square().sum()
            gradients.append(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
    assert_close(gradients[0], gradients[1], **TIGHT)


def test_edits_stack_and_leave_nothing_behind_even_after_an_error():
    model, inputs = hold("mlstm")
    before, _ = traced(model, inputs)
    held = set(model.cell.__dict__), model.cell.recurrence
    with edited(model, force("cell.forget", 0.5), drop_stabilizer("cell")):
        with edited(model, force("cell.forget", 0.25, heads=1)):
            inner = traced(model, inputs)[1].read("cell.forget")
        outer = traced(model, inputs)[1].read("cell.forget")
    assert np.allclose(inner[:, [0, 2, 3]], 0.5)
    assert np.allclose(inner[:, 1], 0.25)
    assert np.allclose(outer, 0.5)
    edits = force("cell.forget", 0.5), drop_stabilizer("cell"), force("cell.wobble", 0.5)
    with pytest.raises(ValueError, match="wobble"), edited(model, *edits):
        pass
    with pytest.raises(ValueError, match="the cell's width"), edited(model, *edits[:2]):
        model(x=torch.ones(1, 2, 3).double())
    assert (set(model.cell.__dict__), model.cell.recurrence) == held
    assert torch.equal(traced(model, inputs)[0], before)


def test_persistent_inputs_are_not_edited():
    """A value for each step is one for each step of the sequence, and the memory begins as it did."""
    model, inputs = hold("titans-linear-spans")
    del inputs["state"]
    value = torch.linspace(0.1, 0.9, STEPS)
    _, trace = traced(model, inputs, force("cell.forget", value))
    assert_close(trace.read("cell.forget")[0, 0], value.double().numpy())
    first = model.cell.begin(inputs["x"], None).memory.m
    with edited(model, force("cell.forget", value)):
        assert torch.equal(model.cell.begin(inputs["x"], None).memory.m, first)


def test_names_of_other_tools_are_understood():
    model, inputs = hold("gated_delta")
    _, trace = traced(model, inputs, force("cell.hook_ssm_write", 0.75), force("cell.decay", 0.5))
    assert np.allclose(trace.read("cell.write_strength"), 0.75)
    assert np.allclose(trace.read("cell.forget"), 0.5)


def test_a_cell_alone_is_a_model():
    cell = LSTM(8)
    result = what_if(cell, torch.randn(2, 5, 8), force("output", 0.0), names=("output",))
    assert result.after.names() == ["output"]
    assert result.output_after[0].abs().max() == 0


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (force("cell.forget", 1.2), r"cell\.forget cannot be 1\.2; it lies in 0 \.\.\. 1\."),
        (force("cell.forget", torch.tensor([0.5, -0.1])), r"cannot be -0\.1; it lies in 0 \.\.\. 1"),
        (force("cell.forget", math.nan), "cannot be NaN; in an array, NaN leaves a place to the model"),
        (force("cell.log_forget", 0.1), r"cannot be 0\.1; it lies in -inf \.\.\. 0"),
        (force("cell.log_input", 2000), r"cannot be 2000; it lies in -1000 \.\.\. 1000"),
        (
            force("cell.stabilizer_", 0),
            r"'stabilizer_' of cell cannot be forced; in a MLSTM these can: log_input, forg",
        ),
        (force("cell.surprise", 0), r"'surprise' of cell cannot be forced; in a MLSTM these can"),
        (force("cel.forget", 0.5), r"no cell 'cel' that can be edited; the nearest are cell\."),
        (force("norm.forget", 0.5), r"'norm' is a HeadNorm, in which nothing can be forced: .* This model has cell\."),
        (force("cell.forget", 0.5, heads=4), r"cell: forget cannot be set so: there is no head 4; heads are 0 to 3\."),
        (force("cell.forget", 0.5, heads=(0, -1)), r"there is no head -1"),
        (force("cell.forget", 0.5, units=0), r"each head has one value here, and no units; leave units out"),
        (force("cell.query", 0.5, units=8), r"there is no unit 8; units are 0 to 7\."),
        (force("cell.forget", torch.ones(5)), rf"\(5,\), and must broadcast to \(B, H, T\) = \({BATCH}, 4, {STEPS}\)"),
        (mask("cell", [7]), r"cell: head cannot be set so: there is no head 7"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_and_leaves_nothing_behind(edit, says):
    model, inputs = hold("mlstm")
    with pytest.raises(ValueError, match=says):
        traced(model, inputs, edit)
    assert "project" not in model.cell.__dict__


@pytest.mark.parametrize(("cell", "kind"), [(GRU(8), "GRU"), (MLSTM(8, gates="sigmoid"), "MLSTM")])
def test_what_has_no_stabilizer_cannot_lose_it(cell, kind):
    with pytest.raises(ValueError, match=f"is a {kind} without a stabiliser"), edited(cell, drop_stabilizer("")):
        pass


def test_a_path_that_fits_several_cells_is_refused_before_anything_runs():
    model, inputs = forecaster(STACKS["lstm"])
    model.forward = None  # what would run
    with pytest.raises(ValueError, match=r"'cell' could be any of stack\.blocks\.0\.cell, stack\.blocks\.1\.cell"):
        what_if(model, inputs, force("cell.forget", 0.5))


def test_layers_of_other_packages_are_said_to_be_out_of_reach():
    model = nn.Sequential(nn.LSTM(4, 4), SLSTM(8))
    with (
        pytest.raises(ValueError, match=r"'0' is a LSTM, in which nothing can be forced"),
        edited(model, force("0.forget", 0.5)),
    ):
        pass


def test_edits_say_what_they_do():
    assert str(force("a.cell.forget", 0.9, heads=(0, 2))) == "a.cell.forget := 0.9 in head 0, 2"
    assert str(force("cell.forget", torch.ones(1, 5), units=3)) == "cell.forget := values of shape (1, 5) in unit 3"
    assert str(mask("cell", 1)) == "cell answers nothing in head 1"
    assert str(drop_stabilizer("cell")) == "cell runs without its stabiliser"
