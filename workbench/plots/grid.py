"""Every head of every layer at a glance: thumbnails on one scale, ranked by how interesting they are."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers, as_steps, min_max
from workbench.plots.gates import CLOSED, OPEN, Gate, heat, ready
from workbench.plots.scales import Scale, scale_of, thinned
from workbench.plots.style import capital, counted, finish, joined, missing, moment, number, sentences

THUMB, GAP = 76, 26  # px: height of a thumbnail, and space for its caption
COLUMNS, ROWS = 240, 24  # what is drawn of steps and units in one thumbnail
MOST = 400  # thumbnails
SPOKEN = 5  # heads that are named, most interesting first
SCORES = {
    "variance": "variance over time, mean over units",
    "saturation": f"share of values below {CLOSED} or above {OPEN}",
}
HOW = {"variance": "changes most", "saturation": "is saturated most"}
Head = tuple[int | str, int | str]


def head_grid(
    heads: Mapping[Head, ArrayLike],
    *,
    kind: str = "bounded",
    by: str = "variance",
    steps: ArrayLike | None = None,
    title: str = "",
    layer_label: str = "layer",
    head_label: str = "head",
    step_label: str = "step",
) -> go.Figure:
    """One quantity of every head, layers down and heads across, on one shared scale.

    Args:
        heads: (layer, head) -> (time, unit), drawn as heat maps, or all (time,), drawn as lines; over the same steps.
            A layer may have fewer heads than another: its places stay empty.
        kind: as in `gate_heatmap`.
        by: what makes a head interesting: "variance" over time, of the values as they are drawn, or "saturation",
            the share of closed and open values of a bounded gate. The rank stands in each caption.
        steps: position of each time step, numbers or datetime64 (time,).
        title: the finding; without one, the most interesting head.
        layer_label, head_label, step_label: what the axes are.
    """
    arrays = checked(heads, by, kind)
    flat = next(iter(arrays.values())).ndim == 1
    length = len(next(iter(arrays.values())))
    gates = {
        head: ready(values.reshape(length, -1), steps, kind, COLUMNS, most_units=ROWS)
        for head, values in arrays.items()
    }
    values = np.concatenate([gate.full.ravel() for gate in gates.values()])
    scale = scale_of(kind, values, float(length))
    scores = {head: score(gate, by) for head, gate in gates.items()}
    ranked = sorted(scores, key=lambda head: -np.nan_to_num(scores[head], nan=-1.0))
    x = as_steps("steps", steps, length)
    layers, across = (in_order([head[axis] for head in gates]) for axis in (0, 1))
    fig, panel = thumbnails(gates, (layers, across), scale, x, (layer_label, head_label, step_label), ranked, flat)
    names = {head: f"{layer_label} {head[0]}, {head_label} {head[1]}" for head in gates}
    best = [f"{names[head]} ({number(scores[head])})" for head in ranked[:SPOKEN] if scores[head] > 0]
    one, gaps = next(iter(gates.values())), missing(int(np.isnan(values).sum()))
    pooled, note = ("", scale.note.replace("colours", "axis")) if flat else (one.pooled, scale.note)
    fewer = incomplete(list(gates), (layers, across), layer_label, head_label)
    said = f"{names[ranked[0]]} {HOW[by]}" if best else f"No {head_label} stands out"
    return finish(
        fig,
        title=title or capital(said),
        subtitle=joined(f"# rank by {SCORES[by]}: {', '.join(best[:3]) or 'all 0'}", note, pooled, gaps),
        alt=sentences(
            f"Grid of {len(gates)} small {'line plots' if flat else 'heat maps'} on one scale. "
            f"Down: {counted(len(layers), layer_label)}. Across: {counted(len(across), head_label)}. "
            f"In each: {step_label}, {moment(x[0])} to {moment(x[-1])}",
            span(values, one),
            f"Ranked by {SCORES[by]}: {', '.join(best) or 'all 0'}",
            *fewer,
            pooled,
            gaps,
        ),
        panel=panel,
        margin={"r": 24, "t": 40, "l": 92} if flat else {"r": 84, "t": 40, "l": 48},
    )


def incomplete(heads: list[Head], places: tuple[list, list], layer_label: str, head_label: str) -> list[str]:
    """Which layers have fewer heads than there are columns, in words."""
    layers, across = places
    counts = {layer: sum(head[0] == layer for head in heads) for layer in layers}
    whole = len(across)
    return [f"{layer_label} {at} has {n} of {whole} {head_label}s" for at, n in counts.items() if n < whole]


def checked(heads: Mapping[Head, ArrayLike], by: str, kind: str) -> dict[Head, np.ndarray]:
    """The heads as numbers of one rank and length, or an error that says what was received."""
    if by not in SCORES or (by == "saturation" and kind != "bounded"):
        raise ValueError(f"by={by!r} cannot rank kind={kind!r}; choose 'variance', or 'saturation' of a bounded gate.")
    if not 1 <= len(heads) <= MOST:
        raise ValueError(f"heads has {len(heads)} entries; pass 1 to {MOST}, as (layer, head) -> values.")
    arrays = {}
    for head, values in heads.items():
        if not (isinstance(head, tuple) and len(head) == 2):
            raise ValueError(f"heads has the key {head!r}; pass (layer, head), such as (0, 3).")
        arrays[head] = as_numbers(f"heads[{head!r}]", values, "(time, unit) or (time,)", 1, 2)
    shapes = {head: array.shape for head, array in arrays.items()}
    if len({(len(shape), shape[0]) for shape in shapes.values()}) > 1:
        said = ", ".join(f"{head} has {shape}" for head, shape in list(shapes.items())[:6])
        raise ValueError(f"heads must all be (time, unit) or all (time,), over the same steps; {said}.")
    return arrays


def in_order(names: list[int | str]) -> list[int | str]:
    """Each name once: numbers rising, anything else as it comes."""
    once = list(dict.fromkeys(names))
    return sorted(once) if all(isinstance(name, int | np.integer) for name in once) else once


def score(gate: Gate, by: str) -> float:
    """How interesting a head is; NaN where every value is missing."""
    there = ~np.isnan(gate.full)
    if not there.any():
        return np.nan
    if by == "saturation":
        return float(((gate.full < CLOSED) | (gate.full > OPEN)).sum() / there.sum())
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, gate.full, 0).sum(axis=0) / count
    variance = (np.where(there, gate.full - mean, 0) ** 2).sum(axis=0) / count
    return float(variance[there.any(axis=0)].mean())


def thumbnails(
    gates: dict[Head, Gate],
    places: tuple[list, list],
    scale: Scale,
    x: np.ndarray,
    labels: tuple[str, str, str],
    ranked: list[Head],
    flat: bool,
) -> tuple[go.Figure, int]:
    """The figure and its height, a panel for each head at its place.

    Built from plain dictionaries: plotly takes seconds to change hundreds of axes one by one.
    """
    layers, across = places
    panel = len(layers) * THUMB + (len(layers) - 1) * GAP
    width = 1 / (len(across) + 0.12 * (len(across) - 1))
    traces, axes, notes = [], {}, []
    span = [x[0], x[-1]] if len(x) > 1 else None
    lowest = {head[1]: layers.index(head[0]) for head in sorted(gates, key=lambda head: layers.index(head[0]))}
    leftmost = {head[0]: across.index(head[1]) for head in sorted(gates, key=lambda head: -across.index(head[1]))}
    for index, (head, gate) in enumerate(gates.items()):
        row, column = layers.index(head[0]), across.index(head[1])
        key = "" if index == 0 else str(index + 1)
        left, top = column * 1.12 * width, 1 - row * (THUMB + GAP) / panel
        last, first = row == lowest[head[1]], column == leftmost[head[0]]
        traces.append(thumbnail(gate, x, labels, flat) | {"xaxis": f"x{key}", "yaxis": f"y{key}"})
        axes[f"xaxis{key}"] = {"domain": [left, min(left + width, 1)], "anchor": f"y{key}", "range": span, "nticks": 3}
        axes[f"xaxis{key}"] |= {"matches": "x" if index else None, "showticklabels": last}
        bottom = max(top - THUMB / panel, 0)
        axes[f"yaxis{key}"] = {"domain": [bottom, top], "anchor": f"x{key}", "showticklabels": flat and first}
        axes[f"yaxis{key}"] |= level(scale) if flat else {"range": [gate.full.shape[1] - 0.5, -0.5], "showgrid": False}
        where = {"xref": "paper", "yref": "paper", "x": left, "xanchor": "left", "y": top, "yanchor": "bottom"}
        text = f"{labels[1]} {head[1]} <b>#{ranked.index(head) + 1}</b>"
        notes.append(where | {"text": text, "yshift": 2, "showarrow": False})
        if first:
            side = {"xref": "paper", "x": 0, "xanchor": "right", "xshift": -46 if flat else -10, "textangle": -90}
            middle = {"yref": "paper", "y": top - THUMB / panel / 2, "yanchor": "middle"}
            notes.append(side | middle | {"text": f"{labels[0]} {head[0]}", "font": {"size": 13}, "showarrow": False})
    layout = {**axes, "annotations": notes}
    if not flat:
        layout["coloraxis"] = scale.axis(lenmode="pixels", len=float(np.clip(panel, THUMB, 264)))
    return go.Figure({"data": traces, "layout": layout}), panel


def level(scale: Scale) -> dict:
    """The shared axis of thumbnails with lines."""
    air = 0.06 * (scale.high - scale.low)
    return {"range": [scale.low - air, scale.high + air], **thinned(scale.ticks)}


def thumbnail(gate: Gate, x: np.ndarray, labels: tuple[str, str, str], flat: bool) -> dict:
    """One head as a trace: a line where it has one value for each step, or a heat map."""
    if not flat:
        return heat(gate, "unit", labels[2], coloraxis="coloraxis").to_plotly_json()
    at, y, size = min_max(x, gate.full[:, 0], points=480, above=960)
    note = f"<br>lowest and highest of each {size}" if size > 1 else ""
    hover = f"{labels[2]} %{{x}}<br>{gate.hover('y')}{note}<extra></extra>"
    style = {"mode": "lines", "line": {"width": 1.5}, "showlegend": False, "hovertemplate": hover}
    return {"type": "scatter", "x": at, "y": y.astype(np.float32), **style}


def span(values: np.ndarray, gate: Gate) -> str:
    """The range of all values, in words."""
    if np.isnan(values).all():
        return "Every value is missing"
    low, high = (number(gate.real(float(end))) for end in (np.nanmin(values), np.nanmax(values)))
    return f"Values from {low} to {high}" + (" (log10)" if gate.kind == "log" else "")
