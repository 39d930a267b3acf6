"""Token shift, which time mix and channel mix share: each step sees the input before it, in a share per channel.

References:
    Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456.
"""

import torch

from workbench.cells.checks import check_tail
from workbench.shapes import Float, Int, Tensor


def token_shift(
    x: Float[Tensor, "B T E"], last: Float[Tensor, "B 1 E"] | None, lengths: Int[Tensor, " B"] | None
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B 1 E"]]:
    """Return how the input before each step differs from the step's own, and the last input for the next call.

    Args:
        x: inputs (B, T, E), zero behind the end of a sequence.
        last: what the last call returned (B, 1, E); None is a past of zeros.
        lengths: steps of each sequence (B,).

    Returns:
        x_{t-1} - x_t (B, T, E), and the last input of each sequence (B, 1, E).
    """
    if last is None:
        last = torch.zeros_like(x[:, :1])
    check_tail("shift", last, 1, x)
    seen = torch.cat([last, x], 1)
    delta = seen[:, :-1] - x
    if lengths is None:
        return delta, x[:, -1:].clone()  # a view would keep all T steps in memory
    return delta, seen.gather(1, lengths[:, None, None].long().expand(-1, 1, x.shape[2]))


def fresh_blend(width: int, power: float) -> Float[Tensor, " E"]:
    """Shares of the input before: 1 - (i / E)^power for channel i, all of it in the first channel."""
    return 1 - (torch.arange(width) / width) ** power


def check_position(layer: int, layers: int) -> None:
    """Refuse a layer that is not in its stack.

    Raises:
        ValueError: not 0 <= layer < layers.
    """
    if not 0 <= layer < layers:
        raise ValueError(f"layer={layer} is not one of layers={layers}; count from 0 to layers - 1.")
