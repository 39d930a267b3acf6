"""Networks of one block that learn to hold a value from one mark to the next."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import nn

from workbench.cells.roles import tag
from workbench.data.latch import Latch, LatchBatch
from workbench.models.fresh import fresh
from workbench.models.layouts import XLSTMShape, XLSTMStackConfig
from workbench.runs.folder import Run
from workbench.runs.params import Params as BaseParams
from workbench.runs.params import Search
from workbench.shapes import Float, Tensor
from workbench.trace.edits import Edit, edited
from workbench.trace.record import record
from workbench.trace.store import Trace
from workbench.training.control import Control
from workbench.training.fit import FitParams, FitResult, fit

Network = Literal["sLSTM", "mLSTM"]
CELL = "stack.blocks.0.cell"
FORGET_BIAS = (6.0, -1.0)  # of the sLSTM: half-lives from 280 steps down to half a step
LONGER = 4  # test streams are so many times as long as those of the training


class Params(BaseParams):
    """Parameters of the latch.

    Attributes:
        window: steps of a training stream.
        gap: mean steps from a mark to the next.
        width: width of the one block.
        heads: its heads.
        steps: updates.
        batch: streams in an update.
        lr: step size.
        seed: of streams, weights and order.
    """

    window: Annotated[int, Field(ge=4, le=10_000)] = 64
    gap: Annotated[float, Field(ge=1)] = 12.0
    width: Annotated[int, Field(ge=4, le=4_096)] = 16
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    steps: Annotated[int, Field(ge=1)] = 300
    batch: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0, le=1), Search(1e-3, 5e-2, log=True)] = 0.02
    seed: Annotated[int, Field(ge=0, lt=2**20)] = 0

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        return self


class Streams(NamedTuple):
    """What is learned from, what decides, what is looked at in the end, and what is drawn."""

    train: Latch
    valid: Latch
    test: Latch  # four times as long
    shown: Latch  # as long


class LatchNetwork(nn.Module):
    """Project a stream, run one residual block over it, and read the held value off each step.

    The convolutions in front of the gates are as short as the cells allow (sLSTM: none, mLSTM: two steps), so that
    what has to last must be kept by gates.

    Args:
        network: which cell the block holds.
        width: model width E.
        heads: heads of the cell.
    """

    def __init__(self, network: Network, width: int, heads: int) -> None:
        super().__init__()
        self.network = network
        stack = XLSTMStackConfig(
            width=width,
            layers=1,
            heads=heads,
            slstm_at=(0,) if network == "sLSTM" else (),
            forget_bias=FORGET_BIAS,
            conv=2,
            shape=XLSTMShape(slstm_conv=0),
        )
        self.project = tag("input", nn.Linear(3, width))
        self.stack = stack.build()
        self.read = tag("head", nn.Linear(width, 1))

    def forward(self, inputs: Float[Tensor, "B T 3"]) -> Float[Tensor, "B T"]:
        """The value that it holds at each step."""
        hidden, _ = self.stack(self.project(inputs))
        return self.read(hidden)[..., 0]


def streams(params: Params, seed: int) -> Streams:
    """Streams of one seed, all different."""
    sizes = ((4096, params.window), (256, params.window), (128, LONGER * params.window), (16, LONGER * params.window))
    return Streams(*(Latch(*size, gap=params.gap, seed=4 * seed + part) for part, size in enumerate(sizes)))


def build(network: Network, params: Params, seed: int) -> LatchNetwork:
    """A network with fresh weights."""
    return fresh(lambda: LatchNetwork(network, params.width, params.heads), seed)


def squared(model: nn.Module, batch: LatchBatch) -> Tensor:
    """The loss: mean squared error over all steps."""
    return ((model(batch.inputs) - batch.target) ** 2).mean()


def train(
    model: LatchNetwork,
    parts: Streams,
    params: Params,
    seed: int,
    *,
    every: int = 25,
    observers: Iterable[Callable[[dict], None]] = (),
    run: Run | None = None,
) -> FitResult:
    """Train one network, to the end; with a run, its losses and its progress are kept there, and it can be stopped.

    Args:
        model: what `build` made.
        parts: what `streams` made.
        params, seed: how to train; the seed is that of the order of the streams.
        every: updates between two looks at the validation streams.
        observers: called with the record of each look.
        run: where progress is kept.

    Raises:
        KeyboardInterrupt: it was interrupted, or asked to stop.
    """
    label, folder, control, each = f"{model.network}, seed {seed}", None, None, list(observers)
    if run is not None:
        each.append(lambda record: run.log(**record))
        folder, control = Path(run.checkpoints) / f"{model.network}-{seed}", Control(run)
    settings = {"steps": params.steps, "batch": params.batch, "lr": params.lr}
    how = FitParams(**settings, evaluate_every=every, patience=params.steps)
    result = fit(
        model, squared, parts.train, parts.valid, how,
        seed=seed, folder=folder, observers=each, label=label, control=control,
    )  # fmt: skip
    if result.end in ("interrupted", "stopped"):
        raise KeyboardInterrupt(f"{label}, was {result.end}; its progress is kept.")
    return result


@torch.no_grad()
def error(model: nn.Module, data: Latch, *edits: Edit) -> float:
    """Share of chance that a network errs by, 0 perfect, 1 chance; with edits, as it runs with them."""
    model.eval()
    with edited(model, *edits):
        return data.error(model(data.inputs))


@torch.no_grad()
def look_inside(model: nn.Module, data: Latch, names: Iterable[str] = ("*",)) -> Trace:
    """The trace of all streams."""
    model.eval()
    with record(model, names=names) as trace:
        model(data.inputs)
    return trace
