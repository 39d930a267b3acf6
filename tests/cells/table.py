"""Every cell and its variants, with weights that leave nothing at zero: what the tests of all cells run over."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tests.contract import weigh
from workbench.cells.channel_mix import ChannelMix
from workbench.cells.gated_delta import GatedDelta
from workbench.cells.gru import GRU
from workbench.cells.lstm import LSTM
from workbench.cells.mlstm import MLSTM
from workbench.cells.mlstm_large import MLSTMLarge
from workbench.cells.rwkv7 import RWKV7
from workbench.cells.slstm import SLSTM
from workbench.cells.states import map_state
from workbench.cells.titans import Titans

BATCH, STEPS, WIDTH = 3, 11, 16
CELLS = {
    "lstm": LSTM,
    "gru": GRU,
    "slstm": SLSTM,
    "slstm-exponential": partial(SLSTM, forget="exponential"),
    "slstm-no-conv": partial(SLSTM, conv=0),
    "mlstm": MLSTM,
    "mlstm-expforget": partial(MLSTM, gates="expforget"),
    "mlstm-sigmoid": partial(MLSTM, gates="sigmoid"),
    "mlstm_large": partial(MLSTMLarge, heads=2),
    "mlstm_large-sigmoid": partial(MLSTMLarge, heads=2, gates="sigmoid"),
    "gated_delta": GatedDelta,
    "gated_delta-negative": partial(GatedDelta, negative_eigenvalues=True),
    "rwkv7-first": partial(RWKV7, head_size=8, layers=2),
    "rwkv7-second": partial(RWKV7, head_size=8, layer=1, layers=2),
    "channel_mix": ChannelMix,
    "titans-linear": Titans,
    "titans-linear-spans": partial(Titans, refresh=4, persistent=2),
    "titans-mlp": partial(Titans, memory="mlp", factor=2),
    "titans-mlp-spans": partial(Titans, memory="mlp", factor=2, refresh=3),
}
TRACED = [kind for kind in CELLS if kind != "channel_mix"]
every_cell = pytest.mark.parametrize("kind", CELLS)
Inputs = dict[str, Tensor]


def make(kind: str, dtype: torch.dtype = torch.float64, **options: object) -> tuple[nn.Module, Inputs]:
    """A cell with random weights, fresh ones being zero in places, and its inputs by name, each (B, T, E)."""
    torch.manual_seed(0)
    cell = CELLS[kind](WIDTH, **options)
    for parameter in cell.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return cell.to(dtype), {name: sequence().to(dtype) for name in names(kind)}


def names(kind: str) -> list[str]:
    """What a cell takes beside its state: layers of RWKV-7 above the first need the values of layer 0."""
    return ["x", "v_first"] if kind == "rwkv7-second" else ["x"]


def sequence() -> Tensor:
    """Random inputs (B, T, E), float64."""
    return torch.randn(BATCH, STEPS, WIDTH, dtype=torch.float64)


def carried(cell: nn.Module, inputs: Inputs) -> tuple:
    """A state as another sequence leaves it, each tensor a leaf that asks for a gradient where it can."""
    _, state = cell(**{name: torch.randn_like(x) for name, x in inputs.items()})
    return map_state(lambda x: x.detach().clone().requires_grad_(x.is_floating_point()), state)


def steps(inputs: Inputs, start: int, end: int | None) -> Inputs:
    """The inputs of the steps from start to end."""
    return {name: x[:, start:end] for name, x in inputs.items()}


def rows(inputs: Inputs, b: int) -> Inputs:
    """The inputs of one sequence of the batch."""
    return {name: x[b : b + 1] for name, x in inputs.items()}


def stream(cell: nn.Module, inputs: Inputs, cuts: tuple[int, ...], state: tuple | None = None) -> tuple[Tensor, tuple]:
    """Run through the given cuts; return all outputs, and the last state."""
    outputs = []
    for start, end in pairwise((0, *cuts, inputs["x"].shape[1])):
        y, state = cell(**steps(inputs, start, end), state=state)
        outputs.append(y)
    return torch.cat(outputs, 1), state


def flat(state: tuple | Tensor | None) -> list[Tensor]:
    """The tensors of a state, in order."""
    found = []
    map_state(lambda x: found.append(x) or x, state)
    return found


def gradients(cell: nn.Module, inputs: Inputs, state: tuple | None, y: Tensor, last: tuple) -> list[Tensor]:
    """Gradients of outputs and last state, each element weighed differently, towards all that can have one."""
    wanted = [*cell.parameters(), *inputs.values(), *flat(state)]
    wanted = [x for x in wanted if x.requires_grad]
    total = weigh([y, *(x for x in flat(last) if x.is_floating_point())])
    return list(torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True))
