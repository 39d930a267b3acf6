"""Gates over time: one heat map with its margins, or an overview of many."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from workbench.plots.arrays import as_numbers, as_steps, block_size, extremes, pool_mean, pool_steps, quantiles
from workbench.plots.style import (
    DIVERGING,
    DIVERGING_SIGNED,
    PALETTE,
    SEQUENTIAL,
    counted,
    faded,
    finish,
    missing,
    moment,
    number,
    power_of_ten,
    sentences,
)

CLOSED, OPEN = 0.01, 0.99
MOST_UNITS = 256
HEAT, GAP, STRIP = 264, 44, 72  # px: heat map, space for a caption, margin below
PANEL = HEAT + GAP + STRIP
OVERVIEW_PANEL, OVERVIEW_GAP = 112, 38


class Scale(NamedTuple):
    """How values become colours: the same for every panel of a figure."""

    colours: str
    low: float
    high: float
    name: str
    ticks: dict
    note: str


def scale_of(kind: str, values: np.ndarray) -> Scale:
    """The colour scale of a kind of gate; fixed where the gate is bounded."""
    if kind == "bounded":
        low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0)
        if low < -1e-6 or high > 1 + 1e-6:
            raise ValueError(
                f"values run from {number(low)} to {number(high)}, outside [0, 1] of a bounded gate; "
                "pass kind='log' for log preactivations or kind='signed' for states."
            )
        return Scale(SEQUENTIAL, 0.0, 1.0, "gate value", {"tickvals": [0, 0.25, 0.5, 0.75, 1]}, "")
    if kind not in ("log", "signed"):
        raise ValueError(f"kind={kind!r} is unknown; choose one of 'bounded', 'log', 'signed'.")
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, 0.995)) if finite.size else 1.0
    limit = limit if limit > 0 else 1.0
    note = f"colours end at ±{number(limit)}, the 99.5th percentile"
    if kind == "signed":
        return Scale(DIVERGING_SIGNED, -limit, limit, "value", {"nticks": 5}, note)
    step = max(1, int(np.ceil(limit / 4)))
    powers = np.arange(0, limit + 1e-9, step) if limit >= 1 else np.array([0, limit])
    powers = np.concatenate([-powers[:0:-1], powers])
    ticks = {"tickvals": powers.tolist(), "ticktext": [power_of_ten(power) for power in powers]}
    note = f"logarithmic colours, white at 1, ending at 10 to the ±{number(limit)} (99.5th percentile)"
    return Scale(DIVERGING, -limit, limit, "gate value", ticks, note)


class Gate(NamedTuple):
    """A gate made ready to draw: full values (time, unit), and what fits on a screen."""

    full: np.ndarray
    small: np.ndarray
    x: np.ndarray
    units: np.ndarray
    times: int  # steps in one column
    rows: int  # units in one row

    @property
    def pooled(self) -> str:
        """What a reader must know about pooling."""
        parts = [f"steps pooled {self.times}:1 (mean)"] if self.times > 1 else []
        parts += [f"units pooled {self.rows}:1 (mean)"] if self.rows > 1 else []
        return ", ".join(parts)


def ready(values: ArrayLike, steps: ArrayLike | None, kind: str, pool_to: int) -> Gate:
    """Check a gate and pool it to at most `pool_to` columns and 256 rows."""
    full = as_numbers("values", values, "(time, unit)", 2)
    full = np.where(np.isfinite(full), full, np.nan)
    if kind == "log":
        full = full / np.log(10.0)
    x = as_steps("steps", steps, len(full))
    times, rows = block_size(len(full), pool_to), block_size(full.shape[1], MOST_UNITS)
    small = pool_mean(pool_mean(full, times).T, rows).T
    units = pool_steps(np.arange(full.shape[1]), rows)
    return Gate(full, small, pool_steps(x, times), units, times, rows)


def heat(gate: Gate, unit_label: str, step_label: str, **more: object) -> go.Heatmap:
    """The heat map of one gate, unit 0 on top, as compact float32."""
    pooled = f"<br>{gate.pooled}" if gate.pooled else ""
    return go.Heatmap(
        z=gate.small.T.astype(np.float32),
        x=gate.x,
        y=gate.units,
        hoverongaps=False,
        hovertemplate=f"{step_label} %{{x}}<br>{unit_label} %{{y}}<br>value %{{z:.3f}}{pooled}<extra></extra>",
        **more,
    )


def saturated(gate: Gate) -> tuple[np.ndarray, np.ndarray]:
    """Shares of closed and of open units per column, counted before pooling."""
    present = np.maximum((~np.isnan(gate.full)).sum(axis=1), 1)
    closed = (gate.full < CLOSED).sum(axis=1) / present
    opened = (gate.full > OPEN).sum(axis=1) / present
    return pool_mean(closed, gate.times), pool_mean(opened, gate.times)


def describe(gate: Gate, scale: Scale, kind: str, unit_label: str, step_label: str, x: np.ndarray) -> str:
    """The sentences that stand in for a heat map."""
    name = {"bounded": "Gate value", "log": "log10 of the gate", "signed": "Value"}[kind]
    axes = (
        f"Heat map. Across: {step_label}, {moment(x[0])} to {moment(x[-1])}. "
        f"Down: {unit_label}, 0 to {gate.full.shape[1] - 1}"
    )
    found = extremes(gate.full)
    if found is None:
        return sentences(axes, "Every value is missing")
    (low_t, low_u), (high_t, high_u) = found
    span = (
        f"{name} from {number(gate.full[low_t, low_u])} ({step_label} {moment(x[low_t])}, {unit_label} {low_u}) "
        f"to {number(gate.full[high_t, high_u])} ({step_label} {moment(x[high_t])}, {unit_label} {high_u}), "
        f"mean {number(np.nanmean(gate.full))}"
    )
    count = int(np.isnan(gate.full).sum())
    return sentences(axes, span, saturation(gate.full) if kind == "bounded" else "", missing(count), gate.pooled)


def saturation(full: np.ndarray) -> str:
    """How much of a bounded gate is closed or open, in words."""
    present = max(int((~np.isnan(full)).sum()), 1)
    closed, opened = (full < CLOSED).sum() / present, (full > OPEN).sum() / present
    return f"{closed:.0%} of the values are closed (< {CLOSED}), {opened:.0%} open (> {OPEN})"


def unit_margin(fig: go.Figure, gate: Gate, unit_label: str) -> None:
    """At the right edge: each unit's mean, and where 80 % of its values lie."""
    low, high = np.nan_to_num(quantiles(gate.full.T, [0.1, 0.9]))
    low, high = pool_mean(low, gate.rows), pool_mean(high, gate.rows)
    mean = np.nanmean(np.where(np.isnan(gate.small).all(axis=0), 0.0, gate.small), axis=0)
    bar = go.Bar(
        orientation="h",
        y=gate.units,
        base=low.astype(np.float32),
        x=(high - low).astype(np.float32),
        width=0.8 * gate.rows,
        marker={"color": faded(PALETTE[-1], 0.45), "line": {"width": 0}},
        customdata=np.stack([low, high], axis=1).astype(np.float32),
        hovertemplate=f"{unit_label} %{{y}}<br>80 %% of values in %{{customdata[0]:.3f}} to %{{customdata[1]:.3f}}"
        "<extra></extra>".replace("%%", "%"),
        showlegend=False,
    )
    dots = go.Scatter(
        x=mean.astype(np.float32),
        y=gate.units,
        mode="markers",
        marker={"size": 5 if len(mean) <= 64 else 3},
        hovertemplate=f"{unit_label} %{{y}}<br>mean %{{x:.3f}}<extra></extra>",
        showlegend=False,
    )
    fig.add_trace(bar, row=1, col=2)
    fig.add_trace(dots, row=1, col=2)


