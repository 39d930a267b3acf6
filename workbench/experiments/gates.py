"""What did each gate learn: on a task with a known latch, and on real traffic? Shown, and tried by holding it still."""

import time
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field

from workbench.data.series import Series
from workbench.data.windows import Split
from workbench.experiments import forecast, latch
from workbench.experiments.compare import Paired
from workbench.experiments.latch import LatchNetwork, Network, Streams, error, look_inside
from workbench.experiments.latching import (
    contrast,
    held_still,
    interventions,
    memories,
    memory_name,
    the_latch,
    without_each_head,
)
from workbench.experiments.result import Result
from workbench.models.forecaster import Forecaster
from workbench.runs.folder import Run
from workbench.shapes import Float, Tensor
from workbench.trace.edits import edited
from workbench.trace.record import record
from workbench.trace.store import Trace

BLOCKS = {"sLSTM": "stack.blocks.0.cell", "mLSTM": "stack.blocks.1.cell"}  # of the network that forecasts traffic
GATES = {"input": "log_input", "forget": "log_forget"}
WINDOWS = 2048  # test windows of the traffic at most, evenly spread


class Params(latch.Params):
    """Parameters of the two tasks.

    Attributes:
        seeds: networks of each kind that learn the latch.
        traffic_steps: updates of the network that forecasts traffic.
    """

    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    traffic_steps: Annotated[int, Field(ge=1)] = 360

    @classmethod
    def smoke(cls) -> "Params":
        """Seconds: enough to see that everything runs."""
        return cls(window=16, gap=6.0, width=8, heads=2, steps=6, batch=8, seeds=2, traffic_steps=4)

    @classmethod
    def paper(cls) -> "Params":
        """More seeds, and a longer training on traffic."""
        return cls(seeds=10, traffic_steps=2000)


class Reading(NamedTuple):
    """What was found in one network that learned the latch; numbers from test streams, choices from others.

    The gates are those of its latch, see `the_latch`.
    """

    memory: str
    number: int  # of the memory
    errors: dict[str, float]  # what was done to the gates -> share of chance
    masked: list[float]  # error without each head
    opening: float  # log input gate at marks, above that elsewhere
    told_apart: float  # how well the input gate tells marks from other steps, 0.5 ... 1
    kept: float  # forget gate elsewhere
    left: float  # forget gate at marks
    told_apart_before: float  # the best of all memories, before the training
    opening_before: float


def read_latch(model: LatchNetwork, before: LatchNetwork, parts: Streams) -> Reading:
    """Read the gates of a trained network, and try what each is needed for.

    Args:
        model: trained.
        before: the same network with its fresh weights.
        parts: its streams.
    """
    heads = model.stack.blocks[0].cell.heads
    choice = look_inside(model, parts.shown)
    number = the_latch(choice, parts.shown.age, without_each_head(model, parts.valid, heads))
    fresh, found = (contrast(look_inside(m, parts.test), parts.test.marked) for m in (before, model))
    edits = interventions(look_inside(model, parts.valid))
    return Reading(
        memory=memory_name(choice, number),
        number=number,
        errors={name: error(model, parts.test, *edit) for name, edit in edits.items()},
        masked=without_each_head(model, parts.test, heads),
        opening=float(found.opening[number]),
        told_apart=float(found.told_apart[number]),
        kept=float(found.kept[number]),
        left=float(found.left[number]),
        told_apart_before=float(fresh.told_apart.max()),
        opening_before=float(fresh.opening.max()),
    )


def learn_latch(network: Network, params: Params, seed: int, run: Run | None = None) -> tuple[LatchNetwork, Reading]:
    """Train one network on the latch, and read its gates."""
    parts = latch.streams(params, seed)
    model, before = (latch.build(network, params, seed) for _ in range(2))
    latch.train(model, parts, params, seed, run=run)
    return model, read_latch(model, before, parts)


def errors_of(readings: list[Reading]) -> dict[str, list[float]]:
    """The errors of several networks: for each intervention, one for each network."""
    return {name: [reading.errors[name] for reading in readings] for name in readings[0].errors}


def traffic(params: Params, run: Run | None = None) -> tuple[Series, Split, Forecaster]:
    """The network of notebook 00, trained on the counts that ship."""
    how = forecast.Params(steps=params.traffic_steps, seed=params.seed)
    series = forecast.load(how)
    parts = forecast.prepare(series, how)
    parts = parts._replace(test=parts.test.thin(WINDOWS))
    model, result = forecast.train("xLSTM", parts, how, run)
    if result.end == "interrupted":
        raise KeyboardInterrupt("the forecaster was interrupted; its progress is kept.")
    return series, parts, model


@torch.no_grad()
def traffic_trace(model: Forecaster, parts: Split, most: int = 256) -> Trace:
    """What the gates do over validation windows, evenly spread."""
    batch = forecast.everything(parts.valid.thin(most))
    model.eval()
    with record(model, names=("*.log_input", "*.log_forget", "*.forget")) as trace:
        model(batch.past, batch.known)
    return trace


