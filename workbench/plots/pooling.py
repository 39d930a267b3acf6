"""Pooling weights: which steps a pooled vector is made of."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from workbench.plots.arrays import as_numbers, as_steps, block_size, pool_steps
from workbench.plots.lanes import one_length
from workbench.plots.style import PALETTE, capital, counted, finish, joined, missing, moment, number, sentences

PANEL, GAP = 150, 44
MOST_ARMS = 12
COLUMNS = 400  # bars
SUM = 1e-3  # how far weights may be from adding up to 1


def pooling_bars(
    weights: ArrayLike | Mapping[str, ArrayLike],
    *,
    top: int = 5,
    steps: ArrayLike | None = None,
    title: str = "",
    step_label: str = "step",
) -> go.Figure:
    """Pooling weights as bars over time, one facet for each arm, with how spread out they are.

    Args:
        weights: (time,), 0 or more, adding up to 1; or name -> weights, all over the same steps, on one scale.
            Padding is NaN.
        top: of how many heaviest steps the share is stated.
        steps: position of each time step, numbers or datetime64 (time,).
        title: the finding; without one, the arm that looks at the fewest steps.
        step_label: what a step is.
    """
    given = weights if isinstance(weights, Mapping) else {"": weights}
    if not 1 <= len(given) <= MOST_ARMS:
        raise ValueError(f"weights has {len(given)} arms; pass 1 to {MOST_ARMS}.")
    arms = {name: as_weights(f"weights[{name!r}]" if name else "weights", row) for name, row in given.items()}
    length = one_length(arms)
    x = as_steps("steps", steps, length)
    size = block_size(length, COLUMNS)
    facts = {name: words(row, x, top, step_label) for name, row in arms.items()}
    panel = len(arms) * PANEL + (len(arms) - 1) * GAP
    fig = make_subplots(rows=len(arms), cols=1, shared_xaxes=True, vertical_spacing=GAP / panel if len(arms) > 1 else 0)
    for index, (name, row) in enumerate(arms.items()):
        facet(fig, index + 1, row, x, size, step_label)
        if name:
            note = {"xref": "paper", "yref": f"y{index + 1 if index else ''} domain", "xanchor": "left", "x": 0, "y": 1}
            text = f"<b>{name}</b>  {facts[name]}"
            fig.add_annotation(text=text, yanchor="bottom", yshift=3, font={"size": 13}, **note)
    tallest = max(float(np.nanmax(blocks(row, size), initial=0.0)) for row in arms.values())
    fig.update_yaxes(range=[0, 1.08 * tallest], nticks=4, tickformat="~%", rangemode="tozero")
    fig.update_xaxes(title_text=step_label, row=len(arms), col=1)
    gaps = missing(sum(int(np.isnan(row).sum()) for row in arms.values()), "weight")
    pooled = f"{step_label}s pooled {size}:1 (sum)" if size > 1 else ""
    spread = {name: effective(row) for name, row in arms.items()}
    few = min(spread, key=spread.get)
    default = (
        f"The weights{f' of {few}' if few else ''} spread over {number(spread[few])} of {counted(length, step_label)}"
    )
    return finish(
        fig,
        title=title or default,
        subtitle=joined(facts.get("", ""), "dotted: even weights", pooled, gaps),
        alt=sentences(
            f"Bars over time{f', {len(arms)} facets on one scale' if len(arms) > 1 else ''}. "
            f"Across: {step_label}, {moment(x[0])} to {moment(x[-1])}. Up: share of the pooled vector, from 0",
            *(f"{name}: {fact}" if name else capital(fact) for name, fact in facts.items()),
            pooled,
            gaps,
        ),
        panel=panel,
        margin={"t": 18 if "" in arms else 44},
    )


def as_weights(name: str, row: ArrayLike) -> np.ndarray:
    """Weights that are 0 or more and add up to 1 (time,), or an error that says what was received."""
    weights = as_numbers(name, row, "(time,): one batch element and one head", 1)
    low, total = float(np.fmin.reduce(weights)), float(np.nansum(weights))
    if not low >= 0 or abs(total - 1) > SUM:
        raise ValueError(
            f"{name} adds up to {number(total)}, the smallest is {number(low)}; pooling weights are 0 or more and add "
            "up to 1. For signed weights use attention_row."
        )
    return weights


def blocks(row: np.ndarray, size: int) -> np.ndarray:
    """Sums of blocks of weights: shares stay shares; NaN where a block is padding."""
    starts = np.arange(0, len(row), size)
    there = np.add.reduceat(~np.isnan(row), starts)
    return np.where(there > 0, np.add.reduceat(np.nan_to_num(row), starts), np.nan)


def facet(fig: go.Figure, place: int, row: np.ndarray, x: np.ndarray, size: int, step_label: str) -> None:
    """The bars of one arm, and the height that even weights would have."""
    pooled = f"<br>sum of {size} {step_label}s" if size > 1 else ""
    fig.add_trace(
        go.Bar(
            x=pool_steps(x, size),
            y=blocks(row, size).astype(np.float32),
            marker={"color": PALETTE[0], "line": {"width": 0}},
            hovertemplate=f"{step_label} %{{x}}<br>weight %{{y:.3%}}{pooled}<extra></extra>",
            showlegend=False,
        ),
        row=place,
        col=1,
    )
    even = size / max(int((~np.isnan(row)).sum()), 1)
    axis = "" if place == 1 else str(place)
    fig.add_shape(
        type="line", xref="paper", x0=0, x1=1, yref=f"y{axis}", y0=even, y1=even, line={"dash": "dot", "width": 1.5}
    )
    fig.update_layout(bargap=0.12 if len(row) <= 100 else 0)


def entropy(row: np.ndarray) -> float:
    """Shannon entropy of weights, in nats."""
    there = row[np.nan_to_num(row) > 0]
    return float(-(there * np.log(there)).sum())


def effective(row: np.ndarray) -> float:
    """The number of steps that even weights of this entropy would have."""
    return float(np.exp(entropy(row)))


def words(row: np.ndarray, x: np.ndarray, top: int, step_label: str) -> str:
    """How spread out the weights are, in words."""
    count = int((~np.isnan(row)).sum())
    top = min(top, count)
    heaviest = np.argsort(-np.nan_to_num(row, nan=-1.0), kind="stable")[:top]
    return (
        f"entropy {entropy(row):.2f} of {np.log(count):.2f} nats, top {top} hold {row[heaviest].sum():.0%}, "
        f"heaviest {step_label} {moment(x[heaviest[0]])} with {row[heaviest[0]]:.1%}"
    )
