"""Names at the ends of lines, moved apart where they would overlap."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from workbench.plots.style import Category, glyph

LINE = 17  # px from one label to the next


class End(NamedTuple):
    """Where a line ends, and what to write there."""

    x: object
    y: float
    text: str
    look: Category | None  # None: the colour of text


def spread(wanted: list[float], room: float, distance: float = LINE) -> list[float]:
    """Positions as close as possible to those wanted, in 0 ... room, at least `distance` apart."""
    order = np.argsort(wanted, kind="stable")
    placed = np.array(wanted, dtype=float)[order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + distance)
    if len(placed) and placed[-1] > room:
        placed[-1] = room
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - distance)
    result = np.empty(len(placed))
    result[order] = placed
    return result.tolist()


def last_point(x: np.ndarray, y: np.ndarray) -> tuple[object, float] | None:
    """The last point of a line that is there."""
    there = np.flatnonzero(np.isfinite(y))
    return (x[there[-1]], float(y[there[-1]])) if len(there) else None


def label_ends(fig: go.Figure, ends: list[End], low: float, high: float, panel: int, log: bool = False) -> None:
    """Write each name beside its line's end, with a thin leader where it had to move.

    Args:
        fig: a figure with one panel, whose y axis runs from `low` to `high` (data units).
        ends: where the lines end.
        low, high: range of the y axis; both above 0 when `log`.
        panel: height of the panel in px.
        log: whether the y axis is logarithmic.
    """
    scale = np.log10 if log else np.asarray
    bottom, top = float(scale(low)), float(scale(high))
    own = [(top - float(scale(end.y))) / (top - bottom) * panel for end in ends]
    for end, at, to in zip(ends, own, spread(own, panel), strict=True):
        fig.add_annotation(
            x=end.x,
            y=float(scale(end.y)),
            text=glyph(end.look, end.text),
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=end.look.colour if end.look else None,
            ax=16,
            ay=to - at,
            xanchor="left",
            standoff=2,
            align="left",
        )


def room_for(ends: list[End]) -> int:
    """The right margin in px that the labels need."""
    longest = max((len(end.text) for end in ends), default=0)
    return 46 + int(6.9 * longest)
