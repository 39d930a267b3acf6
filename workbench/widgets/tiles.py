"""Stretches of a trace as small pictures of numbers: pooled, rounded to 16 bits, so that a million steps can scroll.

Level 0 has one column for each step; each level above pools four columns of the one below into one.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np

from workbench.trace.names import Kind, dimensions

COLUMNS = 512  # of one tile
FACTOR = 4  # columns that the next level makes into one
COARSEST = 1024  # columns of the highest level, at most
GONE = 65535  # the code of what is not a number
TOP = 65534  # the code of a tile's highest value
CHUNK = 2**22  # values that are read at once


class Readable(Protocol):
    """What tiles are cut from: a trace, or the difference of two."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A stretch of time of one quantity."""


class Difference(NamedTuple):
    """What one trace has more than another, step by step."""

    after: Readable
    before: Readable

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The difference over a stretch of time; where both are the same infinity, 0."""
        a, b = (trace.read(name, start, stop) for trace in self)
        with np.errstate(invalid="ignore"):
            return np.where(a == b, 0.0, a - b)


class Tile(NamedTuple):
    """Up to 512 columns of one quantity, in 16 bits between `low` and `high`: off by at most (high - low) / 65534.

    Infinities are drawn as `low` and `high`; they and what is not a number are counted before pooling.
    """

    codes: np.ndarray  # (plane, row, column): the mean; where columns are pooled, also the lowest and the highest
    low: float
    high: float
    missing: int
    infinite: int


def levels(steps: int) -> int:
    """How many levels a time axis has: until one has at most 1,024 columns."""
    count = 1
    while math.ceil(steps / FACTOR ** (count - 1)) > COARSEST:
        count += 1
    return count


def stretch(source: Readable, path: str, start: int, stop: int, kind: Kind) -> np.ndarray:
    """A stretch of time as (batch, group, time, row).

    A quantity of units has one group for each head, and its units as rows; another has one group, and its heads as
    rows. Half-lives come as their decimal logarithm.
    """
    values = np.asarray(source.read(path, start, stop), dtype=np.float32)
    dims = dimensions(path, values.ndim)
    if dims == ("batch", "time"):
        values = values[:, None, :, None]
    elif dims == ("batch", "head", "time"):
        values = values.transpose(0, 2, 1)[:, None]
    elif dims != ("batch", "head", "time", "unit"):
        raise ValueError(f"{path} has dims {', '.join(dims)}; only what has a time axis can be drawn over time.")
    if kind == "steps":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log10(values)
    return values


def pool(values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lowest and highest of blocks of `size` steps (..., time, row), without what is not a number."""
    *front, steps, rows = values.shape
    blocks = math.ceil(steps / size)
    padded = np.full((*front, blocks * size, rows), np.nan, dtype=np.float32)
    padded[..., :steps, :] = values
    padded = padded.reshape(*front, blocks, size, rows)
    there = ~np.isnan(padded)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.where(there, padded, 0).sum(-2, dtype=np.float64)
        mean = (total / np.where(there.any(-2), there.sum(-2), np.nan)).astype(np.float32)
    return mean, np.fmin.reduce(padded, -2), np.fmax.reduce(padded, -2)


def quantise(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Numbers as 16 bits between their lowest and highest finite one; NaN is 65535."""
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    span = (high - low) or 1.0
    codes = np.where(np.isnan(values), low, np.clip(values, low, high))
    codes = np.rint((codes - low) / span * TOP).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(GONE), codes), low, high


def restore(tile: Tile) -> np.ndarray:
    """The numbers of a tile (plane, row, column), NaN where something is missing."""
    values = tile.low + tile.codes.astype(np.float64) / TOP * (tile.high - tile.low)
    return np.where(tile.codes == GONE, np.nan, values)


def tiles_at(source: Readable, path: str, steps: int, level: int, index: int, kind: Kind) -> dict[tuple, Tile]:
    """The tiles of all sequences and groups at one place: (batch, group) to tile.

    Args:
        source: where to read.
        path: the quantity.
        steps: length of its time axis.
        level, index: which columns; those of a tile are read in pieces, whatever the level.
        kind: its kind, see workbench.trace.names.
    """
    size = FACTOR**level
    start, stop = index * COLUMNS * size, min((index + 1) * COLUMNS * size, steps)
    if not 0 <= start < stop:
        raise ValueError(f"{path} has {steps} steps, and no tile {index} at level {level}.")
    width = stretch(source, path, start, start + 1, kind).size
    piece = max(1, CHUNK // (width * size)) * size
    found, missing, infinite = [], 0, 0
    for at in range(start, stop, piece):
        values = stretch(source, path, at, min(at + piece, stop), kind)
        missing = missing + np.isnan(values).sum((-2, -1))
        infinite = infinite + np.isinf(values).sum((-2, -1))
        found.append(pool(values, size) if size > 1 else (values,))
    planes = np.stack([np.concatenate(plane, axis=-2) for plane in zip(*found, strict=True)])
    tiles = {}
    for b, g in np.ndindex(*planes.shape[1:3]):
        coded = quantise(planes[:, b, g].swapaxes(-1, -2))
        tiles[b, g] = Tile(*coded, int(missing[b, g]), int(infinite[b, g]))
    return tiles