class Moved(NamedTuple):
    """How one kind of gate behaves on traffic: middle memory over windows and steps."""

    swing: float  # standard deviation of the gate's logarithm over steps and windows
    half_life: float  # in steps; NaN for an input gate
    drift: float  # how far training moved the mean of the gate's logarithm


def movement(trace: Trace, fresh: Trace) -> dict[str, Moved]:
    """How much each kind of gate moves, and how far training has moved it from where it began."""
    table = {}
    for cell, path in BLOCKS.items():
        for gate, name in GATES.items():
            now, begin = (memories(of, f"{path}.{name}") for of in (trace, fresh))
            half = np.log(0.5) / np.minimum(now.mean((0, 1)), -1e-30) if gate == "forget" else [np.nan]
            drift = np.abs(now.mean((0, 1)) - begin.mean((0, 1)))
            table[f"{cell} {gate}"] = Moved(
                float(np.median(now.std((0, 1)))), float(np.median(half)), float(np.median(drift))
            )
    return table


def forecasts_held_still(model: Forecaster, parts: Split, trace: Trace) -> dict[str, Float[Tensor, "N P Q"]]:
    """Forecasts of the test windows with one kind of gate held at its mean, with all, and as it learned."""
    kinds = {
        f"{cell} {gate} gate held": held_still(trace, f"{path}.{name}")
        for cell, path in BLOCKS.items()
        for gate, name in GATES.items()
    }
    kinds["all gates held"] = [edit for edits in kinds.values() for edit in edits]
    answers = {"as it learned": forecast.predict(model, parts.test)}
    for name, edits in kinds.items():
        with edited(model, *edits):
            answers[name] = forecast.predict(model, parts.test)
    return answers


def cost_of_holding(parts: Split, answers: dict[str, Tensor], steps_in_a_day: int) -> dict[str, tuple[float, Paired]]:
    """What holding a gate costs: mean absolute error, and its difference from the network as it learned."""
    table = forecast.evaluate(parts, answers)
    free = "as it learned"
    costs = {
        name: (table[name]["mae"], forecast.compare(parts, answers, name, free, steps_in_a_day))
        for name in answers
        if name != free
    }
    return dict(sorted(costs.items(), key=lambda row: row[1][0]))


def latch_findings(readings: dict[Network, list[Reading]]) -> list[str]:
    """What the gates of the latch networks say, in sentences."""
    sentences = []
    for network, found in readings.items():
        errors = {name: float(np.median(values)) for name, values in errors_of(found).items()}
        middle = {name: float(np.median([getattr(one, name) for one in found])) for name in Reading._fields[4:]}
        sentences += [
            f"{network}: error {errors['as it learned']:.4f} of chance (median of {len(found)}); with the input gate "
            f"held at its mean {errors['input gate held at its mean']:.2f}, with the forget gate held at its mean "
            f"{errors['forget gate held at its mean']:.2f}, with both {errors['both held at their means']:.2f}.",
            f"{network}: the latch opens its input gate {np.exp(middle['opening']):,.0f} times at marks; its forget "
            f"gate is {middle['kept']:.3f} elsewhere and {middle['left']:.3f} at marks.",
            f"{network}: its input gate ranks a mark above another step in {middle['told_apart']:.1%} of all pairs; "
            f"before the training, the best did in {middle['told_apart_before']:.1%}, opening "
            f"{np.exp(middle['opening_before']):.1f} times.",
        ]
    return sentences


def traffic_findings(costs: dict[str, tuple[float, Paired]], free: float, unit: str) -> list[str]:
    """What holding the gates still does to the forecasts, in sentences."""
    sentences = [f"Traffic: mean absolute error {free:.2f} {unit} as it learned."]
    for name, (mae, paired) in costs.items():
        sentences.append(
            f"Traffic, {name}: {mae:.2f} ({mae / free - 1:+.1%}), {paired.verdict}; 95 % interval of the difference "
            f"{paired.low:.2f} ... {paired.high:.2f}, {paired.blocks} blocks."
        )
    return sentences


def run(params: Params, run: Run | None = None) -> Result:
    """Answer the question once: learn the latch, hold its gates; learn the traffic, hold its gates."""
    begin = time.monotonic()
    seeds = range(params.seed, params.seed + params.seeds)
    readings = {net: [learn_latch(net, params, seed, run)[1] for seed in seeds] for net in Network.__args__}
    series, parts, model = traffic(params, run)
    answers = forecasts_held_still(model, parts, traffic_trace(model, parts))
    table = forecast.evaluate(parts, answers)
    costs = cost_of_holding(parts, answers, max(round(24 / series.step_hours), 1))
    scores = {
        f"{net}, {name}": {"error": float(np.median(values))}
        for net, found in readings.items()
        for name, values in errors_of(found).items()
    }
    return Result(
        experiment=__name__,
        params=params.model_dump(mode="json"),
        unit="share of chance",
        scores=dict(sorted(scores.items(), key=lambda row: row[1]["error"])),
        findings=latch_findings(readings) + traffic_findings(costs, table["as it learned"]["mae"], series.unit),
        seconds=time.monotonic() - begin,
    )
