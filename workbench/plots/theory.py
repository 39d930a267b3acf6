"""What was measured, as dots with their uncertainty, beside what theory expects, as lines."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers
from workbench.plots.labels import End, label_ends, last_point, room_for
from workbench.plots.style import Category, categories, finish, missing, number, sentences

PANEL = 340
NORMAL_95 = 1.96


def against_theory(
    x: ArrayLike,
    measured: Mapping[str, ArrayLike],
    expected: Mapping[str, ArrayLike] | None = None,
    *,
    x_label: str,
    y_label: str,
    at: tuple[str, float] | None = None,
    level: tuple[str, float] | None = None,
    log_x: bool = False,
    title: str = "",
) -> go.Figure:
    """Means over repetitions as dots with 95 % bars, theory as lines: dashed where nothing was measured.

    Args:
        x: what was varied (X,), rising; above 0 when `log_x`.
        measured: name to one row for each repetition (S, X), two or more of them.
        expected: name to theory (X,). A name that was measured too has the same colour.
        x_label, y_label: what the axes are, with units.
        at: name and position of a vertical line, such as a capacity.
        level: name and height of a horizontal line, such as chance.
        log_x: logarithmic x axis, a tick at each x.
        title: the finding; without one, the name with the smallest mean.
    """
    x = as_numbers("x", x, "(X,)", 1)
    dots = {name: as_repeats(name, rows, len(x)) for name, rows in measured.items()}
    lines = {name: as_line(name, line, len(x)) for name, line in (expected or {}).items()}
    if not dots:
        raise ValueError("measured is empty; pass at least one name with its repetitions (S, X).")
    looks = categories([*dots, *(name for name in lines if name not in dots)], "against_theory")
    fig, ends = go.Figure(), []
    for name, line in lines.items():
        draw_line(fig, name, looks[name].colour, "solid" if name in dots else "dash", x, line, x_label)
    for name, rows in dots.items():
        draw_dots(fig, name, looks[name], x, rows, joined=name not in lines, x_label=x_label)
    for name, look in looks.items():
        end = last_point(np.log10(x) if log_x else x, dots[name].mean(0) if name in dots else lines[name])
        ends += [End(*end, name, look)] if end else []
    values = [*(np.concatenate([rows.mean(0) + bar(rows), rows.mean(0) - bar(rows)]) for rows in dots.values())]
    values = np.concatenate([*values, *lines.values(), *([[level[1]]] if level else [])])
    low, high = min(0.0, float(np.nanmin(values, initial=0.0))), 1.06 * float(np.nanmax(values, initial=1e-9))
    label_ends(fig, ends, low, high, PANEL)
    decorate(fig, x, (low, high), at, level, log_x)
    fig.update_xaxes(title_text=x_label)
    fig.update_yaxes(title_text=y_label)
    counts = sorted({len(rows) for rows in dots.values()})
    gaps = missing(int(sum(np.isnan(rows).sum() for rows in dots.values())))
    notes = [f"dots: mean of {' or '.join(map(str, counts))} repetitions, bars: 95 % interval"]
    notes += ["lines: theory"] if lines else []
    means = {name: float(np.nanmean(rows)) for name, rows in dots.items() if np.isfinite(rows).any()}
    said = f"{min(means, key=means.get)} has the smallest mean" if means else "Every value is missing"
    return finish(
        fig,
        title=title or said,
        subtitle=" · ".join([*notes, *([gaps] if gaps else [])]),
        alt=describe(x, dots, lines, x_label, y_label, gaps),
        panel=PANEL,
        margin={"r": room_for(ends)},
    )


def draw_line(fig: go.Figure, name: str, colour: str, dash: str, x: np.ndarray, line: np.ndarray, x_label: str) -> None:
    """One line of theory."""
    style = {"mode": "lines", "line": {"color": colour, "dash": dash}, "showlegend": False}
    hover = f"{name}, theory<br>{x_label} %{{x}}<br>%{{y:.3g}}<extra></extra>"
    fig.add_trace(go.Scatter(x=x, y=line, name=f"{name}, theory", hovertemplate=hover, **style))


def as_repeats(name: str, rows: ArrayLike, length: int) -> np.ndarray:
    """Repetitions (S, X) as numbers, or an error that says what was expected."""
    rows = as_numbers(f"measured[{name!r}]", rows, "(S, X)", 2)
    if len(rows) < 2 or rows.shape[1] != length:
        raise ValueError(
            f"measured[{name!r}] has shape {rows.shape}; pass two repetitions or more, {length} values each."
        )
    return rows


def as_line(name: str, line: ArrayLike, length: int) -> np.ndarray:
    """A line of theory as numbers, or an error that says what was expected."""
    line = as_numbers(f"expected[{name!r}]", line, "(X,)", 1)
    if len(line) != length:
        raise ValueError(f"expected[{name!r}] has {len(line)} values, and x has {length}; pass one for each x.")
    return line


def bar(rows: np.ndarray) -> np.ndarray:
    """Half of the 95 % interval of the mean over repetitions (X,), from their normal approximation."""
    return NORMAL_95 * rows.std(0, ddof=1) / np.sqrt(len(rows))


def draw_dots(
    fig: go.Figure, name: str, look: Category, x: np.ndarray, rows: np.ndarray, *, joined: bool, x_label: str
) -> None:
    """The means with their bars, joined by a thin line where theory draws none."""
    fig.add_trace(
        go.Scatter(
            x=x,
            y=rows.mean(0),
            name=name,
            mode="lines+markers" if joined else "markers",
            line={"color": look.colour, "dash": look.dash, "width": 1.5},
            marker={"symbol": look.marker, "color": look.colour, "size": 8},
            error_y={"array": bar(rows), "color": look.colour, "thickness": 1.5, "width": 3},
            customdata=bar(rows),
            hovertemplate=f"{name}<br>{x_label} %{{x}}<br>%{{y:.3g}} ± %{{customdata:.2g}}<extra></extra>",
            showlegend=False,
        )
    )


def decorate(
    fig: go.Figure,
    x: np.ndarray,
    span: tuple[float, float],
    at: tuple[str, float] | None,
    level: tuple[str, float] | None,
    log_x: bool,
) -> None:
    """Axes with some air, and the two lines that a reader compares with."""
    place = np.log10 if log_x else np.asarray
    first, last = float(place(x[0])), float(place(x[-1]))
    air = 0.03 * ((last - first) or 1.0)
    fig.update_xaxes(range=[first - air, last + air])
    fig.update_yaxes(range=list(span))
    if log_x:
        fig.update_xaxes(type="log", tickvals=x, ticktext=[number(value) for value in x])
    if at:
        fig.add_shape(type="line", x0=at[1], x1=at[1], yref="paper", y0=0, y1=1, line={"dash": "dot"}, layer="below")
        fig.add_annotation(
            x=float(place(at[1])), yref="paper", y=1, text=at[0], xanchor="right", yanchor="top", xshift=-4
        )
    if level:
        fig.add_shape(
            type="line", xref="paper", x0=0, x1=1, y0=level[1], y1=level[1], line={"dash": "dot"}, layer="below"
        )
        fig.add_annotation(xref="paper", x=0, y=level[1], text=level[0], xanchor="left", yanchor="bottom", xshift=4)


def describe(
    x: np.ndarray, dots: dict[str, np.ndarray], lines: dict[str, np.ndarray], x_label: str, y_label: str, gaps: str
) -> str:
    """The sentences that stand in for the figure."""
    spoken = []
    for name, rows in dots.items():
        mean = rows.mean(0)
        said = f"{name}: {number(mean[0])} at {number(x[0])}, {number(mean[-1])} at {number(x[-1])}"
        if name in lines:
            inside = int((np.abs(mean - lines[name]) <= bar(rows) + 1e-12).sum())
            said += f"; theory lies within the interval at {inside} of {len(x)} places"
        spoken.append(said)
    only = (f"{name}, theory alone: {number(y[0])} to {number(y[-1])}" for name, y in lines.items() if name not in dots)
    axes = f"Dot plot with lines. Across: {x_label}, {number(x[0])} to {number(x[-1])}. Up: {y_label}"
    return sentences(axes, *spoken, *only, gaps)
