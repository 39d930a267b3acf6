"""When do gates form: before the loss falls, with it, or after? The same streams, traced while a latch is learned."""

import time
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field

from workbench.data.latch import Latch
from workbench.experiments import latch
from workbench.experiments.latch import CELL, LatchNetwork, Network, error
from workbench.experiments.latching import contrast, memories, share_of_mark, the_latch, without_each_head
from workbench.experiments.result import Result
from workbench.runs.folder import Run
from workbench.shapes import Tensor
from workbench.trace.probe import Probe, read_probes
from workbench.trace.store import Trace

STREAMS = 8  # in the probe
KEPT = ("*.forget", "*.log_forget", "*.log_input", "*.stabilizer", "*.normalizer", "*.query", "*.key", "*.state_*")
EVENTS = {"loss": "loss", "share": "share of the mark", "opening": "input gate", "swing": "forget gate"}


class Params(latch.Params):
    """Parameters of the training that is watched.

    Attributes:
        steps: updates; long enough to see the latch form.
        every: updates between two looks.
        seeds: networks of each kind.
    """

    steps: Annotated[int, Field(ge=1)] = 200
    every: Annotated[int, Field(ge=1)] = 5
    seeds: Annotated[int, Field(ge=1, le=100)] = 5

    @classmethod
    def smoke(cls) -> "Params":
        """Seconds: enough to see that everything runs."""
        return cls(window=16, gap=6.0, width=8, heads=2, steps=6, batch=8, every=2, seeds=2)

    @classmethod
    def paper(cls) -> "Params":
        """More seeds, looked at more often."""
        return cls(every=2, seeds=10)


class Watched(NamedTuple):
    """One training, seen from inside."""

    model: LatchNetwork  # as it ended
    probe: Latch  # streams that were traced
    traces: dict[int, Trace]  # update to trace, 0 the fresh weights
    losses: dict[int, float]  # update to validation error, as a share of chance
    number: int  # of the memory that became the latch
    memoryless: float  # the best error without a memory


def watch(network: Network, params: Params, seed: int, run: Run) -> Watched:
    """Train one network, and trace the same streams at every look; traces and losses are in the run's folder."""
    parts = latch.streams(params, seed)
    model = latch.build(network, params, seed)
    seen = Latch(STREAMS, params.window, gap=params.gap, seed=4 * seed + 3)
    label = f"{network}-{seed}"
    probe = Probe(model, seen.inputs, run, names=KEPT, label=label)
    probe.probe(0)
    losses = {0: error(model, parts.valid)}
    result = latch.train(model, parts, params, seed, every=params.every, observers=(probe,), run=run)
    chance = float((parts.valid.target**2).mean())
    losses |= {look["step"]: look["valid_loss"] / chance for look in result.history}
    traces = read_probes(run, label)
    number = the_latch(traces[max(traces)], seen.age, without_each_head(model, parts.valid, params.heads))
    return Watched(model, seen, traces, losses, number, parts.valid.error(parts.valid.answer(1)))


class Timeline(NamedTuple):
    """What is known of one training at each look (S,); the gates are those of the memory that became the latch."""

    steps: np.ndarray  # updates
    loss: np.ndarray  # validation error, as a share of chance
    share: np.ndarray  # of the last mark in the memory, mean over steps
    opening: np.ndarray  # log input gate at marks, above that elsewhere
    swing: np.ndarray  # forget gate elsewhere, above that at marks
    memoryless: float  # the best loss without a memory


def timeline(watched: Watched) -> Timeline:
    """Put losses and gates side by side."""
    steps = sorted(watched.traces.keys() & watched.losses.keys())
    found = [contrast(watched.traces[step], watched.probe.marked) for step in steps]
    shares = [share_of_mark(watched.traces[step], watched.probe.age)[:, watched.number] for step in steps]
    return Timeline(
        np.array(steps),
        np.array([watched.losses[step] for step in steps]),
        np.array([np.nanmean(share) for share in shares]),
        np.array([one.opening[watched.number] for one in found]),
        np.array([one.kept[watched.number] - one.left[watched.number] for one in found]),
        watched.memoryless,
    )


def ways(line: Timeline) -> dict[str, np.ndarray]:
    """How far each quantity has gone, 0 at its first and 1 at its last value (S,); NaN where it does not move.

    The way of the loss begins at the best error without a memory: fresh networks err more, and what they gain until
    there is no memory.
    """
    values = {name: getattr(line, name) for name in EVENTS} | {"loss": np.minimum(line.loss, line.memoryless)}
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: (value - value[0]) / (value[-1] - value[0]) for name, value in values.items()}


def crossing(steps: np.ndarray, way: np.ndarray, part: float = 0.5) -> float:
    """Update at which a way is first gone to a part of it, on a straight line between two looks; NaN if never."""
    there = way >= part
    at = int(there.argmax())
    if not there[at]:
        return float("nan")
    return float(np.interp(part, way[at - 1 : at + 1], steps[at - 1 : at + 1])) if at else float(steps[0])


def crossings(line: Timeline, part: float = 0.5) -> dict[str, float]:
    """Update at which each quantity has gone a part of its way."""
    return {name: crossing(line.steps, way, part) for name, way in ways(line).items()}


def over_training(watched: Watched, name: str) -> np.ndarray:
    """A quantity of the latch at each look, over the steps of the first stream (S, T)."""
    path = f"{CELL}.{name}"
    return np.stack([memories(trace, path)[0, :, watched.number] for trace in watched.traces.values()])


def marks_of(probe: Latch) -> Tensor:
    """Steps of the marks in the first stream."""
    return torch.nonzero(probe.marked[0])[:, 0]


def findings(lines: dict[Network, list[Timeline]]) -> list[str]:
    """What came first, in sentences: at each part of the way, the update in the middle training, and who was ahead."""
    sentences = []
    for network, of in lines.items():
        for part in (0.1, 0.5, 0.9):
            every = [crossings(line, part) for line in of]
            middle = {name: float(np.median([one[name] for one in every])) for name in EVENTS}
            order = (f"{EVENTS[name]} {at:.0f}" for name, at in sorted(middle.items(), key=lambda row: row[1]))
            ahead = (f"{EVENTS[name]} {sum(one[name] < one['loss'] for one in every)}" for name in list(EVENTS)[1:])
            sentences += [
                f"{network}, {part:.0%} of the way, median update: {', '.join(order)}.",
                f"{network}, {part:.0%} of the way, ahead of the loss in {len(of)} trainings: {', '.join(ahead)}.",
            ]
    return sentences


def run(params: Params, run: Run) -> Result:
    """Answer the question once: watch every training, and say what came first."""
    begin = time.monotonic()
    seeds = range(params.seed, params.seed + params.seeds)
    lines = {net: [timeline(watch(net, params, seed, run)) for seed in seeds] for net in Network.__args__}
    scores = {
        f"{net}, seed {seed}": {"error": float(line.loss[-1]), **crossings(line)}
        for net, of in lines.items()
        for seed, line in zip(seeds, of, strict=True)
    }
    return Result(
        experiment=__name__,
        params=params.model_dump(mode="json"),
        unit="share of chance",
        scores=dict(sorted(scores.items(), key=lambda row: row[1]["error"])),
        findings=findings(lines),
        seconds=time.monotonic() - begin,
    )
