"""What a memory writes: the delta rule's errors, and the surprise of Titans."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_steps
from workbench.plots.lanes import Lane, as_heads, as_lengths, notes, one_length, spoken, stack
from workbench.plots.scales import scale_of
from workbench.plots.style import PALETTE, capital, finish, joined, moment, number, sentences


def write_lanes(
    error: ArrayLike | None = None,
    strength: ArrayLike | None = None,
    written: ArrayLike | None = None,
    *,
    steps: ArrayLike | None = None,
    title: str = "",
    head_label: str = "head",
    step_label: str = "step",
) -> go.Figure:
    """The delta rule over time: how wrong the memory was, how much of that is written, how long the write is.

    Args:
        error: length of the error |v - S^T k| (time, head), on a log axis.
        strength: write strength beta (time, head).
        written: length of what is written (time, head), on a log axis.
        steps: position of each time step, numbers or datetime64 (time,).
        title: the finding; without one, the longest write. A lane that is None is left out.
        head_label, step_label: what the axes are.
    """
    given = {"error": error, "strength": strength, "written": written}
    arrays = {name: as_lengths(name, values) for name, values in given.items() if values is not None}
    x = as_steps("steps", steps, one_length(arrays))
    captions = {"error": "Length of the error", "strength": "Write strength", "written": "Length of what is written"}
    lanes = [
        Lane(captions[name], values, log=name != "strength", zero=name == "strength") for name, values in arrays.items()
    ]
    fig, panel = stack(lanes, x, head_label, step_label)
    last, said = lanes[-1], "Every value is missing"
    if np.isfinite(last.values).any():
        said = (
            f"{last.caption}: {number(np.nanmedian(last.values))} as a rule, {number(np.nanmax(last.values))} at most"
        )
    return finish(
        fig,
        title=title or said,
        subtitle=joined(*notes(lanes)),
        alt=sentences(
            f"{len(lanes)} lanes over one time axis, {step_label}",
            *(spoken(lane, x, head_label, step_label) for lane in lanes),
            notes(lanes)[-1],
        ),
        panel=panel,
        margin={"t": 56},
    )


def surprise_lanes(
    surprise: ArrayLike,
    surprise_norm: ArrayLike | None = None,
    *,
    forget: ArrayLike | None = None,
    momentum: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
    top: int = 5,
    steps: ArrayLike | None = None,
    title: str = "",
    head_label: str = "head",
    step_label: str = "step",
) -> go.Figure:
    """Titans over time: surprise and what is left of it with momentum as lines, the gates as strips.

    Args:
        surprise: length of the memory's error at each step (time, head), on a log axis.
        surprise_norm: length of what moves the memory, momentum included (time, head), on a log axis.
        forget, momentum: gates in [0, 1] (time, head).
        step_size: 0 or more (time, head), on a colour scale of its own.
        top: how many of the most surprising steps are ringed and named: by the mean over heads.
        steps: position of each time step, numbers or datetime64 (time,).
        title: the finding; without one, the most surprising step.
        head_label, step_label: what the axes are.
    """
    arrays = {"surprise": as_lengths("surprise", surprise)}
    if surprise_norm is not None:
        arrays["surprise_norm"] = as_lengths("surprise_norm", surprise_norm)
    gates = {"forget": forget, "momentum": momentum, "step_size": step_size}
    arrays |= {name: as_heads(name, values) for name, values in gates.items() if values is not None}
    x = as_steps("steps", steps, one_length(arrays))
    lanes = [
        gate_lane(name, values) if name in gates else surprise_lane(name, values) for name, values in arrays.items()
    ]
    fig, panel = stack(lanes, x, head_label, step_label)
    first = most(arrays["surprise"], top)
    ringed(fig, arrays["surprise"], x, first, step_label)
    named = ", ".join(moment(x[at]) for at in first)
    said = f"most surprising {step_label}s: {named}" if len(first) else "no surprise to show"
    return finish(
        fig,
        title=title
        or (f"Most surprised at {step_label} {moment(x[first[0]])}" if len(first) else "Every value is missing"),
        subtitle=joined(said, *notes(lanes)),
        alt=sentences(
            f"{len(lanes)} lanes over one time axis, {step_label}",
            capital(said),
            *(spoken(lane, x, head_label, step_label) for lane in lanes),
            notes(lanes)[-1],
        ),
        panel=panel,
        margin={"t": 56},
    )


def surprise_lane(name: str, values: np.ndarray) -> Lane:
    """A lane of lengths."""
    return Lane({"surprise": "Surprise", "surprise_norm": "Surprise with momentum"}[name], values, log=True)


def gate_lane(name: str, values: np.ndarray) -> Lane:
    """A strip of a gate; its caption says what its colours mean."""
    scale = scale_of("positive" if name == "step_size" else "bounded", values, len(values))
    caption = {"forget": "Forget gate", "momentum": "Momentum", "step_size": "Step size"}[name]
    return Lane(f"{caption}, dark 0 … bright {number(scale.high)}", values, scale=scale)


def most(surprise: np.ndarray, top: int) -> np.ndarray:
    """The most surprising steps, the first one first, by the mean over heads."""
    there = np.isfinite(surprise)
    mean = np.where(there, surprise, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    mean[~there.any(axis=1)] = -np.inf
    top = min(top, int(there.any(axis=1).sum()))
    return np.argsort(-mean, kind="stable")[:top]


def ringed(fig: go.Figure, surprise: np.ndarray, x: np.ndarray, at: np.ndarray, step_label: str) -> None:
    """A ring around each of the most surprising steps, at its highest head."""
    ring = {"size": 12, "symbol": "circle-open", "color": PALETTE[3], "line": {"width": 2}}
    fig.add_trace(
        go.Scatter(
            x=x[at],
            y=np.nanmax(surprise[at], axis=1) if len(at) else [],
            text=[f"number {place}" for place in range(1, len(at) + 1)],
            mode="markers",
            marker=ring,
            hovertemplate=f"%{{text}} in surprise, {step_label} %{{x}}<extra></extra>",
            showlegend=False,
        )
    )
