"""Is one forecaster better than another? Paired differences, block by block, with an interval."""

import math
from dataclasses import dataclass

import torch

from workbench.data.windows import Windows
from workbench.shapes import Float, Tensor


@dataclass(frozen=True)
class Paired:
    """The mean difference of two errors over blocks, and its 95 % interval.

    Attributes:
        difference: first minus second, in the data's unit; negative favours the first.
        low, high: interval from the spread over blocks (Student's t).
        blocks: how many there are.
    """

    difference: float
    low: float
    high: float
    blocks: int

    @property
    def verdict(self) -> str:
        """The first against the second, in words."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "not distinguishable"


def paired(first: Float[Tensor, "N P"], second: Float[Tensor, "N P"], blocks: Tensor) -> Paired:
    """Compare the absolute errors of the same windows.

    Neighbouring windows share most of their hours and do not count one by one: their differences are averaged
    over each block, and the blocks are what varies.

    Args:
        first, second: absolute errors in the data's unit (N, P).
        blocks: number of the block of each window (N,).
    """
    difference = (first - second).double().mean(1)
    means = torch.stack([difference[blocks == block].mean() for block in blocks.unique()])
    n = len(means)
    middle = float(means.mean())
    if n < 2:
        return Paired(middle, -math.inf, math.inf, n)
    half = student_95(n - 1) * float(means.std()) / math.sqrt(n)
    return Paired(middle, middle - half, middle + half, n)


def blocks_of(windows: Windows, reach: int) -> Tensor:
    """Block of each window (N,): its channel where there are at least five, else a stretch of time.

    Args:
        windows: what was forecast.
        reach: steps over which errors hang together, the longer of a day and the horizon. A stretch is three
            times as long, so the windows that two neighbours share are few.
    """
    origin, channel = windows.index.unbind(1)
    return channel if len(channel.unique()) >= 5 else origin // (3 * reach)


def student_95(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t, by Cornish-Fisher: within 1 % from 3 degrees of freedom on."""
    table = {1: 12.706, 2: 4.303}
    if freedom in table:
        return table[freedom]
    z = 1.959964
    terms = [z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384]
    return sum(term / freedom**k for k, term in enumerate(terms))
