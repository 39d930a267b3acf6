"""Effective attention: the weight of each past step in each answer, as a map or as one row."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from workbench.plots.arrays import as_numbers, as_steps, extremes, min_max
from workbench.plots.scales import scale_of
from workbench.plots.style import (
    MARKERS,
    PALETTE,
    capital,
    counted,
    finish,
    joined,
    missing,
    moment,
    number,
    sentences,
)

MAP, ROW, MASS, GAP = 400, 200, 96, 44
LONGEST = 512  # steps of a map
FEW = 200  # bars that get a head
LEVELS = (0.5, 0.9)


def attention_map(
    weights: ArrayLike,
    *,
    per_row: bool = False,
    steps: ArrayLike | None = None,
    title: str = "",
    step_label: str = "step",
) -> go.Figure:
    """The weight of each step in each answer as a triangle: answers down, steps read across.

    Args:
        weights: (T, T), answers down, 0 or NaN above the diagonal; at most 512 steps. Signed weights are kept
            signed, around white.
        per_row: each row divided by the sum of its absolute weights. Otherwise nothing is normalised.
        steps: position of each step, numbers or datetime64 (T,).
        title: the finding; without one, how far back half of the weight lies.
        step_label: what the axes are.
    """
    full = as_map(weights)
    x = as_steps("steps", steps, len(full))
    sums = np.nansum(np.abs(full), axis=1)
    drawn = full / np.where(sums > 0, sums, 1)[:, None] if per_row else full
    signed = bool(np.nanmin(drawn, initial=0.0) < 0)
    below = np.tril(np.ones(full.shape, bool))
    inside = np.where(below, drawn, np.nan)
    scale = scale_of("signed" if signed else "positive", inside, len(full))
    hover = f"answer at {step_label} %{{y}}<br>reads {step_label} %{{x}}<br>weight %{{z:.4g}}<extra></extra>"
    heat = {"coloraxis": "coloraxis", "hoverongaps": False, "hovertemplate": hover}
    fig = go.Figure(go.Heatmap(z=inside.astype(np.float32), x=x, y=x, **heat))
    fig.update_layout(coloraxis=scale.axis(title={"text": "share of the row" if per_row else "weight"}))
    fig.update_xaxes(title_text=f"{step_label} that is read")
    fig.update_yaxes(title_text=f"answer at {step_label}", autorange="reversed", showgrid=False)
    gaps = missing(int(np.isnan(full[below]).sum()), "weight")
    said = (
        "each row divided by the sum of its absolute weights"
        if per_row
        else f"not normalised: absolute weights of a row add up to {number(sums.min())} … {number(sums.max())}"
    )
    back = look_back(full[-1], LEVELS)
    last = f"Last row: {words_back(back, step_label)}" if sums[-1] > 0 else "The last row is empty"
    return finish(
        fig,
        title=title or last,
        subtitle=joined(said, scale.note, gaps),
        alt=sentences(
            f"Lower triangle of a heat map, {'signed' if signed else 'no weight below 0'}. "
            f"Down: answers at {step_label} {moment(x[0])} to {moment(x[-1])}. Across: the {step_label}s they read",
            heaviest(inside, x, step_label),
            last,
            capital(said),
            gaps,
        ),
        panel=MAP,
        margin={"r": 84},
    )


def as_map(weights: ArrayLike) -> np.ndarray:
    """A lower triangle of weights (T, T), or an error that says what was received."""
    full = as_numbers("weights", weights, "(T, T): one batch element and one head", 2)
    if full.shape[0] != full.shape[1]:
        raise ValueError(f"weights has shape {full.shape}; a map needs as many answers as steps. See attention_row.")
    if len(full) > LONGEST:
        raise ValueError(
            f"weights has {len(full):,} steps, and a map shows {LONGEST} at most; cut out a stretch, draw one answer "
            "with attention_row, or all of them with coverage."
        )
    if np.nan_to_num(np.triu(full, 1)).any():
        raise ValueError("weights above the diagonal are not 0: an answer would read what comes later. Transpose it?")
    return np.where(np.isfinite(full), full, np.nan)


def look_back(row: np.ndarray, levels: tuple[float, ...]) -> list[int]:
    """How many steps back from the end hold these shares of the absolute weight."""
    mass = np.cumsum(np.nan_to_num(np.abs(row))[::-1])
    if mass[-1] == 0:
        return [0 for _ in levels]
    return [int(np.searchsorted(mass, level * mass[-1] * (1 - 1e-12))) + 1 for level in levels]


def words_back(back: list[int], step_label: str) -> str:
    """How far back the weight lies, in words."""
    return f"half of the weight in the last {counted(back[0], step_label)}, 90 % in the last {back[1]:,}"


def heaviest(inside: np.ndarray, x: np.ndarray, step_label: str) -> str:
    """The lowest and highest weight of a map, in words."""
    found = extremes(inside)
    if found is None:
        return "Every value is missing"
    low, high = (f"{number(inside[at])} (answer {moment(x[at[0]])}, {step_label} {moment(x[at[1]])})" for at in found)
    return f"Weights from {low} to {high}"


def attention_row(
    weights: ArrayLike,
    *,
    step: int | None = None,
    steps: ArrayLike | None = None,
    title: str = "",
    step_label: str = "step",
) -> go.Figure:
    """The weight of each step in one answer, and below how far back one must look for how much of it.

    Args:
        weights: (T,), signed; what comes after the answer is left out.
        step: the answer's own step, counted from 0; the last one unless given.
        steps: position of each step, numbers or datetime64 (T,).
        title: the finding; without one, how far back half of the weight lies.
        step_label: what the axis is.
    """
    row = as_numbers("weights", weights, "(T,): one batch element, one head, one answer", 1)
    step = len(row) - 1 if step is None else step
    if not 0 <= step < len(row):
        raise ValueError(f"step={step} is not one of 0 to {len(row) - 1}.")
    x = as_steps("steps", steps, len(row))[: step + 1]
    row = np.where(np.isfinite(row), row, np.nan)[: step + 1]
    panel = ROW + GAP + MASS
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[ROW, MASS], vertical_spacing=GAP / panel)
    pooled = stems(fig, row, x, step_label)
    back, total = look_back(row, LEVELS), float(np.nansum(np.abs(row)))
    cumulated(fig, row, x, back, step_label)
    fig.update_yaxes(title_text="weight", nticks=5, row=1, col=1)
    air = (x[-1] - x[0]) / 100
    fig.update_xaxes(range=[x[0] - air, x[-1] + air] if len(x) > 1 else None)
    fig.update_xaxes(title_text=f"{step_label} that is read", row=2, col=1)
    gaps = missing(int(np.isnan(row).sum()), "weight")
    last = words_back(back, step_label) if total else "every weight is 0"
    signs = f"absolute weights add up to {number(total)}, signed to {number(np.nansum(row))}"
    found = extremes(row)
    ends = "" if found is None else " to ".join(f"{number(row[i])} ({step_label} {moment(x[i])})" for (i,) in found)
    return finish(
        fig,
        title=title or capital(last),
        subtitle=joined(last if title else "", signs, pooled, gaps),
        alt=sentences(
            f"Stems over time, {step_label} {moment(x[0])} on: what the answer at {step_label} {moment(x[-1])} reads",
            f"Weights from {ends}" if ends else "Every value is missing",
            capital(last),
            capital(signs),
            gaps,
        ),
        panel=panel,
    )


def stems(fig: go.Figure, row: np.ndarray, x: np.ndarray, step_label: str) -> str:
    """Stems up and down from 0, with heads where there are few; returns what a reader must know of thinning."""
    at, thin, size = min_max(x, row)
    for sign, name, colour in ((1, "positive", PALETTE[0]), (-1, "negative", PALETTE[3])):
        there = sign * thin > 0
        feet = np.zeros(int(there.sum()))
        y = np.stack([feet, thin[there], np.full(len(feet), np.nan)], axis=1).ravel().astype(np.float32)
        stem = {"mode": "lines", "line": {"color": colour, "width": 1.5}, "hoverinfo": "skip", "showlegend": False}
        fig.add_trace(go.Scatter(x=np.repeat(at[there], 3), y=y, **stem), row=1, col=1)
        head = go.Scatter(
            x=at[there],
            y=thin[there].astype(np.float32),
            mode="markers",
            marker={"color": colour, "size": 6 if len(thin) <= FEW else 2},
            hovertemplate=f"{step_label} %{{x}}<br>{name} weight %{{y:.4g}}<extra></extra>",
            showlegend=False,
        )
        fig.add_trace(head, row=1, col=1)
    fig.add_shape(type="line", xref="x domain", x0=0, x1=1, yref="y", y0=0, y1=0, line={"width": 1}, layer="below")
    return f"lowest and highest of each {size} {step_label}s" if size > 1 else ""


def cumulated(fig: go.Figure, row: np.ndarray, x: np.ndarray, back: list[int], step_label: str) -> None:
    """Below: the share of the absolute weight from each step to the answer, a dot where it reaches a level."""
    mass = np.cumsum(np.nan_to_num(np.abs(row))[::-1])[::-1]
    at, thin, _ = min_max(x, mass / (mass[0] or 1.0))
    look = {"mode": "lines", "line": {"color": PALETTE[0], "shape": "vh" if len(row) <= FEW else "linear"}}
    hover = f"{step_label} %{{x}} to the answer<br>%{{y:.1%}} of the absolute weight<extra></extra>"
    curve = go.Scatter(x=at, y=thin.astype(np.float32), hovertemplate=hover, showlegend=False, **look)
    fig.add_trace(curve, row=2, col=1)
    there = [(x[len(row) - far], level) for far, level in zip(back, LEVELS, strict=True) if far]
    dots = {"size": 9, "color": PALETTE[3], "symbol": list(MARKERS[: len(there)])}
    hover = "%{y:.0%} of the absolute weight from %{x} on<extra></extra>"
    marks = {"mode": "markers", "marker": dots, "hovertemplate": hover, "showlegend": False}
    fig.add_trace(go.Scatter(x=[at for at, _ in there], y=[level for _, level in there], **marks), row=2, col=1)
    fig.update_yaxes(range=[0, 1.06], tickvals=[0, *LEVELS], tickformat=".0%", row=2, col=1)
    where = {"xref": "paper", "yref": "y2 domain", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"}
    fig.add_annotation(text="Share of the absolute weight from here to the answer", yshift=4, **where)
