"""How a training went: losses over steps, and the best point."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers, min_max
from workbench.plots.labels import End, label_ends, last_point, room_for
from workbench.plots.scales import round_values
from workbench.plots.style import Category, categories, finish, joined, missing, number, sentences

PANEL = 300


def loss_curves(
    losses: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    *,
    log: bool = False,
    loss_label: str = "loss",
    step_label: str = "step",
    title: str = "",
) -> go.Figure:
    """Training and validation loss of each run, the best validation loss ringed.

    Args:
        losses: name -> (steps, train, valid), each (S,); NaN where a loss was not measured.
        log: logarithmic loss axis.
        loss_label: what the loss is, with its unit.
        step_label: what a step is.
        title: the finding; without one, the best validation loss.
    """
    if not losses:
        raise ValueError("losses is empty; pass at least one name with (steps, train, valid).")
    curves = {name: as_curve(name, given) for name, given in losses.items()}
    looks = categories(list(curves), "loss_curves")
    fig, ends, best = go.Figure(), [], {}
    for name, (steps, train, valid) in curves.items():
        look = looks[name]
        add_line(fig, f"{name}, training", steps, train, look, step_label, faint=True)
        add_line(fig, f"{name}, validation", steps, valid, look, step_label, faint=False)
        shown = valid if np.isfinite(valid).any() else train
        end = last_point(*solid(steps, shown))
        ends += [End(*end, name, look)] if end else []
        if np.isfinite(valid).any():
            at = int(np.nanargmin(valid))
            best[name] = (steps[at], float(valid[at]))
            mark_best(fig, name, *best[name], look)
    low, high = loss_range(list(curves.values()), log)
    label_ends(fig, ends, low, high, PANEL, log=log)
    span = np.log10([low, high]).tolist() if log else [low, high]
    fig.update_yaxes(type="log" if log else "linear", range=span, title_text=loss_label)
    if log:
        fig.update_yaxes(tickvals=round_values(low, high), tickformat="~g")
    first, last = min(c[0].min() for c in curves.values()), max(c[0].max() for c in curves.values())
    fig.update_xaxes(title_text=step_label, range=[first, last])
    ranked = sorted(best, key=lambda name: best[name][1])
    spoken = [f"{name}: best validation {number(best[name][1])} at {number(best[name][0])}" for name in ranked]
    ranked_title = f"{ranked[0]} reaches the lowest {loss_label}, {number(best[ranked[0]][1])}" if ranked else ""
    notes = ["bold: validation, with its best point ringed · faint: training"]
    notes += [missing(sum(int(np.isnan(train).sum()) for _, train, _ in curves.values()), "training loss")]
    return finish(
        fig,
        title=title or ranked_title or "Losses, without a validation",
        subtitle=joined(*notes),
        alt=sentences(
            f"Line plot. Across: {step_label}. Up: {loss_label}{', logarithmic' if log else ''}{span_words(curves)}",
            *spoken,
            notes[1],
        ),
        panel=PANEL,
        margin={"r": room_for(ends)},
    )


def span_words(curves: dict[str, tuple[np.ndarray, ...]]) -> str:
    """Smallest and largest loss in words, or nothing where none was measured."""
    values = np.concatenate([solid(curve[0], array)[1] for curve in curves.values() for array in curve[1:]])
    return f", from {number(values.min())} to {number(values.max())}" if values.size else ""


def as_curve(name: str, given: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, training and validation loss, of one length."""
    if len(given) != 3:
        raise ValueError(f"losses[{name!r}] has {len(given)} parts; pass (steps, train, valid).")
    arrays = [
        as_numbers(f"losses[{name!r}] {part}", array, "(S,)", 1)
        for part, array in zip(("steps", "train", "valid"), given, strict=True)
    ]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"losses[{name!r}] has lengths {lengths}; pass as many train and valid losses as steps.")
    return arrays[0], arrays[1], arrays[2]


def solid(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that were measured: losses are taken at different steps, so gaps are no news."""
    there = np.isfinite(y)
    return x[there], y[there]


def add_line(
    fig: go.Figure, name: str, steps: np.ndarray, loss: np.ndarray, look: Category, step_label: str, *, faint: bool
) -> None:
    """One loss as a line."""
    x, y, size = min_max(*solid(steps, loss))
    note = f"<br>lowest and highest of each {size}" if size > 1 else ""
    fig.add_trace(
        go.Scatter(
            x=x,
            y=y.astype(np.float32),
            name=name,
            mode="lines",
            opacity=0.5 if faint else 1.0,
            line={"color": look.colour, "dash": "solid" if faint else look.dash, "width": 1.5 if faint else 2.4},
            hovertemplate=f"{name} %{{y:.4g}}<br>{step_label} %{{x}}{note}<extra></extra>",
            showlegend=False,
        )
    )


def mark_best(fig: go.Figure, name: str, step: float, loss: float, look: Category) -> None:
    """A ring around the best validation loss."""
    ring = {"size": 12, "symbol": "circle-open", "color": look.colour, "line": {"width": 2}}
    hover = f"{name}, best<br>%{{y:.4g}} at %{{x}}<extra></extra>"
    fig.add_trace(go.Scatter(x=[step], y=[loss], mode="markers", marker=ring, hovertemplate=hover, showlegend=False))


def loss_range(curves: list[tuple[np.ndarray, ...]], log: bool) -> tuple[float, float]:
    """The range of the loss axis, with some air; positive when `log`."""
    values = np.concatenate([array[np.isfinite(array)] for curve in curves for array in curve[1:]])
    values = values[values > 0] if log else values
    if values.size == 0:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        return low / 1.15, high * 1.15
    air = 0.06 * (high - low or abs(high) or 1.0)
    return low - air, high + air
