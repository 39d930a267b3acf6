"""Does the surprise of Titans' memory tell where a series does something new?

A small network with one memory learns to forecast the next step of waves whose shape it has never seen: what comes
next can only be known from the series itself. Then stretches with another order of the same values are planted.

References:
    Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Sec. 3.1.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from workbench.cells.roles import tag
from workbench.data.series import Series
from workbench.data.waves import CYCLE, Planted
from workbench.models.fresh import fresh
from workbench.models.layouts import TitansStackConfig
from workbench.runs.folder import Run
from workbench.shapes import Float, Tensor
from workbench.trace.record import record
from workbench.trace.store import Trace
from workbench.training.fit import FitParams, FitResult, fit

CELL = "stack.blocks.0.cell"
QUIET = 5.0  # vehicles in a step: detectors with fewer, on average, are left out


class NextStep(nn.Module):
    """A stack that forecasts the next value of a series at every step.

    Args:
        config: the stack.
    """

    def __init__(self, config: TitansStackConfig) -> None:
        super().__init__()
        self.config = config
        self.project = tag("input", nn.Linear(1, config.width))
        self.stack = config.build()
        self.head = tag("head", nn.Linear(config.width, 1))

    def forward(self, x: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Return, at each step, what comes next (B, T)."""
        return self.head(self.stack(self.project(x[..., None]))[0])[..., 0]