def step_margin(fig: go.Figure, gate: Gate, kind: str, unit_label: str, step_label: str) -> str:
    """Below: the share of saturated units per step, or the spread over units; returns its caption."""
    where = f"{step_label} %{{x}}<br>"
    if kind == "bounded":
        for share, name, colour in zip(saturated(gate), ("closed", "open"), (PALETTE[0], PALETTE[1]), strict=True):
            area = go.Scatter(
                x=gate.x,
                y=share.astype(np.float32),
                stackgroup="saturated",
                mode="lines",
                line={"width": 0.5, "color": colour},
                fillcolor=colour,
                hovertemplate=f"{where}{name} %{{y:.0%}}<extra></extra>",
                showlegend=False,
            )
            fig.add_trace(area, row=2, col=1)
        fig.update_yaxes(range=[0, 1], tickvals=[0, 0.5, 1], tickformat=".0%", row=2, col=1)
        stroke = "<span style='color:{}'>■</span> {}"
        closed, opened = (
            stroke.format(PALETTE[0], f"closed (< {CLOSED})"),
            stroke.format(PALETTE[1], f"open (> {OPEN})"),
        )
        return f"Share of {unit_label}s saturated:  {closed}  {opened}"
    bands = [pool_mean(band, gate.times) for band in quantiles(gate.full, [0.1, 0.5, 0.9])]
    for share, fill in zip((bands[0], bands[2], bands[1]), (None, "tonexty", None), strict=True):
        edge = {"width": 0} if share is not bands[1] else {}
        line = go.Scatter(x=gate.x, y=share.astype(np.float32), mode="lines", line=edge, showlegend=False)
        line.update(fill=fill, fillcolor=faded(PALETTE[-1], 0.35), hovertemplate=f"{where}%{{y:.3f}}<extra></extra>")
        fig.add_trace(line, row=2, col=1)
    return f"Median over {unit_label}s, and the band that holds 80 % of them"


