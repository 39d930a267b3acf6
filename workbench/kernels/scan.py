"""What recurrences that feed their output back share: the loop over time, and every state on the way."""

from collections.abc import Callable

import torch

from workbench.kernels.checks import inside
from workbench.shapes import Float, Int, Tensor


def scan(
    step: Callable[..., tuple[Tensor, tuple]],
    wx: Float[Tensor, "G B H T D"],
    r: Float[Tensor, "G H D D"],
    state: tuple,
    lengths: Int[Tensor, " B"] | None,
) -> list[tuple]:
    """Return the memory after each step; behind the end of a sequence it stays as it is."""
    alive = None if lengths is None else inside(lengths, wx.shape[3])[:, :, None, None]  # (B, T, 1, 1)
    seen = []
    for t, now in enumerate(wx.unbind(3)):
        _, after = step(now, r, state)
        if alive is not None:
            after = type(state)(*(torch.where(alive[:, t], new, old) for new, old in zip(after, state, strict=True)))
        state = after
        seen.append(state)
    return seen


def preactivations(
    wx: Float[Tensor, "G B H T D"],
    r: Float[Tensor, "G H D D"],
    first: Float[Tensor, "B H D"],
    h: Float[Tensor, "B H T D"],
) -> Float[Tensor, "G B H T D"]:
    """Recompute what the gates saw: wx + r h_{t-1}, for outputs h that followed the output `first`."""
    before = torch.cat([first[:, :, None], h[:, :, :-1]], 2)
    return wx + torch.einsum("ghde,bhte->gbhtd", r, before)
