"""How often each unit of a gate is closed or open."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers
from workbench.plots.gates import CLOSED, OPEN
from workbench.plots.scales import as_drawn, scale_of
from workbench.plots.style import PALETTE, counted, finish, joined, missing, sentences

PANEL = 260
MOST_UNITS = 1024
FEW = 32  # units whose numbers are written below their bars


def saturation(values: ArrayLike, *, title: str = "", unit_label: str = "unit", step_label: str = "step") -> go.Figure:
    """The share of steps on which each unit is closed (< 0.01) or open (> 0.99), as stacked bars, sorted.

    Args:
        values: a gate in [0, 1] (time, unit).
        title: the finding; without one, how many units are stuck.
        unit_label, step_label: what the axes are.
    """
    gate = as_drawn("bounded", as_numbers("values", values, "(time, unit)", 2))
    scale_of("bounded", gate, len(gate))
    units = gate.shape[1]
    if units > MOST_UNITS:
        raise ValueError(f"values has {units:,} units, and {MOST_UNITS:,} can be drawn; pass some of them.")
    present = (~np.isnan(gate)).sum(axis=0)
    closed, opened = ((test).sum(axis=0) / np.maximum(present, 1) for test in (gate < CLOSED, gate > OPEN))
    order = np.lexsort((opened - closed, present == 0))
    fig = bars(closed[order], opened[order], order, unit_label, step_label)
    gaps = missing(int(np.isnan(gate).sum()), how="left out")
    stuck = {"closed": int((closed > 0.5).sum()), "open": int((opened > 0.5).sum())}
    total = max(int(present.sum()), 1)
    share = [f"{(test).sum() / total:.0%}" for test in (gate < CLOSED, gate > OPEN)]
    said = f"of all values {share[0]} are closed (< {CLOSED}), {share[1]} open (> {OPEN})"
    heading = f"{stuck['closed']} of {counted(units, unit_label)} closed most of the time, {stuck['open']} open"
    extremes = [
        f"{unit_label} {int(np.argmax(part))} is {name} most, on {part.max():.0%} of its {step_label}s"
        for name, part in (("closed", closed), ("open", opened))
        if part.max() > 0
    ]
    return finish(
        fig,
        title=title or (heading if present.any() else "Every value is missing"),
        subtitle=joined(said, gaps),
        alt=sentences(
            f"Stacked bars, one for each {unit_label}, sorted from the most closed to the most open. "
            f"Up: share of {counted(len(gate), step_label)}",
            f"{heading}; {said}" if present.any() else "Every value is missing",
            *extremes,
            gaps,
        ),
        panel=PANEL,
        margin={"t": 44},
    )


def bars(closed: np.ndarray, opened: np.ndarray, order: np.ndarray, unit_label: str, step_label: str) -> go.Figure:
    """Closed from below and open from above; what is between them is neither."""
    fig = go.Figure()
    for name, share, base, colour in (
        (f"closed (< {CLOSED})", closed, np.zeros_like(closed), PALETTE[0]),
        (f"open (> {OPEN})", opened, 1 - opened, PALETTE[1]),
    ):
        hover = f"{unit_label} %{{customdata}}<br>{name} on %{{y:.1%}} of the {step_label}s<extra></extra>"
        fig.add_trace(
            go.Bar(
                x=np.arange(len(share)),
                y=share.astype(np.float32),
                base=base.astype(np.float32),
                name=name,
                marker={"color": colour, "line": {"width": 0}},
                customdata=order,
                hovertemplate=hover,
            )
        )
    units = len(order)
    ticks = {"tickvals": np.arange(units), "ticktext": order.astype(str)} if units <= FEW else {"nticks": 6}
    fig.update_xaxes(title_text=f"{unit_label}, from the most closed to the most open", range=[-0.6, units - 0.4])
    fig.update_xaxes(**ticks)
    fig.update_yaxes(range=[0, 1], tickformat=".0%", nticks=5, title_text=f"share of {step_label}s")
    legend = {"x": 0, "y": 1 + 6 / PANEL, "yanchor": "bottom", "traceorder": "normal"}
    fig.update_layout(barmode="overlay", bargap=0.15 if units <= 64 else 0, legend=legend)
    return fig