def train(
    rows: Float[Tensor, "N T"], params: FitParams, *, width: int, seed: int, label: str, run: Run | None = None
) -> tuple[NextStep, FitResult]:
    """Train on the first nine tenths of the rows, keep the weights that did best on the others.

    Args:
        rows: series, one in a row.
        params: how to train.
        width: of the network, and of its one memory.
        seed: of the weights and of the order of the rows.
        label: in the progress bar, and of the folder.
        run: where progress is kept.
    """
    model = fresh(lambda: NextStep(TitansStackConfig(width=width, layers=1, heads=1, mlp_factor=2.0)), seed)

    def loss(model: NextStep, batch: Tensor) -> Tensor:
        return (model(batch[:, :-1]) - batch[:, 1:]).square().mean()

    cut = max(1, len(rows) // 10)
    folder = None if run is None else Path(run.checkpoints) / label
    return model, fit(model, loss, rows[cut:], rows[:cut], params, seed=seed, folder=folder, label=label)


def look(model: NextStep, x: Float[Tensor, "S T"]) -> tuple[Trace, Float[Tensor, "S T"]]:
    """Run a trained network over series, and return the trace and what it forecast for each step, 0 for the first."""
    model.eval()
    with torch.no_grad(), record(model) as trace:
        ahead = model(x)
    return trace, torch.cat([torch.zeros_like(x[:, :1]), ahead[:, :-1]], 1)


def share_wrong(trace: Trace) -> np.ndarray:
    """What the memory got wrong about each value, as a share of the value's length (S, T): 1 is what nothing gets."""
    surprise, value = trace.read(f"{CELL}.surprise"), trace.read(f"{CELL}.value")
    return (surprise / np.maximum(np.linalg.norm(value, axis=-1), 1e-6)).mean(1)


def detectives(trace: Trace, x: Float[Tensor, "S T"], ahead: Float[Tensor, "S T"], cycle: int) -> dict[str, np.ndarray]:
    """What could tell a novelty, at each step (S, T): quantities of the memory, and rules that need none.

    Args:
        trace, ahead: what `look` returned.
        x: the series.
        cycle: steps of a cycle, which the last rule has to be told.
    """
    x, ahead = x.numpy(), ahead.numpy()
    before = np.concatenate([x[:, :cycle], x[:, :-cycle]], 1)
    return {
        "surprise": trace.read(f"{CELL}.surprise").mean(1),
        "surprise, as a share of the value": share_wrong(trace),
        "surprise with momentum": trace.read(f"{CELL}.surprise_norm").mean(1),
        "error of the network's forecast": np.abs(x - ahead),
        "change from the step before": np.abs(np.diff(x, axis=1, prepend=x[:, :1])),
        "difference from a cycle before": np.abs(x - before),
    }


def cycles(values: np.ndarray, cycle: int) -> np.ndarray:
    """Means over cycles (S, T / cycle); steps behind the last whole cycle are left out."""
    whole = values.shape[1] // cycle
    return values[:, : whole * cycle].reshape(len(values), whole, cycle).mean(-1)


def precision(score: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """Of the k highest scores in each series, the share that is odd, k being as many as are odd (S,).

    Args:
        score: (S, N).
        odd: what is to be found (S, N), bool.
    """
    found = []
    for values, truth in zip(score, odd, strict=True):
        top = np.argsort(-values, kind="stable")[: truth.sum()]
        found.append(truth[top].mean())
    return np.array(found)


class Spotted(NamedTuple):
    """What tells the planted cycles from the others, over the cycles behind the calm beginning."""

    trace: Trace
    scores: dict[str, np.ndarray]  # each way of telling (S, N)
    precision: dict[str, np.ndarray]  # of each way, in each series (S,)
    odd: np.ndarray  # which cycles are planted (S, N)


def spot(model: NextStep, series: Planted, calm: int) -> Spotted:
    """How well a network's memory, and rules without one, tell the planted cycles of series that it has not seen."""
    trace, ahead = look(model, series.values)
    scores = detectives(trace, series.values, ahead, CYCLE)
    scores = {name: cycles(values, CYCLE)[:, calm:] for name, values in scores.items()}
    odd = cycles(series.odd.numpy().astype(float), CYCLE)[:, calm:] > 0.5
    return Spotted(trace, scores, {name: precision(values, odd) for name, values in scores.items()}, odd)


def around(score: np.ndarray, odd: np.ndarray, before: int, after: int) -> np.ndarray:
    """A score around the first odd cycle of each stretch (stretches, before + after), where all of it was seen.

    Args:
        score, odd: over cycles (S, N).
        before, after: cycles before that one, and from it on.
    """
    first = odd & ~np.concatenate([np.zeros_like(odd[:, :1]), odd[:, :-1]], 1)
    places = [(s, n) for s, n in np.argwhere(first) if before <= n <= odd.shape[1] - after]
    return np.stack([score[s, n - before : n + after] for s, n in places])


def hours_share(values: np.ndarray, times: np.ndarray) -> float:
    """Share of the variance of a quantity that the hour of the day explains, 0 ... 1.

    Args:
        values, times: (T,).
    """
    hour = (times.astype("datetime64[h]") - times.astype("datetime64[D]")).astype(int)
    mean = np.array([values[hour == h].mean() if (hour == h).any() else 0.0 for h in range(24)])
    return float(np.var(mean[hour]) / np.var(values))


def traffic(series: Series, window: int, train: float = 0.7) -> tuple[Tensor, Tensor, np.ndarray, int]:
    """Windows to learn from, and one long stretch to look at afterwards.

    Args:
        series: counts; gaps are NaN, and nothing here touches one.
        window: steps of a training row, without the one ahead of the last.
        train: share of the rows to learn from.

    Returns:
        Rows (N, window + 1) of all busy detectors, each in units of its own mean and spread in the training rows;
        the busiest one's longest stretch behind them (1, T); its times (T,); and which detector it is.
    """
    edge = int(len(series.times) * train)
    busy = np.flatnonzero(np.nanmean(series.values[:edge], 0) >= QUIET)
    if not busy.size:
        raise ValueError(f"{series.source} has no channel with a mean of {QUIET:g} or more; there is nothing to see.")
    mean, spread = np.nanmean(series.values[:edge], 0), np.nanstd(series.values[:edge], 0)
    scaled = ((series.values - mean) / np.maximum(spread, 1e-9)).astype(np.float32)
    rows = np.lib.stride_tricks.sliding_window_view(scaled[:edge, busy], window + 1, 0)[::8].reshape(-1, window + 1)
    busiest = int(np.nanargmax(mean))
    start, stop = longest(~np.isnan(scaled[edge:, busiest]))
    held_out = slice(edge + start, edge + stop)
    rows = torch.from_numpy(rows[~np.isnan(rows).any(1)].copy())
    return rows, torch.from_numpy(scaled[held_out, busiest][None].copy()), series.times[held_out], busiest


def longest(there: np.ndarray) -> tuple[int, int]:
    """First and past-the-last index of the longest stretch of True (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    at = int((stops - starts).argmax())
    return int(starts[at]), int(stops[at])


def shuffled(rows: Tensor, seed: int) -> Tensor:
    """The rows in another order, so that the first of them are a sample of all."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
