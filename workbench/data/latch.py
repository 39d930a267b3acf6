"""A task whose memory is known: hold a value from one mark to the next, whatever else comes in."""

from typing import NamedTuple

import torch

from workbench.shapes import Float, Int, Tensor


class LatchBatch(NamedTuple):
    """Streams side by side, and what is right at each step."""

    inputs: Tensor  # value, set, reset (B, T, 3)
    target: Tensor  # (B, T)


class Latch:
    """Streams of noise with rare marks: y_t = u_t at a set, 0 at a reset, y_{t-1} elsewhere, and 0 before the first.

    The value u_t is drawn evenly from (-1, 1) at every step, marked or not: nothing but the mark tells which one is
    to be held. Every step is marked with the same chance, 1 / gap; of the marks, three of four set and one resets.

    Args:
        rows: streams N.
        steps: length T of each.
        gap: mean steps from a mark to the next.
        seed: of everything drawn.
    """

    def __init__(self, rows: int, steps: int, *, gap: float = 12.0, seed: int = 0) -> None:
        if gap < 1:
            raise ValueError(f"gap={gap:g} asks for more than one mark in a step; give 1 or more.")
        g = torch.Generator().manual_seed(seed)
        value = 2 * torch.rand(rows, steps, generator=g) - 1
        self.marked = torch.rand(rows, steps, generator=g) < 1 / gap  # (N, T)
        sets = self.marked & (torch.rand(rows, steps, generator=g) < 0.75)
        self.inputs = torch.stack([value, sets.to(value), (self.marked & ~sets).to(value)], -1)
        at = (torch.arange(steps) - self.age).clamp(min=0)  # the last mark, or the first step
        self.target = torch.where(sets, value, 0.0).gather(1, at)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, which: Tensor) -> LatchBatch:
        return LatchBatch(self.inputs[which], self.target[which])

    @property
    def age(self) -> Int[Tensor, "N T"]:
        """Steps since the last mark, 0 at a mark; before the first, T or more."""
        steps = torch.arange(self.marked.shape[1])
        return steps - torch.where(self.marked, steps, -len(steps)).cummax(1).values

    def answer(self, window: int) -> Float[Tensor, "N T"]:
        """The best answer of one who sees the last `window` steps: the value where its mark is among them, else 0.

        With 0 it sees nothing and says 0, the mean of all answers; with 1 it has no memory; with T it is never wrong.
        """
        return torch.where(self.age < window, self.target, 0.0)

    def error(self, answer: Float[Tensor, "N T"]) -> float:
        """Mean squared error as a share of that of always saying 0: 1 is chance, 0 is perfect."""
        return float(((answer - self.target) ** 2).mean() / (self.target**2).mean().clamp(min=1e-30))
