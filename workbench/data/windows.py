"""Windows over a series, split in time order; the scaler sees training rows only.

A window stands at an origin: the first step that is to be forecast. What lies before it is the past,
what lies from it on is the target; nothing in the past or in what is known reaches the target's values.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from workbench.data.calendar import calendar, seasons
from workbench.data.series import Series
from workbench.shapes import Float, Int, Tensor


class Batch(NamedTuple):
    """Windows side by side."""

    past: Tensor  # the target first, then the calendar (B, T, F)
    known: Tensor  # calendar and seasonal lags of the steps ahead (B, P, G)
    target: Tensor  # scaled (B, P)


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each channel (C,), from training rows."""

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, names: tuple[str, ...]) -> "Scaler":
        """Measure the rows (T, C), NaN left out.

        Raises:
            ValueError: a channel is constant or never measured.
        """
        for name, column in zip(names, values.T, strict=True):
            seen = column[~np.isnan(column)]
            if not len(seen):
                raise ValueError(f"{name!r} was never measured in the training rows; leave it out.")
            if seen.min() == seen.max():
                raise ValueError(f"{name!r} is constant ({seen[0]:g}) in the training rows: there is nothing to learn.")
        return cls(names, np.nanmean(values, 0), np.nanstd(values, 0))


class Windows:
    """All windows of one part of a series; `windows[index] -> Batch`.

    Args:
        table: everything the windows read, one row for each step.
        index: origin and channel of each window (N, 2).
    """

    def __init__(self, table: "Table", index: Int[Tensor, "N 2"]) -> None:
        self.table, self.index = table, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, which: Int[Tensor, " B"]) -> Batch:
        table = self.table
        origin, channel = self.index[which].unbind(1)
        back = origin[:, None] + torch.arange(-table.window, 0)  # (B, T)
        ahead = origin[:, None] + torch.arange(table.horizon)  # (B, P)
        lags = [table.scaled[ahead - lag, channel[:, None]] for lag in table.seasons]
        past = torch.cat([table.scaled[back, channel[:, None]][..., None], table.calendar[back]], -1)
        known = torch.cat([table.calendar[ahead], *(lag[..., None] for lag in lags)], -1)
        return Batch(past, known, table.scaled[ahead, channel[:, None]])

    def thin(self, most: int) -> "Windows":
        """At most so many windows, evenly spread."""
        keep = torch.linspace(0, len(self) - 1, min(most, len(self))).round().long()
        return Windows(self.table, self.index[keep])

    def unscale(self, values: Float[Tensor, "N ..."]) -> Float[Tensor, "N ..."]:
        """Scaled values of all windows, in their order, in the data's unit."""
        channel = self.index[:, 1].numpy()
        shape = (-1,) + (1,) * (values.ndim - 1)
        mean, std = (
            torch.from_numpy(x[channel]).reshape(shape) for x in (self.table.scaler.mean, self.table.scaler.std)
        )
        return values * std + mean


@dataclass(frozen=True)
class Table:
    """What windows read: one row for each step of the series."""

    scaled: Tensor  # values, scaled (T, C), float32
    calendar: Tensor  # (T, G), float32
    scaler: Scaler
    seasons: tuple[int, ...]  # lags in steps
    window: int
    horizon: int


class Split(NamedTuple):
    """Windows of the three parts, in time order, and how many were left out."""

    train: Windows
    valid: Windows
    test: Windows
    skipped: int  # windows that touch a step that was not measured


def split(
    series: Series, *, window: int, horizon: int, train: float = 0.7, valid: float = 0.15, stride: int = 1
) -> Split:
    """Cut a series into windows: the first rows for training, then validation, the last for the test.

    Targets of a part lie inside it; the past of its first windows may reach into the part before.

    Args:
        series: the data.
        window: steps of the past, T.
        horizon: steps ahead, P.
        train, valid: shares of the rows.
        stride: steps between the origins of two test windows.

    Raises:
        ValueError: too few rows for one window in each part.
    """
    rows = len(series.times)
    edges = (0, int(rows * train), int(rows * (train + valid)), rows)
    lags = seasons(series.step_hours, horizon, edges[1])
    first = max([window, *lags])
    if edges[1] - first < horizon or min(edges[2] - edges[1], edges[3] - edges[2]) < horizon:
        need = max(int(np.ceil((first + horizon) / train)), int(np.ceil(horizon / min(valid, 1 - train - valid))) + 1)
        raise ValueError(
            f"{series.source} has {rows} rows; window={window} and horizon={horizon} need at least {need}. "
            "Take a shorter window or horizon, or more data."
        )
    scaler = Scaler.fit(series.values[: edges[1]], series.names)
    scaled = torch.from_numpy(((series.values - scaler.mean) / scaler.std).astype(np.float32))
    clock = torch.from_numpy(calendar(series.times, series.step_hours))
    table = Table(scaled, clock, scaler, lags, window, horizon)
    whole = measured(series.values, window, horizon, lags)
    parts, skipped = [], 0
    for k, (start, end) in enumerate(pairwise(edges)):
        origins = np.arange(max(start, first), end - horizon + 1, stride if k == 2 else 1)
        skipped += int((~whole[origins]).sum())
        at, channel = np.nonzero(whole[origins])
        parts.append(Windows(table, torch.from_numpy(np.stack([origins[at], channel], 1))))
    if not all(len(part) for part in parts):
        raise ValueError(f"{series.source}: every window of a part touches a missing value; fill the gaps first.")
    return Split(*parts, skipped)


def measured(values: np.ndarray, window: int, horizon: int, lags: tuple[int, ...]) -> np.ndarray:
    """Whether everything that a window at an origin reads was measured (T, C)."""
    holes = np.isnan(values)
    total = np.concatenate([np.zeros((1, values.shape[1]), int), np.cumsum(holes, 0)])

    def clean(start: int, end: int) -> np.ndarray:
        at = np.arange(len(values))
        low, high = (np.clip(at + edge, 0, len(values)) for edge in (start, end))
        return total[high] == total[low]

    return np.logical_and.reduce([clean(-window, horizon), *(clean(-lag, horizon - lag) for lag in lags)])
