"""How far back a memory reaches: how long its writes last, over all of them."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers, quantiles
from workbench.plots.retained import DIMS, QUARTILES, SHUT
from workbench.plots.scales import decade
from workbench.plots.style import Category, categories, counted, faded, finish, joined, missing, number, sentences

ROW, THIN_ROW = 40, 14  # px of a head
MOST_HEADS = 64


def memory_reach(
    log_forget: ArrayLike,
    *,
    shares: Sequence[float] = (0.5, 0.1),
    lag: float | None = None,
    title: str = "",
    head_label: str = "head",
    step_label: str = "step",
) -> go.Figure:
    """How long a write lasts in each head: steps until a share of it is left, over all writes.

    The writes are those of the first half, each followed for as many steps as the second half has, so that none is
    cut short by the end; what lasts longer is drawn there. Gates above 1 count as 1.

    Args:
        log_forget: natural log of the forget gate: (time,), (time, head) or (time, head, unit); units of a head are
            pooled.
        shares: of a write that is left, one to three; a dot at the median over writes, a bar over their middle half.
        lag: steps after which the task needs a write.
        title: the finding; without one, the shortest and the longest median.
        head_label, step_label: what the axes are.
    """
    log_f = as_numbers("log_forget", log_forget, DIMS, 1, 2, 3)
    if not 1 <= len(shares) <= 3 or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares={list(shares)} must be one to three numbers between 0 and 1.")
    if len(log_f) < 2:
        raise ValueError(f"log_forget has {counted(len(log_f), 'step')}; a write is followed over 2 at least.")
    heads = log_f.reshape(len(log_f), log_f.shape[1] if log_f.ndim > 1 else 1, -1)
    if heads.shape[1] > MOST_HEADS:
        raise ValueError(f"log_forget has {heads.shape[1]} heads, and {MOST_HEADS} can be drawn; pass some of them.")
    window = len(log_f) // 2
    reaches = {share: reach(heads, share, window) for share in shares}
    fig = go.Figure()
    looks = categories([f"{share:.0%} left" for share in shares], "memory_reach")
    rows, thick = heads.shape[1], heads.shape[1] <= 12
    medians = {}
    for index, (share, (name, look)) in enumerate(zip(shares, looks.items(), strict=True)):
        bands = quantiles(reaches[share].reshape(rows, -1), QUARTILES)
        medians[name] = bands[1]
        offset = (index - (len(shares) - 1) / 2) * 0.3
        reach_dots(fig, name, look, bands, np.arange(rows) + offset, head_label, thick)
    panel = max(120, rows * (ROW if thick else THIN_ROW))
    reach_axes(fig, rows, window, lag, panel, head_label, step_label)
    gaps = missing(int(np.isnan(log_f).sum()), how="passed over")
    said = [reach_words(name, line, window, head_label, step_label) for name, line in medians.items()]
    followed = f"{counted(len(log_f) - window, 'write')} of the first half, each followed for {counted(window, 'step')}"
    return finish(
        fig,
        title=title or said[0],
        subtitle=joined("dot: median, bar: middle half", followed, gaps),
        alt=sentences(
            f"Dot plot. Across: {step_label}s, logarithmic, 1 to {window:,}. Down: {head_label}, 0 to {rows - 1}",
            *said,
            followed,
            gaps,
        ),
        panel=panel,
        margin={"t": 50},
    )


def reach(heads: np.ndarray, share: float, window: int) -> np.ndarray:
    """Steps until a share of each write of the first half is left (head, unit, write), NaN where that is unknown."""
    writes = len(heads) - window
    log_f = np.clip(heads, SHUT, 0.0)
    gone = np.cumsum(np.where(np.isnan(log_f), 0.0, -log_f), axis=0)
    holes = np.cumsum(np.isnan(log_f), axis=0)
    result = np.empty((*heads.shape[1:], writes))
    start = np.arange(writes)
    for place in np.ndindex(heads.shape[1:]):
        total, hole = gone[(slice(None), *place)], holes[(slice(None), *place)]
        first = np.searchsorted(total, total[:writes] - np.log(share) - 1e-9)
        end = np.minimum(first, start + window)
        span = (end - start).astype(np.float64)
        span[hole[end] > hole[:writes]] = np.nan
        span[np.isnan(log_f[(slice(0, writes), *place)])] = np.nan
        result[place] = span
    return result


def reach_dots(
    fig: go.Figure, name: str, look: Category, bands: np.ndarray, y: np.ndarray, head_label: str, thick: bool
) -> None:
    """The medians of one share as dots, on bars over the middle half of the writes."""
    low, middle, high = bands
    ends = np.stack([low, high, np.full(len(y), np.nan)], axis=1).ravel()
    bar = {"color": faded(look.colour, 0.6), "width": 6 if thick else 3}
    style = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "legendgroup": name}
    fig.add_trace(go.Scatter(x=ends, y=np.repeat(y, 3), line=bar, **style))
    fig.add_trace(
        go.Scatter(
            x=middle,
            y=y,
            name=name,
            mode="markers",
            marker={"color": look.colour, "symbol": look.marker, "size": 10 if thick else 6},
            customdata=np.stack([low, high, np.arange(len(y))], axis=1),
            hovertemplate=f"{head_label} %{{customdata[2]}}, {name}<br>median %{{x:.4g}} steps, middle half "
            "%{customdata[0]:.4g} to %{customdata[1]:.4g}<extra></extra>",
            legendgroup=name,
        )
    )


def reach_axes(
    fig: go.Figure, rows: int, window: int, lag: float | None, panel: int, head_label: str, step_label: str
) -> None:
    """Axes of the dot plot, a line where following ends, and the task's lag."""
    end = np.log10(window)
    powers = np.arange(0, np.floor(end) + 1)
    span = [-0.05, max(end, 0.3) * 1.04]
    title = f"{step_label}s until so much is left"
    fig.update_xaxes(
        type="log",
        range=span,
        tickvals=10**powers,
        ticktext=[decade(p) for p in powers],
        title_text=title,
        showgrid=True,
    )
    every = -(-rows // 24)
    fig.update_yaxes(
        range=[rows - 0.5, -0.5], tickvals=np.arange(0, rows, every), title_text=head_label, showgrid=False
    )
    fig.update_layout(legend={"x": 0, "y": 1 + 20 / panel, "yanchor": "bottom"})
    marks = {f"followed to {window:,}": window} | ({f"the task's lag, {number(lag)}": lag} if lag else {})
    for text, at in marks.items():
        dash = {"dash": "dash" if at == lag else "dot"}
        fig.add_shape(type="line", x0=at, x1=at, yref="paper", y0=0, y1=1, line=dash, layer="below")
        fig.add_annotation(x=np.log10(at), yref="paper", y=1, text=text, xanchor="right", yanchor="bottom", yshift=2)


def reach_words(name: str, medians: np.ndarray, window: int, head_label: str, step_label: str) -> str:
    """Shortest and longest median over heads, in words."""
    if not np.isfinite(medians).any():
        return f"{name}: every value is missing"
    low, high = int(np.nanargmin(medians)), int(np.nanargmax(medians))

    def span(at: int) -> str:
        return f"{number(medians[at])}{' or more' if medians[at] >= window else ''}"

    if len(medians) == 1:
        return f"{name} after {span(low)} {step_label}s (median)"
    if medians[low] == medians[high]:
        return f"{name} after {span(low)} {step_label}s in every {head_label} (median)"
    return (
        f"{name} after {span(low)} {step_label}s in {head_label} {low}, {span(high)} in {head_label} {high} (medians)"
    )
