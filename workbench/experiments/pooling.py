"""Does attention over time read a recurrent network better than its last state, or than a mean with an MLP?"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from workbench.cells.roles import tag
from workbench.data.marked import Marked
from workbench.data.registry import SHIPPED
from workbench.data.series import detectors
from workbench.data.windows import Batch, Windows, split
from workbench.experiments.compare import blocks_of
from workbench.experiments.result import Result
from workbench.experiments.seeds import OverSeeds, over_seeds
from workbench.models.fresh import fresh
from workbench.models.heads import forecast_head
from workbench.models.layouts import GatedDeltaStackConfig, StackConfig, XLSTMStackConfig
from workbench.runs.files import read_json
from workbench.runs.folder import Run
from workbench.runs.params import Params as BaseParams
from workbench.shapes import Float, Int, Tensor
from workbench.training.fit import Batches, FitParams, fit

Network = Literal["mLSTM", "Gated DeltaNet"]
READOUTS = ("last", "mean", "mean_mlp", "wide_mlp", "attention")
REACH = 4  # steps that see an input at once: the convolution before the memory has this width


class Params(BaseParams):
    """Parameters of the comparison.

    Attributes:
        network: the recurrent network that is read.
        width: its width, a multiple of heads.
        heads: of its memory, and of the attention that reads it.
        layers: its blocks.
        window: steps that it sees.
        horizon: steps of traffic that are forecast.
        steps: updates of each training.
        batch: windows in an update.
        lr: step size.
        weight_decay: of the matrices.
        evaluate_every: updates between two looks at the validation windows; the best look is kept.
        windows: validation windows at most, and a quarter of the test windows at most.
        seeds: trainings of each readout.
        seed: of the first of them.
    """

    network: Network = "Gated DeltaNet"
    width: Annotated[int, Field(ge=4, le=4_096)] = 32
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    layers: Annotated[int, Field(ge=1, le=64)] = 1
    window: Annotated[int, Field(ge=4, le=512)] = 32
    horizon: Annotated[int, Field(ge=1, le=1_000)] = 16
    steps: Annotated[int, Field(ge=1)] = 240
    batch: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0, le=1)] = 4e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    evaluate_every: Annotated[int, Field(ge=1)] = 60
    windows: Annotated[int, Field(ge=2)] = 512
    seeds: Annotated[int, Field(ge=2, le=100)] = 3
    seed: Annotated[int, Field(ge=0, lt=2**31 - 100)] = 0

    @classmethod
    def smoke(cls) -> "Params":
        """Seconds: enough to see that everything runs."""
        return cls(width=16, heads=2, window=12, horizon=4, steps=4, batch=8, evaluate_every=2, windows=32, seeds=2)

    @classmethod
    def paper(cls) -> "Params":
        """Ten times the updates and five seeds: does the order stay?"""
        return cls(steps=2400, seeds=5, evaluate_every=200)

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        return self

    def fit_params(self) -> FitParams:
        """The part that the training loop takes; nothing stops early, so that all get the same updates."""
        names = FitParams.model_fields.keys() & type(self).model_fields.keys()
        return FitParams(**{name: getattr(self, name) for name in names}, patience=self.steps)


class Changes:
    """Windows of a series whose target is the change since the last value.

    Args:
        windows: the windows.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, which: Tensor) -> Batch:
        batch = self.windows[which]
        return batch._replace(target=batch.target - batch.past[:, -1:, 0])


class Task(NamedTuple):
    """What is to be learned, and how errors are counted.

    `scale` is the unit in a scaled number of each test row (N, 1); `blocks` numbers the rows that hang together (N,);
    `naive` is the mean absolute error of a rule that learns nothing, and `rule` says which.
    """

    name: str
    unit: str
    train: Batches
    valid: Batches
    test: Batches
    scale: Float[Tensor, "N 1"]
    blocks: Int[Tensor, " N"]
    rule: str
    naive: float


def marked(params: Params) -> Task:
    """The value at a marked step: training windows are drawn anew for each update."""
    sizes = {1: params.steps * params.batch, 2: params.windows, 3: 4 * params.windows}
    parts = [Marked(rows, params.window, seed=seed) for seed, rows in sizes.items()]
    test = parts[2]
    scale, blocks = torch.ones(len(test), 1), torch.arange(len(test))
    return Task("marked", "sd of the value", *parts, scale, blocks, "always 0", float(test.target.abs().mean()))


