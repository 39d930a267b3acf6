"""Lanes stacked over one time axis: lines, one for each head, or strips of colour."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers, block_size, extremes, min_max, pool_mean, pool_steps, quantiles
from workbench.plots.scales import Scale, round_values
from workbench.plots.style import PALETTE, Category, categories, faded, missing, moment, number, power_of_ten

LANE, GAP, ROW = 104, 40, 14  # px: lines, space for a caption, one row of a strip
MOST_LINES = 6
COLUMNS = 1000


class Lane(NamedTuple):
    """One panel of a stack.

    A lane with a `scale` is a strip, one row for each head; any other has one line for each head, or where there are
    more than six their median and the band from the lowest to the highest.
    """

    caption: str
    values: np.ndarray  # (time, head)
    log: bool = False
    zero: bool = False  # the axis starts there
    scale: Scale | None = None
    limits: dict[str, float] = {}  # noqa: RUF012  (of a NamedTuple: never changed) dashed lines
    shade: np.ndarray | None = None  # share that is drawn as grey behind the lines (time,)

    @property
    def height(self) -> int:
        """Height of the panel in px."""
        return LANE if self.scale is None else int(np.clip(ROW * self.values.shape[1], 20, LANE))


def as_heads(name: str, values: ArrayLike) -> np.ndarray:
    """Values (time, head), infinities as gaps; (time,) is one head."""
    array = as_numbers(name, values, "(time,) or (time, head)", 1, 2)
    return np.where(np.isfinite(array), array, np.nan).reshape(len(array), -1)


def as_lengths(name: str, values: ArrayLike) -> np.ndarray:
    """Lengths (time, head), 0 or more.

    Raises:
        ValueError: one is below 0.
    """
    array = as_heads(name, values)
    if (low := np.nanmin(array, initial=0.0)) < 0:
        raise ValueError(f"{name} goes down to {number(low)}, and a length is 0 or more; pass the norm of the vectors.")
    return array


def one_length(arrays: dict[str, np.ndarray]) -> int:
    """The number of steps that all have.

    Raises:
        ValueError: there are none, or they differ.
    """
    if not arrays:
        raise ValueError("there is nothing to draw: each array is None; pass at least one, as (time, head).")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"the numbers of steps differ: {said}. Record them over the same steps.")
    return next(iter(lengths.values()))


def stack(lanes: list[Lane], x: np.ndarray, head_label: str, step_label: str) -> tuple[go.Figure, int]:
    """A figure with the lanes from top to bottom, and its height in px."""
    height = sum(lane.height for lane in lanes) + GAP * (len(lanes) - 1)
    fig, top, named = go.Figure(), 0, False
    for index, lane in enumerate(lanes):
        key = "" if index == 0 else str(index + 1)
        place = {"xaxis": "x", "yaxis": f"y{key}"}
        bottom = 1 - (top + lane.height) / height
        fig.update_layout({f"yaxis{key}": {"domain": [max(bottom, 0), 1 - top / height]}})
        if lane.scale is not None:
            strip(fig, lane, x, place, head_label, step_label)
        else:
            lines(fig, lane, x, place, head_label, not named)
            named = named or lane.values.shape[1] <= MOST_LINES
        fig.add_annotation(
            text=lane.caption, xref="paper", yref="paper", x=0, y=1 - top / height, xanchor="left", yanchor="bottom",
            yshift=4, font={"size": 13},
        )  # fmt: skip
        top += lane.height + GAP
    last = "" if len(lanes) == 1 else str(len(lanes))
    fig.update_xaxes(title_text=step_label, range=[x[0], x[-1]] if len(x) > 1 else None, anchor=f"y{last}")
    where = {"x": 1, "xanchor": "right", "y": 1 + 22 / height, "yanchor": "bottom"}
    fig.update_layout(hovermode="x", legend=where)
    return fig, height


def strip(fig: go.Figure, lane: Lane, x: np.ndarray, place: dict, head_label: str, step_label: str) -> None:
    """One row of colour for each head."""
    size = block_size(len(x), COLUMNS)
    heads = lane.values.shape[1]
    pooled = f"<br>mean of {size} steps" if size > 1 else ""
    fig.add_trace(
        go.Heatmap(
            z=pool_mean(lane.values, size).T.astype(np.float32),
            x=pool_steps(x, size),
            hoverongaps=False,
            hovertemplate=f"{step_label} %{{x}}<br>{head_label} %{{y}}<br>%{{z:.3g}}{pooled}<extra></extra>",
            **lane.scale.own,
            **place,
        )
    )
    axis = {"range": [heads - 0.5, -0.5], "showgrid": False, "nticks": min(heads, 4)}
    axis |= {"showticklabels": heads > 1, "title": {"text": head_label if heads > 1 else ""}}
    fig.update_layout({f"yaxis{place['yaxis'][1:]}": axis})


def lines(fig: go.Figure, lane: Lane, x: np.ndarray, place: dict, head_label: str, named: bool) -> None:
    """One line for each head, or median and range of many."""
    values = np.where(lane.values > 0, lane.values, np.nan) if lane.log else lane.values
    heads = values.shape[1]
    low, high = span(values, lane)
    if lane.shade is not None:
        shaded(fig, lane.shade, x, (low, high), place)
    if heads > MOST_LINES:
        bottom, middle, top = quantiles(values, [0.0, 0.5, 1.0])
        for edge, fill in ((bottom, None), (top, "tonexty")):
            at, thin, _ = min_max(x, edge)
            style = {"fill": fill, "fillcolor": faded(PALETTE[0], 0.22), "hoverinfo": "skip", "showlegend": False}
            fig.add_trace(
                go.Scatter(x=at, y=thin.astype(np.float32), mode="lines", line={"width": 0}, **style, **place)
            )
        line(fig, f"median of {heads}", x, middle, Category(PALETTE[0], "solid", "circle"), place, False)
    else:
        looks = categories([f"{head_label} {i}" for i in range(heads)], "a lane")
        for (name, look), column in zip(looks.items(), values.T, strict=True):
            line(fig, name, x, column, look, place, named and heads > 1)
    axis = log_axis(low, high) if lane.log else {"range": [low, high], "nticks": 4}
    fig.update_layout({f"yaxis{place['yaxis'][1:]}": axis})
    for name, limit in lane.limits.items():
        inside = low < limit < high
        dash = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": place["yaxis"], "y0": limit, "y1": limit}
        if inside:
            at = float(np.log10(limit)) if lane.log else limit
            fig.add_shape(**dash, line={"dash": "dash"}, layer="below")
            fig.add_annotation(
                text=name, xref="paper", x=0, xanchor="left", xshift=4, yref=place["yaxis"], y=at, yanchor="bottom"
            )


def line(fig: go.Figure, name: str, x: np.ndarray, y: np.ndarray, look: Category, place: dict, named: bool) -> None:
    """One line of a lane, thinned where it is long; its legend entry switches it in every lane."""
    at, thin, size = min_max(x, y)
    note = f"<br>lowest and highest of each {size}" if size > 1 else ""
    fig.add_trace(
        go.Scatter(
            x=at,
            y=thin.astype(np.float32),
            name=name,
            mode="lines" if len(at) > 1 else "markers",
            line={"color": look.colour, "dash": look.dash, "width": 1.6},
            legendgroup=name,
            hovertemplate=f"{name} %{{y:.4g}}{note}<extra></extra>",
            showlegend=named,
            **place,
        )
    )


def shaded(fig: go.Figure, share: np.ndarray, x: np.ndarray, edges: tuple[float, float], place: dict) -> None:
    """Grey behind the lines, the darker the larger the share."""
    size = block_size(len(x), COLUMNS)
    grey = [[0, "rgba(128,128,128,0)"], [1, "rgba(128,128,128,0.3)"]]
    fig.add_trace(
        go.Heatmap(
            z=pool_mean(share, size)[None].astype(np.float32),
            x=pool_steps(x, size),
            y=list(edges),
            colorscale=grey,
            zmin=0,
            zmax=1,
            showscale=False,
            hoverinfo="skip",
            **place,
        )
    )


def span(values: np.ndarray, lane: Lane) -> tuple[float, float]:
    """The range of a lane's axis, with some air; a limit is in it if it is near."""
    there = values[np.isfinite(values)]
    if there.size == 0:
        return (0.1, 1.0) if lane.log else (0.0, 1.0)
    low, high = float(there.min()), float(there.max())
    if lane.log:
        return low / 1.3, high * 1.3
    near = [limit for limit in lane.limits.values() if high > 0.5 * limit]
    low, high = 0.0 if lane.zero else low, max([high, *near])
    air = 0.06 * ((high - low) or abs(high) or 1.0)
    return (0.0 if lane.zero else low - air), high + air


