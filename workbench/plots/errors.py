"""How wrong each model is: by hours ahead, and over seeds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers
from workbench.plots.labels import End, label_ends, last_point, room_for
from workbench.plots.style import Category, categories, finish, missing, number, sentences

PANEL = 300
ROW = 38  # px for one model


def errors_by_horizon(
    errors: Mapping[str, ArrayLike], *, step_hours: float, unit: str = "", title: str = ""
) -> go.Figure:
    """How the error grows with the distance of the forecast.

    Args:
        errors: name -> mean absolute error at each forecast step (P,).
        step_hours: hours from one step to the next.
        unit: of the error.
        title: the finding; without one, the model with the smallest mean.
    """
    if not errors:
        raise ValueError("errors is empty; pass at least one name with its errors (P,).")
    lines = {name: as_numbers(f"errors[{name!r}]", values, "(P,)", 1) for name, values in errors.items()}
    lengths = {len(line) for line in lines.values()}
    if len(lengths) > 1:
        raise ValueError(f"errors have different lengths {sorted(lengths)}; pass the same steps ahead for each name.")
    hours = np.arange(1, lengths.pop() + 1) * step_hours
    looks = categories(list(lines), "errors_by_horizon")
    fig, ends = go.Figure(), []
    for name, line in lines.items():
        look = looks[name]
        fig.add_trace(
            go.Scatter(
                x=hours,
                y=line,
                name=name,
                mode="lines" if len(hours) > 30 else "lines+markers",
                line={"color": look.colour, "dash": look.dash, "width": 2},
                marker={"symbol": look.marker, "color": look.colour, "size": 7},
                hovertemplate=f"{name} %{{y:.4g}} {unit}<extra></extra>",
                showlegend=False,
            )
        )
        end = last_point(hours, line)
        ends += [End(*end, name, look)] if end else []
    finite = np.concatenate([line[np.isfinite(line)] for line in lines.values()])
    high = 1.08 * float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    label_ends(fig, ends, 0.0, high, PANEL)
    fig.update_yaxes(range=[0, high], title_text=f"mean absolute error ({unit})" if unit else "mean absolute error")
    fig.update_xaxes(title_text="hours ahead", range=[0, hours[-1] * 1.01])
    fig.update_layout(hovermode="x unified")
    means = {name: float(np.nanmean(line)) for name, line in lines.items() if np.isfinite(line).any()}
    ranked = sorted(means, key=means.get)
    gaps = missing(int(sum(np.isnan(line).sum() for line in lines.values())))
    return finish(
        fig,
        title=title or (f"{ranked[0]} has the smallest mean error" if ranked else "No errors to show"),
        subtitle=gaps,
        alt=sentences(
            f"Line plot. Across: {number(hours[0])} to {number(hours[-1])} hours ahead. Up: mean absolute error, "
            f"{unit or 'in units of the data'}, from 0",
            *(growth(name, lines[name], hours) for name in ranked),
            gaps,
        ),
        panel=PANEL,
        margin={"r": room_for(ends)},
    )


def growth(name: str, line: np.ndarray, hours: np.ndarray) -> str:
    """One line in words: its mean, and its ends."""
    there = np.flatnonzero(np.isfinite(line))
    low, high = there[line[there].argmin()], there[line[there].argmax()]
    return (
        f"{name}: mean {number(np.nanmean(line))}, smallest {number(line[low])} at {number(hours[low])} h, "
        f"largest {number(line[high])} at {number(hours[high])} h"
    )


class Spread(NamedTuple):
    """An error with its uncertainty; `seeds` is empty where only an interval is known."""

    mean: float
    low: float
    high: float
    seeds: np.ndarray


def as_spread(name: str, given: ArrayLike | tuple[float, float, float] | Mapping) -> Spread:
    """An error as mean and interval, from seeds or as it was given."""
    if isinstance(given, Mapping):
        if set(given) != {"mean", "low", "high"}:
            raise ValueError(f"errors[{name!r}] has the keys {sorted(given)}; pass 'mean', 'low' and 'high'.")
        given = (given["mean"], given["low"], given["high"])
    if isinstance(given, tuple):
        if len(given) != 3 or not given[1] <= given[0] <= given[2]:
            raise ValueError(
                f"errors[{name!r}] = {given} is not (mean, low, high) with low <= mean <= high; "
                "pass values of several seeds as a list or an array."
            )
        return Spread(*(float(part) for part in given), seeds=np.array([]))
    seeds = as_numbers(f"errors[{name!r}]", given, "one value per seed", 1)
    if np.isnan(seeds).any():
        raise ValueError(f"errors[{name!r}] has {int(np.isnan(seeds).sum())} missing seeds; leave them out.")
    return Spread(float(seeds.mean()), float(seeds.min()), float(seeds.max()), seeds)


def error_bars(
    errors: Mapping[str, ArrayLike | tuple[float, float, float] | Mapping[str, float]],
    *,
    unit: str = "",
    title: str = "",
    interval: str = "interval as given",
) -> go.Figure:
    """Each model's error as a dot with its spread, smallest on top.

    Args:
        errors: name -> values of several seeds (a list or an array), or (mean, low, high) as a tuple
            or with these keys. Seeds are drawn one by one; the bar is then their range.
        unit: of the error.
        title: the finding; without one, the smallest.
        interval: what low and high are, where they were given: "95 % bootstrap interval".
    """
    if not errors:
        raise ValueError("errors is empty; pass at least one name with its seeds or its (mean, low, high).")
    spreads = {name: as_spread(name, given) for name, given in errors.items()}
    looks = categories(list(spreads), "error_bars")
    ranked = sorted(spreads, key=lambda name: spreads[name].mean)
    fig = go.Figure()
    digits = decimals([s.mean for s in spreads.values()])
    fig.add_annotation(
        text="<b>mean</b>  low – high", xref="paper", yref="paper", x=1.02, y=1, xanchor="left", yanchor="bottom"
    )
    written = [numbers_of(spreads[name], digits) for name in ranked]
    for row, name in enumerate(ranked):
        draw_row(fig, row, name, spreads[name], looks[name], unit)
        fig.add_annotation(xref="paper", x=1.02, y=row, xanchor="left", text="<b>{}</b>{}".format(*written[row]))
    low, high = min(s.low for s in spreads.values()), max(s.high for s in spreads.values())
    air = 0.06 * (high - low or abs(high) or 1.0)
    fig.update_yaxes(
        range=[len(ranked) - 0.5, -0.5], tickvals=list(range(len(ranked))), ticktext=ranked, showgrid=False
    )
    fig.update_xaxes(
        range=[low - air, high + air], showgrid=True, title_text=f"mean absolute error ({unit})" if unit else "error"
    )
    counts = sorted({len(s.seeds) for s in spreads.values() if len(s.seeds)})
    stated = [f"bar: range over n = {' or '.join(str(n) for n in counts)} seeds, one faint dot each"] if counts else []
    stated += [f"bar: {interval}"] if any(len(s.seeds) == 0 for s in spreads.values()) else []
    rows = (f"{name}: {number(s.mean)} ({number(s.low)} to {number(s.high)})" for name, s in spreads.items())
    return finish(
        fig,
        title=title or f"{ranked[0]} has the smallest error, {number(spreads[ranked[0]].mean)} {unit}".rstrip(),
        subtitle=" · ".join(["dot: mean", *stated]),
        alt=sentences(
            f"Dot plot with {len(ranked)} rows, smallest error on top. Across: error, {unit or 'in units of the data'}",
            "; ".join(sorted(rows, key=lambda row: ranked.index(row.rsplit(": ", 1)[0]))),
            "; ".join(stated),
        ),
        panel=ROW * len(ranked) + 12,
        margin={"r": max(150, 30 + 7 * max(len("".join(each)) for each in written)), "t": 26},
    )


def draw_row(fig: go.Figure, row: int, name: str, spread: Spread, look: Category, unit: str) -> None:
    """One model: the interval, the seeds, the mean."""
    hover = f"{name}<br>mean {spread.mean:.4g} {unit}<br>{spread.low:.4g} to {spread.high:.4g}<extra></extra>"
    line = {"color": look.colour, "width": 3}
    fig.add_trace(
        go.Scatter(
            x=[spread.low, spread.high], y=[row, row], mode="lines", line=line, hoverinfo="skip", showlegend=False
        )
    )
    fig.add_trace(
        go.Scatter(
            x=spread.seeds,
            y=np.full(len(spread.seeds), row + 0.22),
            mode="markers",
            marker={"size": 6, "color": look.colour, "opacity": 0.6},
            hovertemplate=f"{name}, one seed<br>%{{x:.4g}} {unit}<extra></extra>",
            showlegend=False,
        )
    )
    marker = {"size": 11, "symbol": look.marker, "color": look.colour}
    fig.add_trace(
        go.Scatter(x=[spread.mean], y=[row], mode="markers", marker=marker, hovertemplate=hover, showlegend=False)
    )


def decimals(values: list[float]) -> int:
    """Decimals that give the smallest of the values three significant digits."""
    smallest = min((abs(value) for value in values if value), default=1.0)
    return int(np.clip(2 - np.floor(np.log10(smallest)), 0, 6))


def numbers_of(spread: Spread, digits: int) -> tuple[str, str]:
    """The mean of one model, and its range where it has one, as they stand right of its row."""
    span = "" if spread.low == spread.high else f"  {spread.low:,.{digits}f} – {spread.high:,.{digits}f}"
    return f"{spread.mean:,.{digits}f}", span
