"""The health of a memory: its size, its rank, how far exp is from overflow, and what it is divided by."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_steps
from workbench.plots.lanes import Lane, as_heads, as_lengths, notes, one_length, spoken, stack
from workbench.plots.scales import LIMITS, overflow
from workbench.plots.style import capital, finish, joined, number, sentences

EMPTY = np.empty((0, 0))
TOUCH = 1e-5  # a normaliser this close to its lower bound, in parts of it, is on it


def state_health(
    norm: ArrayLike | None = None,
    rank: ArrayLike | None = None,
    exponent: ArrayLike | None = None,
    normalizer: ArrayLike | None = None,
    *,
    bound: ArrayLike | None = None,
    steps: ArrayLike | None = None,
    title: str = "",
    head_label: str = "head",
    step_label: str = "step",
) -> go.Figure:
    """What can go wrong in a memory, as lanes over one time axis; what is None is left out.

    Args:
        norm: length of the state (time, head), on a log axis.
        rank: effective rank of the state (time, head).
        exponent: what exp is taken of (time, head): log_input - stabilizer, or log_input where nothing
            stabilises it. The overflow of float32 is marked where it comes near.
        normalizer: what the answer is divided by (time, head), on a log axis.
        bound: its lower bound (time, head), such as exp(-stabilizer); grey marks where it is on it.
        steps: position of each time step, numbers or datetime64 (time,).
        title: the finding; without one, the extremes.
        head_label, step_label: what the axes are.
    """
    given = {"norm": norm, "rank": rank, "exponent": exponent, "normalizer": normalizer, "bound": bound}
    arrays = {
        name: (as_heads if name == "exponent" else as_lengths)(name, values)
        for name, values in given.items()
        if values is not None
    }
    x = as_steps("steps", steps, one_length(arrays))
    active = on_bound(arrays) if "bound" in arrays else None
    lanes = lanes_of(arrays, active)
    fig, panel = stack(lanes, x, head_label, step_label)
    facts = [distance(arrays["exponent"])] if "exponent" in arrays else []
    if active is not None and np.isfinite(active).any():
        facts.append(f"the normaliser is on its lower bound in {np.nanmean(active):.0%} of the values")
    return finish(
        fig,
        title=title or found(arrays),
        subtitle=joined(*facts, *notes(lanes)),
        alt=sentences(
            f"{len(lanes)} lanes over one time axis, {step_label}",
            *(spoken(lane, x, head_label, step_label) for lane in lanes),
            *(capital(fact) for fact in facts),
            notes(lanes)[-1],
        ),
        panel=panel,
        margin={"t": 56},
    )


def lanes_of(arrays: dict[str, np.ndarray], active: np.ndarray | None) -> list[Lane]:
    """A lane for each quantity that is there, from top to bottom."""
    grey = ", grey: share of heads on its lower bound" if active is not None else ""
    limits = {f"overflow of {width}": limit for width, limit in LIMITS.items()}
    kinds = {
        "norm": Lane("State norm", EMPTY, log=True),
        "rank": Lane("Effective rank of the state", EMPTY, zero=True),
        "exponent": Lane("Exponent of the write", EMPTY, limits=limits),
        "normalizer": Lane(f"Normaliser{grey}", EMPTY, log=True, shade=active),
    }
    return [lane._replace(values=arrays[name]) for name, lane in kinds.items() if name in arrays]


def on_bound(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Share of heads whose normaliser is on its lower bound (time,).

    Raises:
        ValueError: there is no normaliser of that shape.
    """
    bound, normalizer = arrays["bound"], arrays.get("normalizer")
    if normalizer is None or normalizer.shape != bound.shape:
        have = "none" if normalizer is None else f"one of shape {normalizer.shape}"
        raise ValueError(f"bound has shape {bound.shape}, and the normalizer is {have}; pass both, of one shape.")
    there = np.isfinite(normalizer) & np.isfinite(bound)
    touch = there & (normalizer <= bound * (1 + TOUCH))
    count = there.sum(axis=1)
    return np.where(count > 0, touch.sum(axis=1) / np.maximum(count, 1), np.nan)


def distance(exponent: np.ndarray) -> str:
    """How far exp is from overflow, in words."""
    if not np.isfinite(exponent).any():
        return ""
    largest, limit = float(np.nanmax(exponent)), LIMITS["float32"]
    return overflow(exponent) or f"exponents stay {limit - largest:.1f} below the overflow of float32"


def found(arrays: dict[str, np.ndarray]) -> str:
    """The largest norm and rank, as a title."""
    names = {"norm": "the state norm", "rank": "its effective rank", "normalizer": "the normaliser"}
    seen = [
        f"{name} reaches {number(np.nanmax(arrays[key]))}"
        for key, name in names.items()
        if key in arrays and np.isfinite(arrays[key]).any()
    ]
    said = ", ".join(seen[:2]) or "The exponents of a memory"
    return capital(said)
