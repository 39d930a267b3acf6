"""How much of a write is left later, step by step."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers, min_max, quantiles
from workbench.plots.lanes import log_axis
from workbench.plots.scales import decade
from workbench.plots.style import (
    PALETTE,
    Category,
    capital,
    categories,
    counted,
    faded,
    finish,
    joined,
    missing,
    number,
    sentences,
)

PANEL = 300
MOST_LINES = 6
FLOOR = 1e-4  # share of a write: less is drawn here on a logarithmic axis
QUARTILES = [0.25, 0.5, 0.75]
SHUT = -1000.0  # log of a gate that keeps nothing: exp of it is 0, and sums stay finite
DIMS = "(time,), (time, head) or (time, head, unit)"


def retention(
    log_forget: ArrayLike,
    at: Sequence[int] = (0,),
    *,
    lag: float | None = None,
    log: bool = False,
    title: str = "",
    head_label: str = "head",
    step_label: str = "step",
) -> go.Figure:
    """How much of a write is left in the steps after it: exp of the sum of log f from there on.

    Args:
        log_forget: natural log of the forget gate: (time,), (time, head) or (time, head, unit).
        at: steps of the writes, counted from 0. One write has a line for each head, up to six; several writes have
            a line each. What a line stands for, units and further heads, is drawn as median and quartiles.
        lag: steps after which the task needs the write: a vertical line, and the number in the title.
        log: both axes logarithmic.
        title: the finding; without one, what is left at the lag, or when half is gone.
        head_label, step_label: what the axes are.
    """
    log_f = as_numbers("log_forget", log_forget, DIMS, 1, 2, 3)
    writes = sorted({int(step) for step in at})
    if not writes or writes[0] < 0 or writes[-1] >= len(log_f):
        raise ValueError(f"at={list(at)} must name one step or more of 0 to {len(log_f) - 1}.")
    if len(writes) > MOST_LINES:
        raise ValueError(f"at has {len(writes)} writes, and {MOST_LINES} can be told apart; see memory_reach for all.")
    curves = left(log_f, writes, head_label, step_label)
    looks = categories(list(curves), "retention")
    if len(curves) == 1:
        looks = {name: look._replace(colour=PALETTE[0]) for name, look in looks.items()}
    fig, drawn = go.Figure(), []
    for name, values in curves.items():
        middle = curve(fig, name, looks[name], values, log, step_label)
        drawn.append(middle)
    high = max([1.0, *(float(np.fmax.reduce(line)) for line in drawn if np.isfinite(line).any())])
    low = max(FLOOR, min(float(np.fmin.reduce(line)) for line in drawn)) / 1.2 if log else 0.0
    last = max(len(line) - 1 for line in drawn)
    axes(fig, (low, high * (1.2 if log else 1.05)), last, lag, log, step_label)
    legend = {"x": 0, "y": 1 + 4 / PANEL, "yanchor": "bottom"}
    fig.update_layout(showlegend=len(curves) > 1, legend=legend)
    said = finding(curves, lag, step_label)
    gaps = missing(int(np.isnan(log_f[writes[0] + 1 :]).sum()), how="end a line")
    band = "line: median, band: middle half" if any(values.shape[1] > 1 for values in curves.values()) else ""
    floor = f"less than {number(FLOOR)} is drawn there" if log and low < FLOOR else ""
    return finish(
        fig,
        title=title or said[0],
        subtitle=joined(*([said[0]] if title else []), band, floor, gaps),
        alt=sentences(
            f"Line plot. Across: {step_label}s after the write, 0 to {last:,}{', logarithmic' if log else ''}. "
            f"Up: share of the write that is left{', logarithmic' if log else ''}",
            *said,
            gaps,
        ),
        panel=PANEL,
        margin={"t": 44 if len(curves) > 1 else 18},
    )


def left(log_f: np.ndarray, writes: list[int], head_label: str, step_label: str) -> dict[str, np.ndarray]:
    """What is left of each write from its own step on: name -> (steps after it, unit)."""
    heads = log_f.reshape(len(log_f), -1) if log_f.ndim < 3 else log_f
    curves = {}
    for write in writes:
        after = np.clip(heads[write:], SHUT, None)
        after[0] = 0.0
        kept = np.exp(np.cumsum(after, axis=0))
        if len(writes) == 1 and 1 < kept.shape[1] <= MOST_LINES:
            return {f"{head_label} {h}": kept[:, h].reshape(len(kept), -1) for h in range(kept.shape[1])}
        curves[f"written at {step_label} {write:,}"] = kept.reshape(len(kept), -1)
    return curves


def curve(fig: go.Figure, name: str, look: Category, values: np.ndarray, log: bool, step_label: str) -> np.ndarray:
    """One line with its band; returns the line (steps,)."""
    low, middle, high = quantiles(values, QUARTILES)
    style = {"mode": "lines", "legendgroup": name}
    if values.shape[1] > 1:
        fill = {"fillcolor": faded(look.colour, 0.18), "hoverinfo": "skip", "line": {"width": 0}, "showlegend": False}
        for edge, to in ((low, None), (high, "tonexty")):
            x, y, _ = thin(edge, log)
            fig.add_trace(go.Scatter(x=x, y=y, fill=to, **fill, **style))
    x, y, size = thin(middle, log)
    note = "" if size == 1 else "<br>some steps left out" if log else f"<br>lowest and highest of each {size}"
    hover = f"{name}<br>%{{y:.3g}} is left %{{x}} {step_label}s later{note}<extra></extra>"
    line = {"color": look.colour, "dash": look.dash}
    fig.add_trace(go.Scatter(x=x, y=y, name=name, line=line, hovertemplate=hover, **style))
    return middle


def thin(y: np.ndarray, log: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """A line as it is drawn; on logarithmic axes from step 1 on, with steps at equal distances there."""
    x = np.arange(len(y))
    if not log:
        x, y, size = min_max(x, y)
        return x, y.astype(np.float32), size
    keep = np.unique(np.geomspace(1, max(len(y) - 1, 1), 1500).round().astype(np.int64))
    keep = keep[keep < len(y)]
    return keep, np.maximum(y[keep], FLOOR).astype(np.float32), 1 if len(keep) >= len(y) - 1 else 2


def axes(fig: go.Figure, span: tuple[float, float], last: int, lag: float | None, log: bool, step_label: str) -> None:
    """Axes, the line of one half, and the task's lag."""
    fig.update_xaxes(title_text=f"{step_label}s after the write")
    fig.update_yaxes(title_text="share that is left")
    if log:
        end = np.log10(max(last, 2))
        powers = np.arange(0, np.floor(end) + 1)
        fig.update_xaxes(type="log", range=[0, end], tickvals=10**powers, ticktext=[decade(p) for p in powers])
        fig.update_yaxes(**log_axis(*span))
    else:
        fig.update_xaxes(range=[0, max(last, 1)])
        fig.update_yaxes(range=list(span), tickformat=".0%")
    fig.add_shape(type="line", xref="paper", x0=0, x1=1, y0=0.5, y1=0.5, line={"dash": "dot"}, layer="below")
    if lag is None:
        return
    fig.add_shape(type="line", x0=lag, x1=lag, yref="paper", y0=0, y1=1, line={"dash": "dash"}, layer="below")
    at = np.log10(max(lag, 1)) if log else lag
    side = "right" if lag > 0.8 * last else "left"
    shift = 4 if side == "left" else -4
    fig.add_annotation(
        x=at, yref="paper", y=1, text=f"the task's lag, {number(lag)}", xanchor=side, yanchor="top", xshift=shift
    )