def gate_heatmap(
    values: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    title: str = "",
    unit_label: str = "unit",
    step_label: str = "step",
    kind: str = "bounded",
    pool_to: int = 1000,
) -> go.Figure:
    """A gate as a heat map: time across, units down, each unit's mean at the right, saturation below.

    Args:
        values: (time, unit). Gates in [0, 1] for kind "bounded"; log preactivations of an exponential
            gate for "log", drawn as log10 around 0; anything around zero for "signed". NaN and
            infinities are gaps.
        steps: position of each time step, numbers or datetime64 (time,).
        title: the finding; without one, the numbers speak.
        unit_label: what a row is: unit, head, channel.
        step_label: what a column is, with its unit if it has one.
        kind: "bounded", "log" or "signed".
        pool_to: most columns drawn; longer sequences show means of neighbours, and say so.

    Returns:
        A figure of fixed height whose `layout.meta["alt"]` says in words what it shows.
    """
    gate = ready(values, steps, kind, pool_to)
    scale = scale_of(kind, gate.full)
    x = as_steps("steps", steps, len(gate.full))
    fig = make_subplots(
        rows=2,
        cols=2,
        shared_xaxes="columns",
        shared_yaxes="rows",
        row_heights=[HEAT, STRIP],
        vertical_spacing=GAP / PANEL,
        column_widths=[0.86, 0.14],
        horizontal_spacing=0.015,
        specs=[[{}, {}], [{}, None]],
    )
    fig.add_trace(heat(gate, unit_label, step_label, coloraxis="coloraxis"), row=1, col=1)
    unit_margin(fig, gate, unit_label)
    caption = step_margin(fig, gate, kind, unit_label, step_label)
    arrange(fig, scale, gate.full.shape[1], unit_label, step_label, caption)
    facts = saturation(gate.full) if kind == "bounded" else scale.note
    notes = [facts, gate.pooled, missing(int(np.isnan(gate.full).sum()))]
    typical = f": mean {number(np.nanmean(gate.full))}" if np.isfinite(gate.full).any() else ": all missing"
    steps_text = f"{counted(gate.full.shape[1], unit_label)} over {counted(len(gate.full), step_label)}"
    return finish(
        fig,
        title=title or f"{steps_text}{typical}",
        subtitle=" · ".join(note for note in notes if note),
        alt=describe(gate, scale, kind, unit_label, step_label, x),
        panel=PANEL,
        margin={"r": 84},
    )


