"""What no cell can take is refused at its door: what was wrong, what was received, what to do."""

import re

import pytest
import torch

from tests.cells.table import BATCH, CELLS, STEPS, WIDTH, every_cell, make, steps
from workbench.cells.checks import check_input, check_tail
from workbench.cells.gated_delta import GatedDelta, GatedDeltaCellState
from workbench.cells.states import map_state, move
from workbench.kernels.gru import GRUState
from workbench.kernels.lstm import LSTMState

pytestmark = pytest.mark.usefixtures("unchecked")
WITH_TAIL = [kind for kind in CELLS if kind not in ("lstm", "gru") and "large" not in kind]
WITH_MEMORY = [kind for kind in CELLS if kind != "channel_mix"]


def refuse(cell, inputs, error, says, **options):
    """The cell refuses, in words that fit."""
    with pytest.raises(error, match=says):
        cell(**inputs, **options)


@every_cell
def test_inputs_of_another_rank_size_type_or_place(kind):
    cell, inputs = make(kind)
    x, name = inputs.pop("x"), type(cell).__name__
    for wrong in (x[0], x[..., 1:], x[..., None]):
        shape = re.escape(f"{name}: x is {tuple(wrong.shape)}, and must be (B, T, E) with E = {WIDTH}")
        refuse(cell, inputs, ValueError, shape, x=wrong)
    refuse(cell, inputs, ValueError, rf"{name}: x has no steps \(T = 0\); leave the call out", x=x[:, :0])
    refuse(cell, inputs, TypeError, rf"{name}: x .*a tensor of torch\.int64; convert it with \.float\(\)", x=x.long())
    refuse(cell, inputs, TypeError, f"{name}: x must be a floating-point tensor, and is list", x=x.tolist())
    refuse(cell, inputs, ValueError, r"x is torch\.float32 on cpu, and the cell is torch\.float64", x=x.float())
    refuse(cell, inputs, ValueError, r"on meta, and the cell is torch\.float64 on cpu; move one", x=x.to("meta"))


@every_cell
def test_states_of_others(kind):
    cell, inputs = make(kind)
    _, state = cell(**inputs)
    other = GRUState if isinstance(state, LSTMState) else LSTMState
    says = f"state must be None or the {type(state).__name__} that {type(cell).__name__} returned, and is "
    for wrong in (tuple(state), list(state), other(*[torch.zeros(1)] * len(other._fields))):
        refuse(cell, inputs, TypeError, says + type(wrong).__name__, state=wrong)
    refuse(cell, steps(inputs, 0, 1), ValueError, "must be", state=map_state(lambda x: x[:-1], state))


@pytest.mark.parametrize("kind", WITH_MEMORY)
def test_memories_of_another_kernel_shape_width_or_place(kind):
    cell, inputs = make(kind)
    _, state = cell(**inputs)
    memory = getattr(state, "memory", state)

    def put(part):
        return state._replace(memory=part) if memory is not state else part

    if memory is not state:
        other = GRUState(torch.zeros(BATCH, 1, WIDTH))
        refuse(cell, inputs, TypeError, "state must be None or the .* and is GRUState", state=put(other))
    refuse(cell, inputs, ValueError, r"state\.\w+ is \(", state=put(map_state(lambda x: x[..., :-1], memory)))
    narrow = put(move(memory, torch.float32))
    refuse(cell, inputs, ValueError, r"state\.\w+ is torch.float32 .* convert it with map_state", state=narrow)
    refuse(
        cell, inputs, ValueError, r"state\.\w+ is .* on meta, and must be .* on cpu", state=put(move(memory, "meta"))
    )


@pytest.mark.parametrize("kind", WITH_TAIL)
def test_tails_of_another_size_width_or_place(kind):
    cell, inputs = make(kind, torch.float32)
    _, state = cell(**inputs)
    field = state._fields[0]
    longer = torch.cat([state[0], torch.zeros_like(state[0][:, :1]) if state[0].numel() else inputs["x"][:, :1]], 1)
    says = rf"state\.{field} is \(3, {longer.shape[1]}, .* must be \(B, {longer.shape[1] - 1}, E\)"
    refuse(cell, inputs, ValueError, says, state=state._replace(**{field: longer}))
    says = rf"state\.{field} is torch\.float64 .* must be torch\.float32 .* convert it with map_state"
    refuse(cell, inputs, ValueError, says, state=state._replace(**{field: state[0].double()}))
    says = rf"state\.{field} is torch\.float32 on meta, and must be torch\.float32 on cpu"
    refuse(cell, inputs, ValueError, says, state=state._replace(**{field: state[0].to("meta")}))