def log_axis(low: float, high: float) -> dict:
    """A logarithmic axis with at most four decades named, or a few round numbers where it has none."""
    span = np.log10([low, high])
    decades = np.arange(np.ceil(span[0]), np.floor(span[1]) + 1)
    axis = {"type": "log", "range": span.tolist()}
    if len(decades) < 2:
        few = round_values(low, high)
        return axis | ({"tickvals": few, "tickformat": "~g"} if few else {"nticks": 3})
    decades = decades[:: -(-len(decades) // 4)]
    return axis | {"tickvals": (10.0**decades).tolist(), "ticktext": [power_of_ten(power) for power in decades]}


def spoken(lane: Lane, x: np.ndarray, head_label: str, step_label: str) -> str:
    """One lane in words: its extremes and where they are."""
    found = extremes(lane.values)
    if found is None:
        return f"{lane.caption}: every value is missing"
    (low_t, low_h), (high_t, high_h) = found
    many = lane.values.shape[1] > 1
    where = [
        f"{step_label} {moment(x[t])}" + (f", {head_label} {h}" if many else "")
        for t, h in ((low_t, low_h), (high_t, high_h))
    ]
    low, high = lane.values[low_t, low_h], lane.values[high_t, high_h]
    zeros = int((lane.values == 0).sum()) if lane.log else 0
    below = f"; {zeros:,} zeros are below the logarithmic axis" if zeros else ""
    middle = number(np.nanmedian(lane.values))
    return f"{lane.caption}: from {number(low)} ({where[0]}) to {number(high)} ({where[1]}), median {middle}{below}"


def notes(lanes: list[Lane]) -> list[str]:
    """What a reader must know of all lanes: what a band is, long lines, gaps."""
    shown = [lane for lane in lanes if lane.scale is None]
    many = max((lane.values.shape[1] for lane in shown), default=0)
    band = f"line: median of {many}, band: lowest to highest" if many > MOST_LINES else ""
    zeros = sum(int((lane.values == 0).sum()) for lane in lanes if lane.log)
    below = f"{zeros:,} {'zero' if zeros == 1 else 'zeros'} below a logarithmic axis" if zeros else ""
    return [band, below, missing(sum(int(np.isnan(lane.values).sum()) for lane in lanes))]
