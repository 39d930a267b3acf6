"""How few steps hold how much of an answer."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers, quantiles
from workbench.plots.attention import LEVELS
from workbench.plots.labels import End, label_ends, room_for
from workbench.plots.scales import decade
from workbench.plots.style import Category, categories, counted, faded, finish, joined, number, sentences

PANEL = 300


def coverage(rows: ArrayLike | Mapping[str, ArrayLike], *, title: str = "", step_label: str = "step") -> go.Figure:
    """How few steps hold how much of an answer: share of the absolute weight in its heaviest steps.

    Args:
        rows: weights of some answers (Q, T), or name -> weights. Each name has a line, the median over its answers,
            and a band over the middle half of them. Answers without any weight are left out, and counted.
        title: the finding; without one, how many steps hold 90 %.
        step_label: what is read.
    """
    given = rows if isinstance(rows, Mapping) else {"weights": rows}
    if not given:
        raise ValueError("rows is empty; pass at least one name with weights (Q, T).")
    looks = categories(list(given), "coverage")
    fig, ends, counts, skipped, longest = go.Figure(), [], {}, 0, 1
    for name, weights in given.items():
        held, empty = shares(as_numbers(f"rows[{name!r}]", weights, "(answers, steps)", 2), name)
        middle = coverage_line(fig, name, looks[name], held, step_label)
        counts[name] = {level: (held < level * (1 - 1e-9)).sum(axis=0) + 1 for level in LEVELS}
        longest, skipped = max(longest, len(held)), skipped + empty
        full = int((middle < 0.995).sum())
        ends.append(End(np.log10(full + 1), float(middle[min(full, len(middle) - 1)]), name, looks[name]))
    ends = [end._replace(x=np.log10(max(longest, 2))) for end in ends]
    if len(ends) > 1:
        label_ends(fig, ends, 0.0, 1.04, PANEL)
    top = np.log10(max(longest, 2))
    powers = np.arange(0, np.floor(top) + 1)
    fig.update_xaxes(type="log", range=[0, top], tickvals=10**powers, ticktext=[decade(power) for power in powers])
    fig.update_xaxes(title_text=f"heaviest {step_label}s of an answer")
    fig.update_yaxes(
        range=[0, 1.04], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 0.9, 1], title_text="share of the weight"
    )
    for level in LEVELS:
        fig.add_shape(type="line", xref="paper", x0=0, x1=1, y0=level, y1=level, line={"dash": "dot"}, layer="below")
    said = [
        f"{name}: 50 % in {number(np.median(of[0.5]))}, 90 % in {number(np.median(of[0.9]))} {step_label}s"
        f" (median of {counted(len(of[0.5]), 'answer')})"
        for name, of in counts.items()
    ]
    few = min(counts, key=lambda name: np.median(counts[name][0.9]))
    who, held = few if isinstance(rows, Mapping) else "An answer", number(np.median(counts[few][0.9]))
    heading = f"{who} holds 90 % of its weight in {held} of {longest:,} {step_label}s"
    empty = f"{counted(skipped, 'answer')} without any weight left out" if skipped else ""
    return finish(
        fig,
        title=title or heading,
        subtitle=joined(*said, "band: middle half of the answers", empty),
        alt=sentences(
            f"Line plot. Across: number of {step_label}s, the heaviest first, 1 to {longest:,}, logarithmic. "
            "Up: share of the absolute weight that they hold, 0 to 1",
            *said,
            empty,
        ),
        panel=PANEL,
        margin={"r": room_for(ends) if len(ends) > 1 else 24},
    )


def shares(weights: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Share of the absolute weight in the heaviest 1, 2, ... steps (step, answer), and how many answers have none."""
    size = np.abs(np.where(np.isfinite(weights), weights, 0.0))
    some = size.sum(axis=1) > 0
    if not some.any():
        raise ValueError(f"rows[{name!r}] has no weight in any of its {len(size)} answers.")
    held = np.cumsum(-np.sort(-size[some], axis=1), axis=1)
    return (held / held[:, -1:]).T, int((~some).sum())


def coverage_line(fig: go.Figure, name: str, look: Category, held: np.ndarray, step_label: str) -> np.ndarray:
    """One name's median and band; returns the median (step,)."""
    keep = np.unique(np.geomspace(1, len(held), 600).round().astype(np.int64)) - 1
    x = keep + 1
    low, middle, high = quantiles(held[keep], [0.25, 0.5, 0.75])
    style = {"mode": "lines", "showlegend": False}
    if held.shape[1] > 1:
        fill = {"fillcolor": faded(look.colour, 0.18), "hoverinfo": "skip", "line": {"width": 0}}
        for edge, to in ((low, None), (high, "tonexty")):
            fig.add_trace(go.Scatter(x=x, y=edge.astype(np.float32), fill=to, **fill, **style))
    line = {"color": look.colour, "dash": look.dash, "width": 2}
    hover = f"{name}<br>%{{y:.1%}} of the weight in %{{x}} {step_label}s<extra></extra>"
    fig.add_trace(go.Scatter(x=x, y=middle.astype(np.float32), name=name, line=line, hovertemplate=hover, **style))
    return quantiles(held, [0.5])[0]
