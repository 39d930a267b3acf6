"""Waves that repeat, and the same waves with stretches in which the order of their values is another."""

from typing import NamedTuple

import torch

from workbench.shapes import Bool, Float, Tensor

CYCLE = 8  # steps of the wave in which novelties are planted
SHORTEST, LONGEST = 6, 10


class Planted(NamedTuple):
    """Series with known novelties."""

    values: Float[Tensor, "S T"]
    odd: Bool[Tensor, "S T"]  # where the order is another


def waves(rows: int, steps: int, *, noise: float = 0.1, seed: int = 0) -> Float[Tensor, "N T"]:
    """Series that repeat 6 to 10 values of their own, drawn from N(0, 1), over and over, with a little noise."""
    g = torch.Generator().manual_seed(seed)
    period = torch.randint(SHORTEST, LONGEST + 1, (rows, 1), generator=g)
    shape = torch.randn(rows, LONGEST, generator=g)
    x = shape.gather(1, torch.arange(steps) % period)
    return x + noise * torch.randn(rows, steps, generator=g)


def planted(rows: int, *, spans: int = 6, cycles: int = 3, calm: int = 8, noise: float = 0.1, seed: int = 0) -> Planted:
    """Waves of 8 steps in which stretches of some cycles have the same 8 values in another order, a new one each time.

    No single value is unusual there: only what follows on what. Stretches begin with a cycle.

    Args:
        rows: series S.
        spans: stretches in each.
        cycles: cycles in a stretch.
        calm: cycles before the first stretch; between two of them, it is 3 to 6.
        noise: standard deviation of the noise on each value.
        seed: of everything drawn.
    """
    g = torch.Generator().manual_seed(seed)
    values, odd = [], []
    for _ in range(rows):
        shape, rests = torch.randn(CYCLE, generator=g), torch.randint(3, 7, (spans,), generator=g)
        order, new = [torch.arange(CYCLE)] * calm, [False] * calm
        for rest in rests.tolist():
            order += [torch.randperm(CYCLE, generator=g)] * cycles + [torch.arange(CYCLE)] * rest
            new += [True] * cycles + [False] * rest
        length = calm + spans * (cycles + 6)  # the longest there can be, so that all series have one
        missing = length - len(new)
        values.append(shape[torch.cat(order + [torch.arange(CYCLE)] * missing)])
        odd.append(torch.tensor(new + [False] * missing).repeat_interleave(CYCLE))
    x = torch.stack(values)
    return Planted(x + noise * torch.randn(x.shape, generator=g), torch.stack(odd))
