"""A gate over time: one heat map with its margins."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from workbench.plots.arrays import as_numbers, as_steps, block_size, extremes, pool_mean, pool_steps, quantiles
from workbench.plots.scales import LN10, Scale, as_drawn, near_overflow, overflow, scale_of, thinned
from workbench.plots.style import PALETTE, counted, faded, finish, joined, missing, moment, number, sentences

CLOSED, OPEN = 0.01, 0.99
MOST_UNITS = 256
HEAT, GAP, STRIP = 264, 44, 72  # px: heat map, space for a caption, margin below
PANEL = HEAT + GAP + STRIP


class Gate(NamedTuple):
    """A gate made ready to draw: full values (time, unit), and what fits on a screen."""

    full: np.ndarray
    small: np.ndarray
    x: np.ndarray
    units: np.ndarray
    times: int  # steps in one column
    rows: int  # units in one row
    kind: str
    cap: float  # steps: longer half-lives are not known to be longer

    @property
    def pooled(self) -> str:
        """What a reader must know about pooling."""
        how = "geometric mean" if self.kind in ("log", "steps") else "mean"
        parts = [f"steps pooled {self.times}:1 ({how})"] if self.times > 1 else []
        parts += [f"units pooled {self.rows}:1 ({how})"] if self.rows > 1 else []
        return ", ".join(parts)

    @property
    def gaps(self) -> int:
        """How many values are missing."""
        return int(np.isnan(self.full).sum())

    def hover(self, axis: str) -> str:
        """A value as plotly writes it in a tooltip."""
        if self.kind in ("log", "steps"):
            return f"10<sup>%{{{axis}:.2f}}</sup>" + (" steps" if self.kind == "steps" else "")
        return f"%{{{axis}:.4g}}"

    def real(self, drawn: float) -> float:
        """A value on its own scale, from where it is drawn."""
        return 10.0**drawn if self.kind == "steps" else drawn


def ready(
    values: ArrayLike,
    steps: ArrayLike | None,
    kind: str,
    pool_to: int,
    *,
    most_units: int = MOST_UNITS,
    cap: float | None = None,
) -> Gate:
    """Check a gate and pool it to at most `pool_to` columns and `most_units` rows; `cap` None is its length."""
    full = as_numbers("values", values, "(time, unit)", 2)
    cap = float(len(full) if cap is None else cap)
    full = as_drawn(kind, full, cap)
    x = as_steps("steps", steps, len(full))
    times, rows = block_size(len(full), pool_to), block_size(full.shape[1], most_units)
    small = pool_mean(pool_mean(full, times).T, rows).T
    units = pool_steps(np.arange(full.shape[1]), rows)
    return Gate(full, small, pool_steps(x, times), units, times, rows, kind, cap)


def heat(gate: Gate, unit_label: str, step_label: str, **more: object) -> go.Heatmap:
    """The heat map of one gate, unit 0 on top, as compact float32."""
    pooled = f"<br>{gate.pooled}" if gate.pooled else ""
    return go.Heatmap(
        z=gate.small.T.astype(np.float32),
        x=gate.x,
        y=gate.units,
        hoverongaps=False,
        hovertemplate=f"{step_label} %{{x}}<br>{unit_label} %{{y}}<br>value {gate.hover('z')}{pooled}<extra></extra>",
        **more,
    )


def saturated(gate: Gate) -> tuple[np.ndarray, np.ndarray]:
    """Shares of closed and of open units per column, counted before pooling."""
    present = np.maximum((~np.isnan(gate.full)).sum(axis=1), 1)
    closed = (gate.full < CLOSED).sum(axis=1) / present
    opened = (gate.full > OPEN).sum(axis=1) / present
    return pool_mean(closed, gate.times), pool_mean(opened, gate.times)


def describe(gate: Gate, unit_label: str, step_label: str, x: np.ndarray) -> str:
    """The sentences that stand in for a heat map."""
    name = {"bounded": "Gate value", "log": "log10 of the gate", "steps": "Steps"}.get(gate.kind, "Value")
    axes = (
        f"Heat map. Across: {step_label}, {moment(x[0])} to {moment(x[-1])}. "
        f"Down: {unit_label}, 0 to {gate.full.shape[1] - 1}"
    )
    found = extremes(gate.full)
    if found is None:
        return sentences(axes, "Every value is missing")
    (low_t, low_u), (high_t, high_u) = found
    span = (
        f"{name} from {value(gate, low_t, low_u)} ({step_label} {moment(x[low_t])}, {unit_label} {low_u}) "
        f"to {value(gate, high_t, high_u)} ({step_label} {moment(x[high_t])}, {unit_label} {high_u}), "
        f"{typical(gate)}"
    )
    return sentences(axes, span, facts(gate), missing(gate.gaps), gate.pooled)


def value(gate: Gate, step: int, unit: int) -> str:
    """One value in words; half-lives beyond the sequence are only known to be that long."""
    capped = gate.kind == "steps" and gate.full[step, unit] >= np.log10(gate.cap)
    return number(gate.real(gate.full[step, unit])) + (" or more" if capped else "")


def typical(gate: Gate) -> str:
    """The middle of all values in words: the mean, or of steps the median."""
    if gate.kind == "steps":
        return f"median {number(gate.real(float(np.nanmedian(gate.full))))} steps"
    return f"mean{' of log10' if gate.kind == 'log' else ''} {number(np.nanmean(gate.full))}"


def facts(gate: Gate) -> str:
    """What is worth saying of this kind of quantity: saturation, nearness to overflow, what outlasts the sequence."""
    if gate.kind == "bounded":
        return saturation(gate.full)
    if gate.kind == "log":
        return overflow(gate.full * LN10)
    if gate.kind == "steps":
        capped = int((gate.full >= np.log10(gate.cap)).sum())
        return f"{capped:,} of {gate.full.size - gate.gaps:,} values reach the sequence length" if capped else ""
    return ""


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
        hovertemplate=f"{unit_label} %{{y}}<br>80 % of values in {gate.hover('customdata[0]')} to "
        f"{gate.hover('customdata[1]')}<extra></extra>",
        showlegend=False,
    )
    dots = go.Scatter(
        x=mean.astype(np.float32),
        y=gate.units,
        mode="markers",
        marker={"size": 5 if len(mean) <= 64 else 3},
        hovertemplate=f"{unit_label} %{{y}}<br>mean {gate.hover('x')}<extra></extra>",
        showlegend=False,
    )
    fig.add_trace(bar, row=1, col=2)
    fig.add_trace(dots, row=1, col=2)


def step_margin(fig: go.Figure, gate: Gate, unit_label: str, step_label: str) -> str:
    """Below: the share of saturated units per step, or the spread over units; returns its caption."""
    where = f"{step_label} %{{x}}<br>"
    if gate.kind == "bounded":
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
    limits = near_overflow(gate.full * LN10) if gate.kind == "log" else {}
    if limits:
        limit_lines(fig, gate, limits)
    bands = [pool_mean(band, gate.times) for band in quantiles(gate.full, [0.1, 0.5, 0.9])]
    for share, fill in zip((bands[0], bands[2], bands[1]), (None, "tonexty", None), strict=True):
        edge = {"width": 0} if share is not bands[1] else {}
        line = go.Scatter(x=gate.x, y=share.astype(np.float32), mode="lines", line=edge, showlegend=False)
        line.update(
            fill=fill, fillcolor=faded(PALETTE[-1], 0.35), hovertemplate=f"{where}{gate.hover('y')}<extra></extra>"
        )
        fig.add_trace(line, row=2, col=1)
    if limits:
        return f"Over {unit_label}s: median, 80 % band, largest (dotted); overflow (dashed)"
    return f"Median over {unit_label}s, and the band that holds 80 % of them"


def limit_lines(fig: go.Figure, gate: Gate, limits: dict[str, float]) -> None:
    """Where exp overflows, and the largest value of each step, for gates that come near."""
    largest = np.fmax.reduceat(np.fmax.reduce(gate.full, axis=1), np.arange(0, len(gate.full), gate.times))
    line = {"width": 1.5, "dash": "dot", "color": PALETTE[3]}
    hover = "largest 10<sup>%{y:.2f}</sup><extra></extra>"
    most = go.Scatter(x=gate.x, y=largest.astype(np.float32), mode="lines", line=line, hovertemplate=hover)
    fig.add_trace(most.update(showlegend=False), row=2, col=1)
    for name, limit in limits.items():
        fig.add_shape(
            type="line",
            xref="x3 domain",
            x0=0,
            x1=1,
            yref="y3",
            y0=limit / LN10,
            y1=limit / LN10,
            line={"dash": "dash"},
        )
        fig.add_annotation(
            text=name, xref="x3 domain", x=1.01, yref="y3", y=limit / LN10, xanchor="left", yanchor="middle"
        )


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
            gate for "log", drawn as log10 around 0; anything around zero for "signed"; norms and
            errors for "positive"; half-lives for "steps", on a logarithmic axis that ends at the
            sequence length. NaN and infinities (of steps: NaN alone) are gaps.
        steps: position of each time step, numbers or datetime64 (time,).
        title: the finding; without one, the numbers speak.
        unit_label: what a row is: unit, head, channel.
        step_label: what a column is, with its unit if it has one.
        kind: one of those above, as in the vocabulary of traces.
        pool_to: most columns drawn; longer sequences show means of neighbours, and say so.

    Returns:
        A figure of fixed height whose `layout.meta["alt"]` says in words what it shows.
    """
    gate = ready(values, steps, kind, pool_to)
    scale = scale_of(kind, gate.full, gate.cap)
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
    caption = step_margin(fig, gate, unit_label, step_label)
    arrange(fig, gate, scale, unit_label, step_label, caption)
    notes = [scale.note, facts(gate), gate.pooled, missing(gate.gaps)]
    middle = typical(gate) if gate.gaps < gate.full.size else "all missing"
    steps_text = f"{counted(gate.full.shape[1], unit_label)} over {counted(len(gate.full), step_label)}"
    return finish(
        fig,
        title=title or f"{steps_text}: {middle}",
        subtitle=joined(*notes),
        alt=describe(gate, unit_label, step_label, x),
        panel=PANEL,
        margin={"r": 84},
    )


def arrange(fig: go.Figure, gate: Gate, scale: Scale, unit_label: str, step_label: str, caption: str) -> None:
    """Axes, colour bar and caption of the heat map with margins."""
    pad = (scale.high - scale.low) * 0.04
    ticks = thinned(scale.ticks)
    if gate.kind != "bounded":
        fig.update_yaxes(row=2, col=1, **(scale.ticks if gate.kind == "steps" else ticks))
    fig.update_yaxes(title_text=unit_label, row=1, col=1)
    fig.update_yaxes(range=[gate.full.shape[1] - 0.5, -0.5], showgrid=False, row=1)
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
    fig.update_layout(coloraxis=scale.axis(len=HEAT / PANEL), bargap=0)
    fig.add_annotation(
        text=caption, xref="paper", yref="paper", x=0, y=STRIP / PANEL, xanchor="left", yanchor="bottom", yshift=4
    )