def thinned(ticks: dict) -> dict:
    """Of the ticks of a scale, the first, the middle and the last."""
    if "tickvals" not in ticks:
        return {"nticks": 4}
    keep = sorted({0, len(ticks["tickvals"]) // 2, len(ticks["tickvals"]) - 1})
    return {name: [entries[i] for i in keep] for name, entries in ticks.items()}


def arrange(fig: go.Figure, scale: Scale, units: int, unit_label: str, step_label: str, caption: str) -> None:
    """Axes, colour bar and caption of the heat map with margins."""
    pad = (scale.high - scale.low) * 0.04
    ticks = thinned(scale.ticks)
    if scale.low < 0:
        fig.update_yaxes(row=2, col=1, **ticks)
    fig.update_yaxes(title_text=unit_label, row=1, col=1)
    fig.update_yaxes(range=[units - 0.5, -0.5], showgrid=False, row=1)
    fig.update_xaxes(showticklabels=False, ticks="", showline=False, row=1, col=1)
    fig.update_xaxes(
        range=[scale.low - pad, scale.high + pad],
        showgrid=True,
        title={"text": "mean, 80 % range", "font": {"size": 12}},
        row=1,
        col=2,
    )
    fig.update_xaxes(row=1, col=2, **ticks)
    fig.update_xaxes(title_text=step_label, row=2, col=1)
    bar = {"x": 1.02, "len": HEAT / PANEL, "y": 1, "yanchor": "top", "title": {"text": scale.name}}
    colours = {"colorscale": scale.colours, "cmin": scale.low, "cmax": scale.high, "colorbar": bar | scale.ticks}
    fig.update_layout(coloraxis=colours, bargap=0)
    fig.add_annotation(
        text=caption, xref="paper", yref="paper", x=0, y=STRIP / PANEL, xanchor="left", yanchor="bottom", yshift=4
    )


def gate_overview(
    gates: dict[str, ArrayLike],
    *,
    steps: ArrayLike | None = None,
    title: str = "",
    unit_label: str = "unit",
    step_label: str = "step",
    kind: str = "bounded",
    columns: int = 2,
    pool_to: int = 400,
) -> go.Figure:
    """Many gates as small heat maps on one shared scale.

    Args:
        gates: name -> values (time, unit), all over the same steps.
        steps, unit_label, step_label, kind, pool_to: as in `gate_heatmap`.
        title: the finding; without one, how many gates there are.
        columns: panels in a row.
    """
    if not gates:
        raise ValueError("gates is empty; pass at least one name with values (time, unit).")
    prepared = {name: ready(values, steps, kind, pool_to) for name, values in gates.items()}
    lengths = {len(gate.full) for gate in prepared.values()}
    if len(lengths) > 1:
        raise ValueError(f"gates have different lengths {sorted(lengths)}; record them over the same steps.")
    scale = scale_of(kind, np.concatenate([gate.full.ravel() for gate in prepared.values()]))
    columns = min(columns, len(prepared))
    rows = -(-len(prepared) // columns)
    panel = rows * OVERVIEW_PANEL + (rows - 1) * OVERVIEW_GAP
    fig = small_heats(prepared, rows, columns, panel, unit_label, step_label)
    bar = {"title": {"text": scale.name}, "x": 1.02, "y": 1, "yanchor": "top"} | scale.ticks
    bar |= {"lenmode": "pixels", "len": max(OVERVIEW_PANEL, min(panel, HEAT))}
    colours = {"colorscale": scale.colours, "cmin": scale.low, "cmax": scale.high, "colorbar": bar}
    fig.update_layout(coloraxis=colours)
    x = as_steps("steps", steps, lengths.pop())
    parts = [f"{name}: {describe(gate, scale, kind, unit_label, step_label, x)}" for name, gate in prepared.items()]
    first = next(iter(prepared.values()))
    count = sum(int(np.isnan(gate.full).sum()) for gate in prepared.values())
    return finish(
        fig,
        title=title or f"{counted(len(prepared), 'gate')} over {counted(len(first.full), step_label)}, one scale",
        subtitle=" · ".join(note for note in (scale.note, first.pooled, missing(count)) if note),
        alt=f"{len(prepared)} heat maps on one scale. " + " ".join(parts),
        panel=panel,
        margin={"r": 84, "t": 40},
    )


def small_heats(
    gates: dict[str, Gate], rows: int, columns: int, panel: int, unit_label: str, step_label: str
) -> go.Figure:
    """The panels of an overview, names at their top left, step labels below the last of each column."""
    fig = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes="all",
        vertical_spacing=OVERVIEW_GAP / panel if rows > 1 else 0,
        horizontal_spacing=0.07 if columns > 1 else 0,
        subplot_titles=list(gates),
    )
    for index, gate in enumerate(gates.values()):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        fig.add_trace(heat(gate, unit_label, step_label, coloraxis="coloraxis"), **place)
        fig.update_yaxes(range=[gate.full.shape[1] - 0.5, -0.5], **place)
        if index >= len(gates) - columns:
            fig.update_xaxes(title_text=step_label, showticklabels=True, **place)
    fig.update_yaxes(showgrid=False, nticks=4)
    fig.update_yaxes(title_text=unit_label, col=1)
    fig.update_xaxes(nticks=6)
    for index, note in enumerate(fig.layout.annotations):
        axis = fig.layout["xaxis" if index == 0 else f"xaxis{index + 1}"]
        note.update(x=axis.domain[0], xanchor="left", yshift=2, font={"size": 13})
    return fig
