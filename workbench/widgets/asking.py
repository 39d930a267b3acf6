"""What if, from a view: a slider's position becomes edits, and a model that runs again says what they change."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from workbench.trace.edits import Edit, WhatIf, drop_stabilizer, force, mask, what_if
from workbench.trace.names import NAMES

POINTS = 2000  # of the output's line
FURTHEST = 12.0  # of a slider over logarithms that have no end of their own
LONGEST = 10_000.0  # half-life of a slider, in steps


class Change(NamedTuple):
    """What the edits did to the output of one sequence, as JSON and as two lines."""

    said: dict
    before: np.ndarray  # (point,)
    after: np.ndarray


class Asking:
    """A model, its inputs, and what can be changed in it.

    Args:
        model: with cells of this package.
        inputs: what `model(*inputs)` takes; a tensor is the only one.
    """

    def __init__(self, model: nn.Module, inputs: Tensor | Sequence[Tensor | None]) -> None:
        self.model, self.inputs = model, inputs
        if not self.options():
            raise ValueError(f"{type(model).__name__} has no cell in which something can be forced; leave model= out.")

    def options(self) -> dict[str, dict]:
        """Path of each cell to what can be changed there: {"force": {name: [low, high, log]}, "stabilizer": bool}."""
        found = {}
        for path, cell in self.model.named_modules():
            if hasattr(cell, "levers"):
                ranges = {name: reach(name, lever.low, lever.high) for name, lever in cell.levers().items()}
                ranges = {name: ends for name, ends in ranges.items() if ends is not None}
                plain = getattr(cell, "without_stabilizer", lambda: None)()
                found[path] = {"force": ranges, "stabilizer": plain is not None}
        return found

    def run(self, edits: Sequence[Edit]) -> WhatIf:
        """The model without and with the edits; its weights are those of this moment."""
        return what_if(self.model, self.inputs, *edits)


def reach(name: str, low: float, high: float) -> tuple[float, float, bool] | None:
    """The ends of a slider, and whether it is logarithmic; None for what has no scale, such as a key."""
    kind = NAMES[name].kind if name in NAMES else "signed"
    if kind == "steps":
        return 0.1, LONGEST, True
    if kind == "log":
        return max(low, -FURTHEST), min(high, FURTHEST), False
    if math.isinf(low) or (kind == "signed" and math.isinf(high)):
        return None
    return low, (1.0 if kind == "bounded" else 10.0) if math.isinf(high) else high, False


def edits_of(asked: Mapping[str, object]) -> list[Edit]:
    """The edits that a view asks for.

    Args:
        asked: "cell"; "force" and "value", and "head" where only one is forced; "mask", a head; "stabilizer", False
            to drop it. All but the cell may be missing.
    """
    cell, edits = asked["cell"], []
    prefix = f"{cell}." if cell else ""
    if asked.get("force"):
        edits.append(force(f"{prefix}{asked['force']}", float(asked["value"]), heads=asked.get("head")))
    if asked.get("mask") is not None:
        edits.append(mask(cell, int(asked["mask"])))
    if asked.get("stabilizer") is False:
        edits.append(drop_stabilizer(cell))
    if not edits:
        raise ValueError("nothing to change: force a quantity, mask a head, or drop the stabiliser.")
    return edits


def change(result: WhatIf, edits: Sequence[Edit], batch: int) -> Change:
    """What the edits did to the output; drawn is the channel that moved most."""
    before, after = (lines(output, batch) for output in (result.output_before, result.output_after))
    moved = np.abs(after - before)
    lost = int(np.isnan(moved).sum())
    per_channel = np.where(np.isnan(moved), np.inf, moved).max(0)
    channel = int(per_channel.argmax())
    size = -(-len(before) // POINTS)
    said = {
        "words": [str(edit) for edit in edits],
        "largest": number(np.nanmax(moved)) if lost < moved.size else None,
        "mean": number(np.nanmean(moved)) if lost < moved.size else None,
        "lost": lost,
        "channel": channel,
        "channels": before.shape[1],
        "thinned": size,
        "notes": [note for note in result.after.notes if note not in result.before.notes],
    }
    return Change(said, before[::size, channel], after[::size, channel])


def lines(output: Tensor | tuple, batch: int) -> np.ndarray:
    """The output of one sequence as (point, channel)."""
    while not isinstance(output, Tensor):
        output = output[0]
    values = output.detach().to("cpu", torch.float32).numpy()
    values = values[min(batch, len(values) - 1)] if values.ndim > 1 else values
    return values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)


def number(value: float) -> float | None:
    """A number as JSON has it."""
    return float(value) if math.isfinite(value) else None