def finding(curves: dict[str, np.ndarray], lag: float | None, step_label: str) -> list[str]:
    """What is left at the lag, and when half is gone, of each curve's median; the first sentence is the title."""
    medians = {name: quantiles(values, [0.5])[0] for name, values in curves.items()}
    halves = {name: first_below(line, 0.5) for name, line in medians.items()}
    said = [
        f"{name}: half is gone after {counted(step, step_label)}" if step else f"{name}: more than half is left"
        for name, step in halves.items()
    ]
    known = [step for step in halves.values() if step]
    head = "More than half of every write is left at the end"
    if known:
        ends = (min(known), max(known))
        head = f"Half of a write is gone after {ends[0]:,}" + (f" to {ends[1]:,}" if ends[1] > ends[0] else "")
        head += f" {step_label}{'' if ends == (1, 1) else 's'}"
        head += f" in {len(known)} of {len(halves)} lines" if len(known) < len(halves) else ""
    if lag is None:
        return [head, *said]
    kept = {name: float(line[int(lag)]) for name, line in medians.items() if lag < len(line)}
    there = [value for value in kept.values() if np.isfinite(value)]
    at = f"{lag:g} {step_label}s later"
    said += [f"{name}: {percent(value)} is left {at}" for name, value in kept.items()]
    if not there:
        return [f"No curve reaches {at}", *said]
    ends = [percent(value) for value in (min(there), max(there))]
    span = ends[0] if ends[0] == ends[1] else " to ".join(ends)
    return [capital(f"{span} of a write is left {at}"), head, *said]


def percent(share: float) -> str:
    """A share for prose; what is hardly there is not counted in powers of ten."""
    return f"{100 * share:.3g} %" if share >= 1e-4 else "less than 0.01 %"


def first_below(line: np.ndarray, level: float) -> int:
    """The first step on which a line is at or below a level, 0 if it never is."""
    below = line <= level
    return int(below.argmax()) if below.any() else 0
