"""Which memory is the latch, what do its gates do at the marks, and how much of it belongs to the last mark?"""

from typing import NamedTuple

import numpy as np
from torch import nn

from workbench.data.latch import Latch
from workbench.experiments.latch import CELL, error
from workbench.shapes import Bool, Tensor
from workbench.trace.attention import effective_attention
from workbench.trace.edits import Edit, force, mask
from workbench.trace.store import Trace

SETTLE = 1  # a mark is written at its step and at this many after it: the mLSTM's convolution sees two steps


def memories(trace: Trace, name: str) -> np.ndarray:
    """A quantity with one column for each memory (B, T, M): each unit of an sLSTM, each head of an mLSTM."""
    values = np.moveaxis(trace.read(name), 2, 1)
    return values.reshape(*values.shape[:2], -1)


def memory_name(trace: Trace, memory: int, cell: str = CELL) -> str:
    """The head, and the unit where heads have several memories."""
    shape = trace.read(f"{cell}.log_forget").shape
    return f"head {memory}" if len(shape) == 3 else "head {}, unit {}".format(*divmod(memory, shape[3]))


class Contrast(NamedTuple):
    """What the gates of each memory do at marks, and what elsewhere; all (M,).

    A constant that is added to all of its log input gates changes nothing in an sLSTM: what counts is `opening`.
    """

    opening: np.ndarray  # mean log input gate at marks, less that elsewhere
    told_apart: np.ndarray  # chance that the input gate is higher at a mark than at another step; 0.5 tells nothing
    kept: np.ndarray  # forget gate elsewhere, geometric mean
    left: np.ndarray  # forget gate at marks, geometric mean


def contrast(trace: Trace, marked: Bool[Tensor, "B T"], cell: str = CELL) -> Contrast:
    """Compare gates at marks with gates elsewhere."""
    at = marked.numpy()
    log_input, log_forget = (memories(trace, f"{cell}.{name}") for name in ("log_input", "log_forget"))
    return Contrast(
        log_input[at].mean(0) - log_input[~at].mean(0),
        np.array([told_apart(high, low) for high, low in zip(log_input[at].T, log_input[~at].T, strict=True)]),
        np.exp(log_forget[~at].mean(0)),
        np.exp(log_forget[at].mean(0)),
    )


def told_apart(high: np.ndarray, low: np.ndarray) -> float:
    """Chance that one of `high` is above one of `low`, ties half: the area under the ROC curve."""
    low = np.sort(low)
    below, upto = (np.searchsorted(low, high, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(low)))


def share_of_mark(trace: Trace, age: Tensor, cell: str = CELL) -> np.ndarray:
    """How much of each memory was written at the last mark, input and forget gates together (B, M, T).

    The weights of all past steps in the answer, without their signs, make 1; the share is that of the mark and of
    the step after it. NaN before the first mark.
    """
    weights = np.abs(effective_attention(trace, cell))
    total = weights.sum(-1)
    share = np.zeros_like(total)
    mark = np.arange(total.shape[2]) - age.numpy()  # (B, T)
    for after in range(SETTLE + 1):
        there = (age.numpy() >= after) & (mark >= 0)
        place = np.where(there, mark + after, 0)[:, None, :, None]
        share += np.where(there[:, None], np.take_along_axis(weights, place, -1)[..., 0], 0)
    share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    return np.where((mark >= 0)[:, None], share, np.nan)


def left_by_forgetting(trace: Trace, age: Tensor, cell: str = CELL) -> np.ndarray:
    """What the forget gates alone leave of what was there one step after the last mark (B, M, T), NaN before it."""
    total = np.cumsum(memories(trace, f"{cell}.log_forget").astype(np.float64), 1)  # (B, T, M)
    mark = np.arange(total.shape[1]) - age.numpy()
    since = np.where(mark < 0, 0, np.minimum(mark + SETTLE, np.arange(total.shape[1])))
    left = np.exp(total - np.take_along_axis(total, since[..., None], 1))
    return np.where((mark >= 0)[:, None], np.moveaxis(left, 2, 1), np.nan)


def by_age(values: np.ndarray, age: Tensor, memory: int, longest: int) -> np.ndarray:
    """A quantity of one memory at 0 ... longest steps after a mark: mean of each stream (B, longest + 1)."""
    wanted = age.numpy()[..., None] == np.arange(longest + 1)  # (B, T, A)
    count = wanted.sum(1)
    total = (np.nan_to_num(values[:, memory])[..., None] * wanted).sum(1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def without_each_head(model: nn.Module, data: Latch, heads: int) -> list[float]:
    """The error without the answer of each head."""
    return [error(model, data, mask(CELL, head)) for head in range(heads)]


def the_latch(trace: Trace, age: Tensor, masked: list[float]) -> int:
    """Number of the latch: the memory that is full of its mark, and whose head is missed.

    It is the largest product of the share of the mark in a memory and the error without its head, chance at most: a
    head can be missed for what it does at the marks alone, and a full memory may be one that nobody reads.
    """
    share = np.nanmean(share_of_mark(trace, age), (0, 2)).reshape(len(masked), -1)
    return int((share * np.minimum(masked, 1)[:, None]).argmax())


def held_still(trace: Trace, *names: str) -> list[Edit]:
    """Gates held at what each memory's are on average in a trace, so that they react to nothing."""
    return [force(trace.find(name), trace.read(name).mean((0, 2), keepdims=True)) for name in names]


def interventions(trace: Trace, cell: str = CELL) -> dict[str, list[Edit]]:
    """What is done to the gates of a cell, from a trace of other streams than those it is tried on."""
    write, keep = f"{cell}.log_input", f"{cell}.log_forget"
    return {
        "as it learned": [],
        "input gate held at its mean": held_still(trace, write),
        "forget gate held at its mean": held_still(trace, keep),
        "both held at their means": held_still(trace, write, keep),
        "forget gate := 0.5": [force(f"{cell}.forget", 0.5)],
        "forget gate := 1": [force(f"{cell}.forget", 1.0)],
    }
