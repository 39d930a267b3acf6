"""A task in which it matters when: one step of a window is marked, and its value is asked for at the end."""

import torch

from workbench.data.windows import Batch
from workbench.shapes import Int, Tensor


class Marked:
    """Windows of noise with one mark, and as the target the value that came with the mark.

    The value is drawn from N(0, 1) at every step, marked or not, and the mark falls on each step alike. Who always
    says 0, the mean of all answers, has a mean absolute error of sqrt(2 / pi) = 0.80; the best answer has none.

    Args:
        rows: windows N.
        steps: length T of each.
        seed: of everything drawn.
    """

    def __init__(self, rows: int, steps: int, *, seed: int) -> None:
        if min(rows, steps) < 1:
            raise ValueError(f"rows={rows} and steps={steps} leave nothing to mark; give 1 or more of both.")
        g = torch.Generator().manual_seed(seed)
        value = torch.randn(rows, steps, generator=g)
        self.at: Int[Tensor, " N"] = torch.randint(steps, (rows,), generator=g)  # the marked step of each window
        mark = torch.nn.functional.one_hot(self.at, steps).float()
        self.past = torch.stack([value, mark], -1)  # (N, T, 2)
        self.target = value.gather(1, self.at[:, None])  # (N, 1)

    def __len__(self) -> int:
        return len(self.past)

    def __getitem__(self, which: Int[Tensor, " B"]) -> Batch:
        target = self.target[which]
        return Batch(self.past[which], target.new_zeros(len(target), 1, 0), target)