def traffic(params: Params) -> Task:
    """The change of the traffic counts that ship, `horizon` steps ahead."""
    parts = split(detectors(), window=params.window, horizon=params.horizon)
    test = parts.test.thin(4 * params.windows)
    scale = torch.from_numpy(test.table.scaler.std[test.index[:, 1].numpy()]).float()[:, None]
    views = [Changes(part) for part in (parts.train, parts.valid.thin(params.windows), test)]
    blocks = blocks_of(test, max(96, params.horizon))
    naive = float((views[2][torch.arange(len(test))].target * scale).abs().mean())
    return Task("traffic", "vehicles / 15 min", *views, scale, blocks, "last value", naive)


class Reader(nn.Module):
    """Project the variables, run a stack over them, read its states, and add what is known of each step ahead.

    Args:
        stack: the recurrent network.
        make_head: makes `head(hidden) -> (B, P, 1, 1)`, last of all: what is drawn before it is the same for any head.
        inputs: variables of the past, F.
        known: variables known ahead, G; 0 where there are none.
    """

    def __init__(self, stack: StackConfig, make_head: Callable[[], nn.Module], *, inputs: int, known: int) -> None:
        super().__init__()
        self.project = tag("input", nn.Linear(inputs, stack.width))
        self.stack = stack.build()
        self.ahead = tag("head", nn.Linear(known, 1, bias=False)) if known else None
        self.head = make_head()

    def forward(self, past: Float[Tensor, "B T F"], known: Float[Tensor, "B P G"]) -> Float[Tensor, "B P"]:
        """Return the target of each step ahead (B, P)."""
        hidden, _ = self.stack(self.project(past))
        read = self.head(hidden)[:, :, 0, 0]
        return read if self.ahead is None else read + self.ahead(known)[..., 0]


def make_head(readout: str, params: Params, horizon: int) -> nn.Module:
    """The head of a readout; "wide_mlp" is "mean_mlp" with as many parameters as "attention"."""
    sizes = {"width": params.width, "horizon": horizon}
    if readout != "wide_mlp":
        return forecast_head(readout, **sizes, heads=params.heads)
    with torch.device("meta"):
        wanted = count(forecast_head("attention", **sizes, heads=params.heads))
    hidden = round((wanted - horizon) / (params.width + 1 + horizon))
    return forecast_head("mean_mlp", **sizes, hidden=hidden)


def build(readout: str, task: Task, params: Params, seed: int) -> Reader:
    """A network with fresh weights; of one seed, those before the head are the same for every readout."""
    first = task.test[torch.tensor([0])]
    sizes = {"width": params.width, "layers": params.layers, "heads": params.heads}
    stack = GatedDeltaStackConfig(**sizes)
    if params.network == "mLSTM":
        stack = XLSTMStackConfig(**sizes, slstm_at=())
    inputs, known, horizon = first.past.shape[-1], first.known.shape[-1], first.target.shape[1]
    head = partial(make_head, readout, params, horizon)
    return fresh(lambda: Reader(stack, head, inputs=inputs, known=known), seed)


def train(readout: str, task: Task, params: Params, seed: int, run: Run | None = None) -> Reader:
    """Train one network by its mean absolute error; with a run, progress is kept there.

    Raises:
        KeyboardInterrupt: it was stopped before its last update.
    """
    model = build(readout, task, params, seed)

    def loss(model: Reader, batch: Batch) -> Tensor:
        return (model(batch.past, batch.known) - batch.target).abs().mean()

    label = f"{params.network} {task.name} {readout} {seed}"
    folder = None if run is None else Path(run.checkpoints) / label.replace(" ", "-")
    observers = () if run is None else (lambda record: run.log(**record),)
    result = fit(
        model, loss, task.train, task.valid, params.fit_params(),
        seed=seed, folder=folder, observers=observers, label=label,
    )  # fmt: skip
    if result.end in ("interrupted", "stopped"):
        raise KeyboardInterrupt(f"{label} was {result.end} at step {result.step}.")
    return model.eval()


def train_all(task: Task, params: Params, run: Run | None = None) -> dict[str, list[Reader]]:
    """Every readout from every seed."""
    seeds = range(params.seed, params.seed + params.seeds)
    return {readout: [train(readout, task, params, seed, run) for seed in seeds] for readout in READOUTS}


