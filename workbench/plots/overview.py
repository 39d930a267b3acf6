"""Many gates at a glance: small heat maps on one shared scale."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from workbench.plots.arrays import as_steps
from workbench.plots.gates import Gate, describe, heat, ready
from workbench.plots.scales import scale_of
from workbench.plots.style import counted, finish, joined, missing

PANEL, GAP = 112, 38
BAR = 264  # px: longest colour bar


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
    length = lengths.pop()
    scale = scale_of(kind, np.concatenate([gate.full.ravel() for gate in prepared.values()]), length)
    columns = min(columns, len(prepared))
    rows = -(-len(prepared) // columns)
    panel = rows * PANEL + (rows - 1) * GAP
    fig = small_heats(prepared, rows, columns, panel, unit_label, step_label)
    fig.update_layout(coloraxis=scale.axis(lenmode="pixels", len=max(PANEL, min(panel, BAR))))
    x = as_steps("steps", steps, length)
    parts = [f"{name}: {describe(gate, unit_label, step_label, x)}" for name, gate in prepared.items()]
    first = next(iter(prepared.values()))
    count = sum(gate.gaps for gate in prepared.values())
    return finish(
        fig,
        title=title or f"{counted(len(prepared), 'gate')} over {counted(len(first.full), step_label)}, one scale",
        subtitle=joined(scale.note, first.pooled, missing(count)),
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
        vertical_spacing=GAP / panel if rows > 1 else 0,
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
