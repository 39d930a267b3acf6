"""Is one model better than another, over seeds as well as over data? Paired differences with an interval for both."""

import math
from dataclasses import dataclass

from workbench.experiments.compare import Paired, student_95
from workbench.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class OverSeeds(Paired):
    """A paired difference whose interval holds both what varies over blocks of data and what varies over seeds.

    Attributes:
        seeds: how many trainings of each model there are.
        agree: in how many of them the difference has the sign of the mean.
    """

    seeds: int
    agree: int


def over_seeds(first: Float[Tensor, "S N P"], second: Float[Tensor, "S N P"], blocks: Int[Tensor, " N"]) -> OverSeeds:
    """Compare the absolute errors of two models on the same windows, trained from the same seeds.

    The variance of the mean difference is that over blocks, of the mean over seeds, by the number of blocks, and
    that over seeds, of the mean over blocks, by the number of seeds; Student's t has the degrees of freedom of
    Welch and Satterthwaite, rounded down. What varies with both is counted twice: the interval errs to the wide side.

    Args:
        first, second: absolute errors in the data's unit; seed s of one goes with seed s of the other (S, N, P).
        blocks: number of the block of each window; windows of one block do not count one by one (N,).

    References:
        Welch (1947), The generalization of Student's problem, Biometrika 34(1-2).

    Raises:
        ValueError: fewer than two seeds or blocks.
    """
    difference = (first - second).double().mean(2)
    names = blocks.unique()
    if len(difference) < 2 or len(names) < 2:
        raise ValueError(
            f"{len(difference)} seeds and {len(names)} blocks say nothing of what varies; give two or more of both."
        )
    by_block = difference.new_tensor([difference[:, blocks == name].mean() for name in names])
    means = difference.new_tensor([[row[blocks == name].mean() for name in names] for row in difference])
    by_seed = means.mean(1)
    parts = [(float(by.var()) / len(by), len(by) - 1) for by in (by_block, by_seed)]
    total = sum(variance for variance, _ in parts)
    share = sum(variance**2 / freedom for variance, freedom in parts)
    freedom = max(int(total**2 / share), 1) if share > 0 else 1
    middle = float(by_block.mean())
    half = student_95(freedom) * math.sqrt(total)
    agree = int((by_seed.sign() == math.copysign(1, middle)).sum())
    return OverSeeds(middle, middle - half, middle + half, len(names), seeds=len(difference), agree=agree)
