"""A trace at a glance: thumbnails of every cell and head, and one scale of colours for all of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workbench.trace.names import Kind
from workbench.widgets.tiles import CHUNK, Readable, pool, stretch

SAMPLE = 2**17  # values of one cell that a colour scale looks at
GLANCE = 2**24  # values of one cell that its thumbnails look at
THUMBNAIL = 96  # columns


class Scale(NamedTuple):
    """How values become colours, the same for every layer, head and training step of one quantity."""

    low: float
    high: float
    colours: str  # "sequential", "signed" or "log"
    note: str


class Thumbnails(NamedTuple):
    """One quantity of one cell at a glance: means over units, and what is not a number."""

    columns: np.ndarray  # (head, column)
    missing: int  # up to the sequence's last step
    infinite: int
    padding: int  # steps behind its end
    whole: bool  # False: only the first steps of each column were read, and only they are counted


def thumbnails(source: Readable, path: str, steps: int, batch: int, kind: Kind) -> Thumbnails:
    """A glance at one quantity of one sequence; of very long ones, at the first steps of each column."""
    size = math.ceil(steps / THUMBNAIL)
    width = stretch(source, path, 0, 1, kind).size
    taken = min(size, max(1, GLANCE // (THUMBNAIL * width)))
    whole = taken == size
    piece = max(1, CHUNK // (width * size)) * size if whole else size
    columns, missing, waiting, infinite, seen = [], 0, 0, 0, False
    for at in range(0, steps, piece):
        values = stretch(source, path, at, min(at + (piece if whole else taken), steps), kind)
        values = values[min(batch, len(values) - 1)]
        gone = np.isnan(values)
        there = np.flatnonzero(~gone.all((0, 2)))
        end = int(there[-1]) + 1 if there.size else 0
        if end:  # what waited was a gap, and not the padding
            missing += int(gone[:, :end].sum()) + waiting * gone.shape[0] * gone.shape[2]
            waiting, seen = 0, True
        waiting += gone.shape[1] - end
        infinite += int(np.isinf(values).sum())
        columns.append(by_head(pool(values, size)[0], path, source))
    if not seen:  # a cell that gave nothing at all has no padding
        missing, waiting = waiting * values.shape[0] * values.shape[2], 0
    return Thumbnails(np.concatenate(columns, axis=1), missing, infinite, waiting, whole)


def by_head(values: np.ndarray, path: str, source: Readable) -> np.ndarray:
    """(group, time, row) as one line for each head (head, time): means over units."""
    if not has_units(source, path):
        return values[0].T
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        total = np.where(there, values, 0).sum(-1)
        return total / np.where(there.any(-1), there.sum(-1), np.nan)


def has_units(source: Readable, path: str) -> bool:
    """Whether each unit of a quantity has values of its own."""
    return source.read(path, 0, 1).ndim == 4


def scale_of(sources: Sequence[tuple[Readable, str, int]], kind: Kind) -> Scale:
    """The colours of a quantity, from a sample of every (source, path, steps) that has it."""
    samples = [sample(source, path, steps, kind) for source, path, steps in sources]
    values = np.concatenate([values[np.isfinite(values)] for values in samples]) if samples else np.zeros(0)
    if kind == "bounded":
        highest = float(values.max(initial=1.0))
        high = 1.0 if highest <= 1 + 1e-6 else math.ceil(2 * highest) / 2
        return Scale(
            0.0, high, "sequential", "" if high == 1 else f"values up to {highest:.3g}: colours end at {high:g}"
        )
    if kind in ("log", "signed"):
        limit = float(np.quantile(np.abs(values), 0.995)) if values.size else 1.0
        limit = limit if limit > 0 else 1.0
        return Scale(-limit, limit, kind, f"colours end at ±{limit:.3g}, the 99.5th percentile")
    low, high = (float(x) for x in np.quantile(values, [0.005, 0.995])) if values.size else (0.0, 1.0)
    if kind == "steps":
        high = min(high, math.log10(max(max((steps for _, _, steps in sources), default=10), 10)))
        low = min(low, high - 1)
        return Scale(low, high, "sequential", "logarithmic colours, ending at the length of the sequence")
    high = high if high > 0 else 1.0
    return Scale(0.0, high, "sequential", f"colours end at {high:.3g}, the 99.5th percentile")


def sample(source: Readable, path: str, steps: int, kind: Kind) -> np.ndarray:
    """Values of a quantity from 16 stretches of time, or all where there are few."""
    width = stretch(source, path, 0, 1, kind).size
    taken = max(1, SAMPLE // (16 * width))
    if taken * 16 >= steps:
        return stretch(source, path, 0, steps, kind).ravel()
    starts = np.linspace(0, steps - taken, 16).astype(int).tolist()
    return np.concatenate([stretch(source, path, at, at + taken, kind).ravel() for at in starts])
