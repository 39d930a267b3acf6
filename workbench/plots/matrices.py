"""One matrix memory at one moment, with its singular values."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from workbench.plots.arrays import as_numbers, extremes
from workbench.plots.scales import as_drawn, scale_of
from workbench.plots.style import PALETTE, capital, finish, joined, missing, number, sentences

PANEL = 340
LARGEST = 1024


def matrix(
    memory: ArrayLike,
    *,
    kind: str = "signed",
    title: str = "",
    key_label: str = "key unit",
    value_label: str = "value unit",
) -> go.Figure:
    """A matrix memory as a heat map, keys down and values across, beside its singular values.

    The effective rank of singular values s is (sum s^2)^2 / sum s^4: 1 for one stored pair, K for K pairs of equal
    strength under orthogonal keys.

    Args:
        memory: (K, V), at most 1,024 each. NaN and infinities are gaps, and count as 0 in the singular values.
        kind: "signed", or "positive" for magnitudes.
        title: the finding; without one, the effective rank.
        key_label, value_label: what the axes are.
    """
    full = as_drawn(kind, as_numbers("memory", memory, "(K, V): one batch element and one head", 2))
    if max(full.shape) > LARGEST:
        raise ValueError(
            f"memory has shape {full.shape}, and {LARGEST:,} by {LARGEST:,} can be drawn; pass a part of it."
        )
    scale = scale_of(kind, full, len(full))
    singular = np.linalg.svd(np.nan_to_num(full), compute_uv=False)
    rank = effective_rank(singular)
    fig = make_subplots(rows=1, cols=2, column_widths=[0.68, 0.32], horizontal_spacing=0.16)
    hover = f"{key_label} %{{y}}<br>{value_label} %{{x}}<br>%{{z:.4g}}<extra></extra>"
    heat = go.Heatmap(z=full.astype(np.float32), coloraxis="coloraxis", hoverongaps=False, hovertemplate=hover)
    fig.add_trace(heat, row=1, col=1)
    spectrum(fig, singular, rank)
    fig.update_xaxes(title_text=value_label, row=1, col=1)
    fig.update_yaxes(title_text=key_label, range=[len(full) - 0.5, -0.5], showgrid=False, row=1, col=1)
    right = fig.layout.xaxis.domain[1]
    fig.update_layout(coloraxis=scale.axis(x=right + 0.01, thickness=10), bargap=0.15 if len(singular) <= 64 else 0)
    keys, values = full.shape
    norm = float(np.sqrt((singular**2).sum()))
    said = f"effective rank {rank:.1f} of {len(singular)}, norm {number(norm)}"
    gaps = missing(int(np.isnan(full).sum()))
    return finish(
        fig,
        title=title
        or (f"A memory of {keys} by {values} with an effective rank of {rank:.1f}" if rank else "An empty memory"),
        subtitle=joined(said, scale.note, gaps),
        alt=sentences(
            f"Heat map of a matrix. Down: {key_label}, 0 to {keys - 1}. Across: {value_label}, 0 to {values - 1}",
            where(full, key_label, value_label),
            f"Beside it {len(singular)} singular values as bars, from {number(singular[0])} to {number(singular[-1])}",
            capital(said),
            gaps,
        ),
        panel=PANEL,
    )


def effective_rank(singular: np.ndarray) -> float:
    """(sum s^2)^2 / sum s^4 of singular values, 0 where all are 0."""
    if singular[0] == 0:
        return 0.0
    power = (singular / singular[0]) ** 2
    return float(power.sum() ** 2 / (power**2).sum())


def spectrum(fig: go.Figure, singular: np.ndarray, rank: float) -> None:
    """The singular values as bars, those beyond the effective rank grey."""
    at = np.arange(1, len(singular) + 1)
    colours = [PALETTE[0] if place <= np.ceil(rank) else PALETTE[-1] for place in at]
    bars = go.Bar(
        x=at,
        y=singular.astype(np.float32),
        marker={"color": colours, "line": {"width": 0}},
        hovertemplate="number %{x}<br>singular value %{y:.4g}<extra></extra>",
        showlegend=False,
    )
    fig.add_trace(bars, row=1, col=2)
    fig.update_yaxes(title_text="singular value", rangemode="tozero", nticks=5, row=1, col=2)
    fig.update_xaxes(title_text="number", nticks=5, row=1, col=2)


def where(full: np.ndarray, key_label: str, value_label: str) -> str:
    """The extremes of a matrix, in words."""
    found = extremes(full)
    if found is None:
        return "Every value is missing"
    low, high = found
    place = [f"{key_label} {k}, {value_label} {v}" for k, v in (low, high)]
    return f"From {number(full[low])} ({place[0]}) to {number(full[high])} ({place[1]})"