@every_cell
@pytest.mark.parametrize(
    ("lengths", "error", "says"),
    [
        (torch.tensor([2, -1, 3]), ValueError, "lengths run from -1 to 3, and must stay between 0 and T = 11"),
        (torch.tensor([2, 12, 3]), ValueError, "lengths run from 2 to 12, and must stay between 0 and T = 11"),
        (torch.tensor([2, 3]), ValueError, r"lengths is \(2,\), and must be \(B,\) = \(3,\)"),
        (torch.tensor([[2, 3, 1]]), ValueError, r"lengths is \(1, 3\), and must be \(B,\) = \(3,\)"),
        (torch.tensor([2.0, 3.0, 1.0]), TypeError, "lengths must be a tensor of whole numbers"),
        (torch.tensor([True, False, True]), TypeError, "lengths must be a tensor of whole numbers"),
        ([2, 3, 1], TypeError, "lengths must be a tensor of whole numbers"),
        (torch.tensor([2, 3, 1], device="meta"), ValueError, "lengths are on meta, and x is on cpu"),
    ],
    ids=["negative", "too-long", "too-few", "rank", "float", "bool", "list", "meta"],
)
def test_lengths_that_are_none(kind, lengths, error, says):
    cell, inputs = make(kind)
    refuse(cell, inputs, error, f"{type(cell).__name__}: {says}", lengths=lengths)


@pytest.mark.parametrize("kind", WITH_MEMORY)
def test_unknown_backends_list_the_known(kind):
    cell, inputs = make(kind, backend="cuda")
    refuse(cell, inputs, ValueError, "has no backend 'cuda'; choose one of auto, .*reference")


def test_values_of_layer_0_that_do_not_belong_to_the_steps():
    cell, inputs = make("rwkv7-second")
    x, v_first = inputs.values()
    refuse(cell, {"x": x}, ValueError, "layer 1 of RWKV7 blends its values with those of layer 0, and got v_first=None")
    refuse(cell, {"x": x}, ValueError, r"v_first is \(3, 10, 16\), and must be \(B, T, E\) = ", v_first=v_first[:, 1:])
    refuse(cell, {"x": x}, ValueError, "v_first is on meta, and x on cpu; move both", v_first=v_first.to("meta"))
    with pytest.raises(ValueError, match="x has no steps"):
        cell.mix(x[:, :0], v_first=v_first[:, :0])
    with pytest.raises(ValueError, match=r"RWKV7: x is \(11, 16\), and must be"):
        make("rwkv7-first")[0].mix(x[0])


@every_cell
@torch.no_grad()
def test_autocast_may_mix_types_and_continue(kind):
    """Weights and inputs are float32; products round to bfloat16; states go on, inside the block and out of it."""
    cell, inputs = make(kind, torch.float32)
    wanted, _ = cell(**inputs)
    outputs, state = [], None
    for start, end, half in ((0, 3, True), (3, 7, True), (7, 9, False), (9, STEPS, True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y, state = cell(**steps(inputs, start, end), state=state)
        outputs.append(y.float())
    assert (torch.cat(outputs, 1) - wanted).norm() / wanted.norm() < 0.03


@torch.no_grad()
def test_a_cell_may_keep_some_weights_wide():
    cell, x = GatedDelta(WIDTH).bfloat16(), torch.randn(2, 5, WIDTH).bfloat16()
    cell.log_rate.data, cell.forget_bias.data = cell.log_rate.data.float(), cell.forget_bias.data.float()
    y, _ = cell(x)
    assert y.dtype == torch.bfloat16


def test_a_narrower_tail_is_widened():
    """What a cell kept in bfloat16 can go on in float32: nothing is lost that was there."""
    cell, inputs = make("gated_delta", torch.bfloat16)
    _, state = cell(**inputs)
    wide = cell.float()
    y, after = wide(inputs["x"].float(), GatedDeltaCellState(*state))
    assert (y.dtype, after.tail.dtype) == (torch.float32, torch.float32)
    check_tail("tail", state.tail, 3, state.tail.float())


def test_any_of_several_states_may_be_the_cells_own():
    cell = torch.nn.Linear(4, 4)
    cell.width, x = 4, torch.randn(2, 3, 4)
    check_input(cell, x, GRUState(x), (GRUState, LSTMState), None)
    with pytest.raises(TypeError, match="must be None or the GRUState or LSTMState that Linear returned, and is list"):
        check_input(cell, x, [x], (GRUState, LSTMState), None)
