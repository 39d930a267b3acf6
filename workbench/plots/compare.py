"""One quantity twice or many times: the difference of two runs, and a gate through training."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from workbench.plots.arrays import as_numbers, as_steps, extremes, pool_mean, quantiles
from workbench.plots.gates import Gate, heat, ready
from workbench.plots.scales import Scale, scale_of, thinned
from workbench.plots.style import PALETTE, capital, counted, faded, finish, joined, missing, moment, number, sentences

HEAT, GAP, STRIP = 264, 44, 84
PANEL = HEAT + GAP + STRIP


def difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    names: tuple[str, str] = ("a", "b"),
    steps: ArrayLike | None = None,
    title: str = "",
    unit_label: str = "unit",
    step_label: str = "step",
    pool_to: int = 1000,
) -> go.Figure:
    """Where two runs of the same quantity differ: a - b as a heat map around white, and its size over time.

    Args:
        a, b: (time, unit), of one shape. NaN in either is a gap.
        names: what they are, for the words.
        steps: position of each time step, numbers or datetime64 (time,).
        title: goes before the largest and the mean difference, which are always stated.
        unit_label, step_label: what the axes are.
        pool_to: most columns drawn; longer sequences show means of neighbours, and say so.
    """
    one, two = (as_numbers(name, values, "(time, unit)", 2) for name, values in (("a", a), ("b", b)))
    if one.shape != two.shape:
        raise ValueError(
            f"a has shape {one.shape} and b has shape {two.shape}; a difference needs the same steps and units of both."
        )
    gate = ready(one - two, steps, "signed", pool_to)
    scale = scale_of("signed", gate.full, len(gate.full))
    size = np.abs(gate.full)
    fig = two_panels(gate, scale, unit_label, step_label, f"{names[0]} − {names[1]}")
    mean = pool_mean(row_mean(size), gate.times)
    largest = np.fmax.reduceat(np.fmax.reduce(size, axis=1), np.arange(0, len(size), gate.times))
    for y, name, line in ((largest, "largest", {"dash": "dot", "width": 1.5}), (mean, "mean", {"color": PALETTE[0]})):
        hover = f"{step_label} %{{x}}<br>{name} %{{y:.4g}}<extra></extra>"
        trace = go.Scatter(x=gate.x, y=y.astype(np.float32), mode="lines", line=line, hovertemplate=hover)
        fig.add_trace(trace.update(showlegend=False), row=2, col=1)
    fig.update_yaxes(rangemode="tozero", nticks=4, row=2, col=1)
    caption(fig, f"|{names[0]} − {names[1]}| over {unit_label}s: mean (line), largest (dotted)")
    x = as_steps("steps", steps, len(one))
    said, place = apart(gate, names, x, unit_label, step_label)
    gaps = missing(gate.gaps)
    return finish(
        fig,
        title=f"{title}: {said}" if title else capital(said),
        subtitle=joined(scale.note, gate.pooled, gaps),
        alt=sentences(
            f"Heat map of a difference, {names[0]} minus {names[1]}. Across: {step_label}, {moment(x[0])} to "
            f"{moment(x[-1])}. Down: {unit_label}, 0 to {one.shape[1] - 1}",
            capital(said),
            place,
            gate.pooled,
            gaps,
        ),
        panel=PANEL,
        margin={"r": 84},
    )


def row_mean(size: np.ndarray) -> np.ndarray:
    """Means of rows without their NaN; NaN where a row has nothing else."""
    there = ~np.isnan(size)
    count = there.sum(axis=1)
    return np.where(count > 0, np.where(there, size, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def apart(gate: Gate, names: tuple[str, str], x: np.ndarray, unit_label: str, step_label: str) -> tuple[str, str]:
    """The largest and the mean difference in words, and where the largest is."""
    found = extremes(np.abs(gate.full))
    if found is None:
        return "nothing to compare, every value is missing", ""
    step, unit = found[1]
    largest = float(gate.full[step, unit])
    if largest == 0:
        return f"no difference: {names[0]} and {names[1]} are equal in all {gate.full.size - gate.gaps:,} values", ""
    mean = float(np.nanmean(np.abs(gate.full)))
    place = f"The largest is {number(largest)} at {step_label} {moment(x[step])}, {unit_label} {unit}"
    return f"differences of up to {number(abs(largest))}, {number(mean)} in the mean", place


def gates_through_training(
    values: ArrayLike,
    steps: ArrayLike,
    *,
    kind: str = "bounded",
    cap: float | None = None,
    marks: Mapping[str, float] | None = None,
    title: str = "",
    unit_label: str = "unit",
    step_label: str = "update",
) -> go.Figure:
    """One quantity of a fixed probe at each checkpoint: training across on one scale, and its mean below.

    Args:
        values: (checkpoint, unit), or (checkpoint, time) of one unit.
        steps: training step of each checkpoint, rising (checkpoint,); each is a dot on the mean.
        kind: as in `gate_heatmap`.
        cap: of half-lives, the length of the probe; the second axis unless given.
        marks: name -> training step of what is worth a vertical line: "loss halves", "best".
        title: the finding; without one, first and last mean.
        unit_label: what a row is: unit, head, step of the probe.
        step_label: what training is counted in.
    """
    full = as_numbers("values", values, "(checkpoint, unit) or (checkpoint, time)", 2)
    at = as_steps("steps", as_numbers("steps", steps, "(checkpoint,)", 1), len(full))
    if not (np.diff(at) > 0).all():
        raise ValueError(f"steps must rise from one checkpoint to the next; they start with {at.tolist()[:8]}.")
    gate = ready(full, at, kind, len(full), cap=full.shape[1] if cap is None else cap)
    scale = scale_of(kind, gate.full, gate.cap)
    fig = two_panels(gate, scale, unit_label, step_label, scale.name)
    mean = row_mean(gate.full)
    mean_line(fig, gate, mean, step_label)
    ticks = scale.ticks if kind == "steps" else thinned(scale.ticks)
    fig.update_yaxes(range=[scale.low, scale.high], row=2, col=1, **ticks)
    if len(at) > 1:
        fig.update_xaxes(range=[at[0] - (at[1] - at[0]) / 2, at[-1] + (at[-1] - at[-2]) / 2])
    for name, place in (marks or {}).items():
        for axis in ("y domain", "y2 domain"):
            fig.add_shape(type="line", x0=place, x1=place, yref=axis, y0=0, y1=1, line={"dash": "dash"})
        fig.add_annotation(x=place, yref="paper", y=1, text=name, xanchor="left", yanchor="bottom", xshift=-3)
    how = "Geometric mean" if kind in ("log", "steps") else "Mean"
    caption(fig, f"{how} over {unit_label}s, a dot at each checkpoint, and the band that holds 80 % of them")
    return finish(
        fig,
        title=title or f"The mean goes from {begin_end(gate, mean, step_label)}",
        subtitle=joined(scale.note, gate.pooled, missing(gate.gaps)),
        alt=sentences(
            f"Heat map through training. Across: {counted(len(gate.full), 'checkpoint')}, {step_label} "
            f"{moment(gate.x[0])} to {moment(gate.x[-1])}. Down: {unit_label}, 0 to {gate.full.shape[1] - 1}",
            f"The mean below goes from {begin_end(gate, mean, step_label)}",
            *(f"{name} at {step_label} {number(at)}" for name, at in (marks or {}).items()),
            missing(gate.gaps),
        ),
        panel=PANEL,
        margin={"r": 84, "t": 40 if marks else 18},
    )


def mean_line(fig: go.Figure, gate: Gate, mean: np.ndarray, step_label: str) -> None:
    """Below: the mean of each checkpoint as a dot, on a band that holds 80 % of the values."""
    style = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    for edge, fill in zip(quantiles(gate.full, [0.1, 0.9]), (None, "tonexty"), strict=True):
        band = go.Scatter(x=gate.x, y=edge.astype(np.float32), fill=fill, fillcolor=faded(PALETTE[0], 0.22), **style)
        fig.add_trace(band, row=2, col=1)
    size = 6 if len(mean) <= 60 else 3
    look = {"line": {"color": PALETTE[0], "width": 2}, "marker": {"color": PALETTE[0], "size": size}}
    hover = f"{step_label} %{{x}}<br>mean {gate.hover('y')}<extra></extra>"
    line = go.Scatter(x=gate.x, y=mean.astype(np.float32), mode="lines+markers", hovertemplate=hover, showlegend=False)
    fig.add_trace(line.update(look), row=2, col=1)


def begin_end(gate: Gate, mean: np.ndarray, step_label: str) -> str:
    """Mean at the first and at the last checkpoint that has one, in words."""
    there = np.flatnonzero(np.isfinite(mean))
    if not len(there):
        return "nothing to nothing, every value is missing"
    first, last = (number(10.0 ** mean[at] if gate.kind in ("log", "steps") else mean[at]) for at in there[[0, -1]])
    return f"{first} at {step_label} {moment(gate.x[there[0]])} to {last} at {moment(gate.x[there[-1]])}"


def two_panels(gate: Gate, scale: Scale, unit_label: str, step_label: str, name: str) -> go.Figure:
    """A heat map with its colour bar, over an empty panel on the same time axis."""
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[HEAT, STRIP], vertical_spacing=GAP / PANEL)
    fig.add_trace(heat(gate, unit_label, step_label, coloraxis="coloraxis"), row=1, col=1)
    fig.update_layout(coloraxis=scale.axis(len=HEAT / PANEL, title={"text": name}))
    units = gate.full.shape[1]
    fig.update_yaxes(title_text=unit_label, range=[units - 0.5, -0.5], showgrid=False, row=1, col=1)
    fig.update_xaxes(showline=False, ticks="", row=1, col=1)
    fig.update_xaxes(title_text=step_label, row=2, col=1)
    return fig


def caption(fig: go.Figure, text: str) -> None:
    """What the lower panel shows."""
    where = {"xref": "paper", "yref": "paper", "x": 0, "y": STRIP / PANEL, "xanchor": "left", "yanchor": "bottom"}
    fig.add_annotation(text=text, yshift=4, **where)
