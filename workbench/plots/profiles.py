"""What a series looks like: days under each other, or many series side by side."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from workbench.plots.arrays import as_numbers, as_steps, extremes, min_max
from workbench.plots.style import SEQUENTIAL, counted, finish, joined, missing, moment, number, sentences

DAY = np.timedelta64(86_400, "s")
FINEST = np.timedelta64(300, "s")  # one column of the heat map; finer series show means
COLUMNS, PANEL, GAP = 4, 58, 30  # px: one small panel, and the space to the next


def profile(
    times: ArrayLike,
    values: ArrayLike,
    *,
    names: list[str] | None = None,
    unit: str = "",
    title: str = "",
    columns: int = COLUMNS,
) -> go.Figure:
    """One series as day by time of day, or several as small lines on one shared scale.

    Args:
        times: datetime64 (T,), in order.
        values: (T,) for the heat map of one series, (T, series) for small multiples. NaN are gaps.
        names: one per series.
        unit: of the values.
        title: the finding; without one, what is shown.
        columns: panels in a row.
    """
    array = as_numbers("values", values, "(T,) or (T, series)", 1, 2)
    x = as_steps("times", times, len(array))
    if not np.issubdtype(x.dtype, np.datetime64):
        raise ValueError(f"times has dtype {x.dtype}; profile needs datetime64, as in times.astype('datetime64[s]').")
    if array.ndim == 1:
        return days(x, array, unit, title)
    names = [f"series {i}" for i in range(array.shape[1])] if names is None else [str(name) for name in names]
    if len(names) != array.shape[1]:
        raise ValueError(
            f"names has {len(names)} entries, and values has {array.shape[1]} series; pass one per series."
        )
    return multiples(x, array, names, unit, title, columns)


def finest(x: np.ndarray) -> np.timedelta64:
    """The usual distance of two moments."""
    gaps = np.diff(x.astype("datetime64[s]"))
    gaps = gaps[gaps > np.timedelta64(0, "s")]
    return np.median(gaps).astype("timedelta64[s]") if len(gaps) else DAY


def slots(x: np.ndarray) -> np.timedelta64:
    """The length of a column: the usual distance, at least five minutes and at most a day."""
    return min(max(finest(x), FINEST), DAY)


class Days(NamedTuple):
    """A series cut into days."""

    grid: np.ndarray  # (day, slot), NaN where nothing was measured
    first: np.datetime64
    step: np.timedelta64  # length of a slot
    gaps: int  # empty slots between the first and the last value


def by_day(x: np.ndarray, values: np.ndarray) -> Days:
    """Means of the values in each slot of each day."""
    step = slots(x)
    dates = x.astype("datetime64[D]")
    row = (dates - dates.min()).astype(int)
    column = ((x.astype("datetime64[s]") - dates) // step).astype(int)
    shape = (row.max() + 1, int(np.ceil(DAY / step)))
    place, there = row * shape[1] + column, np.isfinite(values)
    total = np.bincount(place[there], values[there], minlength=shape[0] * shape[1])
    count = np.bincount(place[there], minlength=shape[0] * shape[1])
    grid = np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(shape)
    gaps = int((count[place.min() : place.max() + 1] == 0).sum())
    return Days(grid.astype(np.float32), dates.min(), step, gaps)


def days(x: np.ndarray, values: np.ndarray, unit: str, title: str) -> go.Figure:
    """Heat map of one series: days down, time of day across."""
    cut = by_day(x, values)
    rows, columns = cut.grid.shape
    minutes = np.arange(columns) * (cut.step / np.timedelta64(1, "m"))
    clock = [f"{int(minute) // 60:02d}:{int(minute) % 60:02d}" for minute in minutes]
    heat = go.Heatmap(
        z=cut.grid,
        x=(minutes + minutes[-1] / max(columns - 1, 1) / 2) / 60 if columns > 1 else [12],
        y=cut.first + np.arange(rows),
        customdata=np.tile(clock, (rows, 1)),
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate=f"%{{y|%a %d %b %Y}} %{{customdata}}<br>%{{z:.4g}} {unit}<extra></extra>",
    )
    fig = go.Figure(heat)
    fig.update_layout(coloraxis={"colorscale": SEQUENTIAL, "colorbar": {"title": {"text": unit or "value"}, "x": 1.02}})
    fig.update_xaxes(
        range=[0, 24],
        tickvals=[0, 6, 12, 18, 24],
        ticktext=["00:00", "06:00", "12:00", "18:00", "24:00"],
        title_text="time of day",
    )
    fig.update_yaxes(autorange="reversed", showgrid=False, tickformat="%a %d %b", title_text="day")
    gaps = missing(cut.gaps)
    coarse = f"mean of each {cut.step // np.timedelta64(60, 's')} min" if slots(x) > finest(x) else ""
    return finish(
        fig,
        title=title or f"{counted(rows, 'day')}, one row each",
        subtitle=joined(coarse, gaps),
        alt=sentences(
            f"Heat map. Across: time of day. Down: {rows} days from {cut.first}",
            words(x, values[:, None], [""], unit),
            coarse,
            gaps,
        ),
        panel=int(np.clip(11 * rows, 160, 400)),
        margin={"l": 96, "r": 84},
    )


def multiples(x: np.ndarray, values: np.ndarray, names: list[str], unit: str, title: str, columns: int) -> go.Figure:
    """Small lines, one per series, all on the same scale."""
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    panel = rows * PANEL + (rows - 1) * GAP
    fig = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes="all",
        shared_yaxes="all",
        vertical_spacing=GAP / panel if rows > 1 else 0,
        horizontal_spacing=0.025 if columns > 1 else 0,
    )
    for index, name in enumerate(names):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        at, thin, size = min_max(x, values[:, index], points=500, above=1000)
        note = f"<br>lowest and highest of each {size}" if size > 1 else ""
        fig.add_trace(
            go.Scatter(
                x=at,
                y=thin.astype(np.float32),
                mode="lines",
                line={"width": 1.5},
                hovertemplate=f"{name}<br>%{{x|%a %d %b %H:%M}}<br>%{{y:.4g}} {unit}{note}<extra></extra>",
                showlegend=False,
            ),
            **place,
        )
        axis = "" if index == 0 else index + 1
        fig.add_annotation(
            text=name, xref=f"x{axis} domain", yref=f"y{axis} domain", x=0, y=1.02, xanchor="left", yanchor="bottom"
        )
    low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0)
    fig.update_yaxes(range=[low, high * 1.05 or 1.0], nticks=3)
    fig.update_xaxes(nticks=4, tickformat="%d %b")
    for index in range(len(names) - columns, len(names)):
        fig.update_xaxes(showticklabels=True, row=index // columns + 1, col=index % columns + 1)
    gaps = missing(int(np.isnan(values).sum()))
    scale = f"one scale for all, {number(low)} to {number(high)} {unit}".rstrip()
    return finish(
        fig,
        title=title or f"{len(names)} series from {moment(x[0])} to {moment(x[-1])}",
        subtitle=joined(scale, gaps),
        alt=sentences(
            f"{len(names)} small line plots on one scale. Across: {moment(x[0])} to {moment(x[-1])}",
            words(x, values, names, unit),
            gaps,
        ),
        panel=panel,
        margin={"t": 36, "b": 36},
    )


def words(x: np.ndarray, values: np.ndarray, names: list[str], unit: str) -> str:
    """The extremes in words."""
    found = extremes(values)
    if found is None:
        return "Every value is missing"
    low, high = found

    def place(at: tuple[int, ...]) -> str:
        return ", ".join(part for part in (names[at[1]], moment(x[at[0]])) if part)

    return (
        f"Values from {number(values[low])} ({place(low)}) to {number(values[high])} ({place(high)}) {unit}".rstrip()
        + f", mean {number(np.nanmean(values))}"
    )
