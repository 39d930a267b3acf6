"""How long a memory lasts: the half-life of what a forget gate keeps."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers, as_steps, extremes, min_max, quantiles
from workbench.plots.labels import End, label_ends, last_point, room_for
from workbench.plots.scales import SHORTEST, decade
from workbench.plots.style import (
    PALETTE,
    Category,
    categories,
    faded,
    finish,
    joined,
    missing,
    moment,
    number,
    sentences,
)

PANEL = 300
MOST_LINES = 6
QUARTILES = [0.25, 0.5, 0.75]


def steps_to_half(log_forget: np.ndarray, cap: float) -> np.ndarray:
    """Steps until half is forgotten, ln 0.5 / log f, at most `cap`; NaN stays NaN."""
    with np.errstate(divide="ignore"):
        half = np.log(0.5) / np.minimum(log_forget, -0.0)
    return np.where(np.isnan(log_forget), np.nan, np.clip(np.abs(half), SHORTEST, cap))


def groups(half: np.ndarray, unit_label: str) -> dict[str, np.ndarray]:
    """One line per head, or one for all where there are too many: name -> (time, unit)."""
    if half.ndim == 1:
        return {"half-life": half[:, None]}
    if half.shape[1] > MOST_LINES:
        flat = half.reshape(len(half), -1)
        return {f"median of {flat.shape[1]}": flat}
    return {f"{unit_label} {i}": half[:, i].reshape(len(half), -1) for i in range(half.shape[1])}


def draw(fig: go.Figure, name: str, look: Category, x: np.ndarray, values: np.ndarray, step_label: str) -> None:
    """The median of one group, and its quartiles as a band."""
    low, middle, high = quantiles(values, QUARTILES)
    if values.shape[1] > 1:
        for edge, fill in ((low, None), (high, "tonexty")):
            at, band, _ = min_max(x, edge)
            line = {"width": 0, "color": look.colour}
            style = {"fill": fill, "fillcolor": faded(look.colour, 0.18), "hoverinfo": "skip", "showlegend": False}
            fig.add_trace(go.Scatter(x=at, y=band.astype(np.float32), mode="lines", line=line, **style))
    at, thin, size = min_max(x, middle)
    note = f"<br>lowest and highest of each {size}" if size > 1 else ""
    fig.add_trace(
        go.Scatter(
            x=at,
            y=thin.astype(np.float32),
            name=name,
            mode="lines",
            line={"color": look.colour, "dash": look.dash},
            hovertemplate=f"{name}<br>{step_label} %{{x}}<br>half-life %{{y:.3g}} steps{note}<extra></extra>",
            showlegend=False,
        )
    )


def half_life(
    log_forget: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    title: str = "",
    cap: float | None = None,
    unit_label: str = "head",
    step_label: str = "step",
) -> go.Figure:
    """The half-life of a memory over time, ln 0.5 / log f in steps, on a log axis.

    Args:
        log_forget: natural log of the forget gate, 0 or less: (time,), (time, head) or
            (time, head, unit). Up to six heads get a line each, more are shown as median and
            quartiles; units of a head always are. NaN are gaps.
        steps: position of each time step, numbers or datetime64 (time,).
        title: the finding; without one, the median.
        cap: longest half-life drawn, in steps; the sequence length unless given.
        unit_label: what the second axis is.
        step_label: what the first axis is, with its unit if it has one.
    """
    log_f = as_numbers("log_forget", log_forget, "(time,), (time, head) or (time, head, unit)", 1, 2, 3)
    cap = float(len(log_f) if cap is None else cap)
    if not cap > SHORTEST:
        raise ValueError(f"cap={cap} steps is not above {SHORTEST}; pass the sequence length, or nothing.")
    x = as_steps("steps", steps, len(log_f))
    half = steps_to_half(log_f, cap)
    lines = groups(half, unit_label)
    looks = categories(list(lines), "half_life")
    if len(lines) == 1:
        looks = {name: look._replace(colour=PALETTE[0]) for name, look in looks.items()}
    fig = go.Figure()
    ends = []
    for name, values in lines.items():
        draw(fig, name, looks[name], x, values, step_label)
        end = last_point(x, quantiles(values, QUARTILES)[1])
        ends += [End(*end, name, looks[name])] if end else []
    low, high = axis_range([quantiles(values, QUARTILES) for values in lines.values()], cap)
    label_ends(fig, ends, low, high, PANEL, log=True)
    fig.update_xaxes(range=[x[0], x[-1]])
    decorate(fig, cap, len(log_f), low, high, step_label)
    typical = float(np.nanmedian(half)) if np.isfinite(half).any() else np.nan
    said = f"Half of the memory is gone after {number(typical)} steps (median)"
    said = said if np.isfinite(typical) else "No half-life to show"
    band = "line: median, band: middle half of the units" if any(v.shape[1] > 1 for v in lines.values()) else ""
    gaps = missing(int(np.isnan(half).sum()))
    return finish(
        fig,
        title=title or said,
        subtitle=joined(band, gaps),
        alt=describe(half, lines, x, cap, step_label, gaps),
        panel=PANEL,
        margin={"r": room_for(ends)},
    )


def axis_range(drawn: list[np.ndarray], cap: float) -> tuple[float, float]:
    """Whole decades below what is drawn, up to a little above the cap."""
    lowest = np.nanmin(np.concatenate([lines.ravel() for lines in drawn]), initial=1.0)
    return min(1.0, 10 ** np.floor(np.log10(lowest))) * 0.9, cap * 1.35


def decorate(fig: go.Figure, cap: float, length: int, low: float, high: float, step_label: str) -> None:
    """Decade ticks, and a line at the longest half-life drawn."""
    decades = np.arange(-1, np.floor(np.log10(cap)) + 1)
    fig.update_yaxes(
        type="log",
        range=np.log10([low, high]).tolist(),
        tickvals=(10**decades).tolist(),
        ticktext=[decade(power) for power in decades],
        title_text="half-life (steps)",
    )
    fig.update_xaxes(title_text=step_label)
    what = "sequence length" if cap == length else "longest drawn"
    fig.add_shape(type="line", xref="paper", x0=0, x1=1, y0=cap, y1=cap, line={"dash": "dot"}, layer="below")
    fig.add_annotation(
        xref="paper", x=0, xanchor="left", y=np.log10(cap), yanchor="bottom", text=f"{what}, {number(cap)} steps"
    )


def describe(
    half: np.ndarray, lines: dict[str, np.ndarray], x: np.ndarray, cap: float, step_label: str, gaps: str
) -> str:
    """The sentences that stand in for the half-life plot."""
    axes = (
        f"Line plot. Across: {step_label}, {moment(x[0])} to {moment(x[-1])}. "
        f"Up: half-life in steps, logarithmic, drawn from {SHORTEST} to {number(cap)}"
    )
    found = extremes(half)
    if found is None:
        return sentences(axes, "Every value is missing")
    low, high = found
    span = (
        f"Shortest {number(half[low])} steps ({step_label} {moment(x[low[0]])}), "
        f"longest {number(half[high])} ({step_label} {moment(x[high[0]])})"
    )
    medians = "Medians: " + ", ".join(
        f"{name} {number(np.nanmedian(v))}" for name, v in lines.items() if np.isfinite(v).any()
    )
    return sentences(axes, span, medians, gaps)