@torch.no_grad()
def errors(models: list[Reader], task: Task) -> Float[Tensor, "S N P"]:
    """Absolute errors of some trainings on the test rows, in the task's unit (S, N, P)."""
    found = []
    for model in models:
        batches = (task.test[rows] for rows in torch.arange(len(task.test)).split(512))
        found.append(torch.cat([(model(b.past, b.known) - b.target).abs() for b in batches]) * task.scale)
    return torch.stack(found)


def by_seed(found: Mapping[str, Float[Tensor, "S N P"]]) -> dict[str, list[float]]:
    """Mean absolute error of each training, smallest mean first."""
    table = {name: each.mean((1, 2)).tolist() for name, each in found.items()}
    return dict(sorted(table.items(), key=lambda row: np.mean(row[1])))


def against(found: Mapping[str, Float[Tensor, "S N P"]], other: str, task: Task) -> OverSeeds:
    """Attention minus another readout, paired over seeds and blocks."""
    return over_seeds(found["attention"], found[other], task.blocks)


def findings(found: Mapping[str, Float[Tensor, "S N P"]], task: Task) -> list[str]:
    """What the errors of a task say, in sentences: who leads, and attention beside each of the others."""
    table = {name: float(np.mean(each)) for name, each in by_seed(found).items()}
    best = next(iter(table))
    said = [f"{task.name}: {best} has the smallest error, {table[best]:.3g} {task.unit}."]
    for other in (name for name in READOUTS if name in table and name != "attention"):
        paired = against(found, other, task)
        said.append(
            f"{task.name}: attention ({table['attention']:.3g}) against {other} ({table[other]:.3g}) is "
            f"{paired.verdict}: difference {paired.difference:+.3g}, 95 % interval {paired.low:+.3g} ... "
            f"{paired.high:+.3g}; {paired.agree} of {paired.seeds} seeds agree in sign."
        )
    return said


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def sizes() -> dict[str, int]:
    """Parameters of a head at width 256, for 96 steps of 7 channels, after 512 steps; counted without making any."""
    three = {"tokens": 3 * 512, "hidden": 512}
    with torch.device("meta"):
        make = partial(forecast_head, width=256, horizon=96, channels=7)
        heads = {name: make(name) for name in ("last", "mean", "mean_mlp", "attention")}
        heads |= {"flatten": make("flatten", tokens=512), "flatten, MLP, 3 streams": make("flatten", **three)}
    return {name: count(head) for name, head in heads.items()}


def longer() -> dict:
    """What `Params.paper()` found with both networks, elsewhere: read from the results that ship, with their origin."""
    return read_json(SHIPPED / "results" / "pooling.json")


def near(weights: Float[np.ndarray, "B H T"], at: Int[Tensor, " B"], reach: int = REACH) -> np.ndarray:
    """Share of the absolute weight that lies on a step of each window or just behind it (B, H); 0 where all is 0.

    Args:
        weights: of each step, by window and head (B, H, T).
        at: the step (B,).
        reach: how many steps count, from that one on.
    """
    steps = np.arange(weights.shape[-1])
    here = (steps >= at.numpy()[:, None]) & (steps < at.numpy()[:, None] + reach)  # (B, T)
    size = np.abs(weights)
    return (size * here[:, None]).sum(-1) / np.maximum(size.sum(-1), np.finfo(size.dtype).tiny)


def effective_steps(weights: Float[np.ndarray, "*B T"]) -> np.ndarray:
    """Over how many steps weights spread (*B,): e to their entropy, from 1 to T; the sign of a weight is left out."""
    share = np.abs(weights) / np.maximum(np.abs(weights).sum(-1, keepdims=True), np.finfo(weights.dtype).tiny)
    return np.exp(-(share * np.log(np.maximum(share, np.finfo(weights.dtype).tiny))).sum(-1))


def run(params: Params, run: Run | None = None) -> Result:
    """Answer the question once: both tasks, every readout, every seed."""
    begin, said, scores = time.monotonic(), [], {}
    for make in (marked, traffic):
        task = make(params)
        found = {readout: errors(models, task) for readout, models in train_all(task, params, run).items()}
        said += findings(found, task)
        rows = by_seed(found) | {task.rule: [task.naive]}
        scores |= {f"{task.name}, {name}": {"mae": float(np.mean(each))} for name, each in rows.items()}
    return Result(
        experiment=__name__,
        params=params.model_dump(mode="json"),
        unit="marked: sd of the value; traffic: vehicles / 15 min",
        scores=dict(sorted(scores.items(), key=lambda row: row[1]["mae"])),
        findings=said,
        seconds=time.monotonic() - begin,
    )
