"""What plots ask of arrays: the right shape, fewer points, and where the extremes are."""

import numpy as np
from numpy.typing import ArrayLike

LONG = 5000  # points of a line that are drawn as they are


def as_numbers(name: str, values: ArrayLike, dims: str, *ranks: int) -> np.ndarray:
    """The values as float64, of one of the ranks, or an error that says what was expected."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in ranks:
        raise ValueError(f"{name} has shape {array.shape}; it needs {dims}. Reshape it, or pick one batch element.")
    if array.size == 0:
        raise ValueError(f"{name} is empty (shape {array.shape}); pass at least one value, as {dims}.")
    return array


def as_steps(name: str, steps: ArrayLike | None, length: int) -> np.ndarray:
    """Positions on the time axis: numbers or datetime64, one for each of `length` steps."""
    if steps is None:
        return np.arange(length)
    array = np.asarray(steps)
    if array.dtype == object:  # datetime objects
        array = array.astype("datetime64[us]")
    if array.shape != (length,):
        raise ValueError(f"{name} has shape {array.shape}, and the values have {length} steps; pass one per step.")
    return array


def block_size(length: int, to: int) -> int:
    """How many neighbours share one block, so that at most `to` blocks remain."""
    if to < 1:
        raise ValueError(f"pool_to={to} leaves nothing to draw; pass at least 1.")
    return -(-length // to)


def pool_mean(values: np.ndarray, size: int) -> np.ndarray:
    """Means of blocks of `size` along the first axis, without NaN; NaN where a block has nothing else."""
    if size == 1:
        return values
    starts = np.arange(0, len(values), size)
    present = ~np.isnan(values)
    total = np.add.reduceat(np.where(present, values, 0.0), starts, axis=0)
    count = np.add.reduceat(present.astype(np.int64), starts, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def pool_steps(steps: np.ndarray, size: int) -> np.ndarray:
    """The middle of each block on the time axis."""
    starts = np.arange(0, len(steps), size)
    ends = np.minimum(starts + size, len(steps)) - 1
    return steps[starts] + (steps[ends] - steps[starts]) / 2 if size > 1 else steps


def min_max(x: np.ndarray, y: np.ndarray, points: int = 2000, above: int = LONG) -> tuple[np.ndarray, np.ndarray, int]:
    """A long line thinned to the lowest and highest point of each bucket, so that no spike is lost.

    Args:
        x, y: the line (T,). NaN in y are gaps, and stay gaps.
        points: about how many points to keep.
        above: lines of up to this many points are left alone.

    Returns:
        x and y of the points kept, in order, and the size of a bucket (1: nothing was left out).
    """
    if len(y) <= above:
        return x, y, 1
    size = -(-len(y) // (points // 2))
    buckets = -(-len(y) // size)
    padded = np.full(buckets * size, np.nan)
    padded[: len(y)] = y
    grid = padded.reshape(buckets, size)
    gap = np.isnan(grid)
    gap[-1, len(y) - (buckets - 1) * size :] = False  # the padding is no gap
    base = np.arange(buckets) * size
    low = base + np.where(np.isnan(grid), np.inf, grid).argmin(axis=1)
    high = base + np.where(np.isnan(grid), -np.inf, grid).argmax(axis=1)
    holes = (base + gap.argmax(axis=1))[gap.any(axis=1)]
    keep = np.unique(np.concatenate([[0, len(y) - 1], low, high, holes]))
    return x[keep], y[keep], size


def extremes(values: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Where the lowest and the highest value are, or None where all are missing."""
    if np.isnan(values).all():
        return None
    low = np.unravel_index(np.nanargmin(values), values.shape)
    high = np.unravel_index(np.nanargmax(values), values.shape)
    return tuple(int(i) for i in low), tuple(int(i) for i in high)


def quantiles(values: np.ndarray, shares: list[float]) -> np.ndarray:
    """Quantiles of each row of (time, unit) without its NaN, (share, time); NaN where a row has nothing else.

    Sorting whole rows is a hundred times faster than `np.nanquantile`, which visits them one by one.
    """
    if values.shape[1] == 1:
        return np.repeat(values.T, len(shares), axis=0)
    ordered = np.sort(values, axis=1)  # NaN go last
    last = np.maximum((~np.isnan(values)).sum(axis=1) - 1, 0)
    rows = np.arange(len(values))
    result = []
    for share in shares:
        place = share * last
        below = np.floor(place).astype(np.int64)
        low, high = ordered[rows, below], ordered[rows, np.minimum(below + 1, last)]
        result.append(low + (high - low) * (place - below))
    return np.stack(result)
