"""ChannelMix: the position-wise network of RWKV-7, with token shift and squared ReLU."""

from typing import NamedTuple

import torch
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.parts import zero_padding
from workbench.cells.roles import tag
from workbench.cells.token_shift import check_position, fresh_blend, token_shift
from workbench.shapes import Float, Int, Tensor


class ChannelMixState(NamedTuple):
    """What a stream must carry."""

    shift: Tensor  # last input (B, 1, E)


class ChannelMix(nn.Module):
    """W_value relu(W_key x_k)^2, where x_k is x blended with the input before it.

    Args:
        width: model width E.
        layer: position in the stack, from 0; it sets how much of the input before is seen at first.
        layers: layers of the stack.
        factor: hidden width, in widths.

    References:
        Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456.
        Initial values: github.com/BlinkDL/RWKV-LM, RWKV-v7/train_temp/src/model.py.
    """

    role = "core"

    def __init__(self, width: int, *, layer: int = 0, layers: int = 1, factor: int = 4) -> None:
        super().__init__()
        check_position(layer, layers)
        self.width = width
        self.blend = nn.Parameter(fresh_blend(width, (1 - layer / layers) ** 4))
        self.key = tag("projection", nn.Linear(width, factor * width, bias=False))
        self.value = tag("projection", nn.Linear(factor * width, width, bias=False))
        nn.init.orthogonal_(self.key.weight)
        nn.init.zeros_(self.value.weight)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: ChannelMixState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], ChannelMixState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, ChannelMixState, lengths)
        x = zero_padding(x, lengths)
        delta, last = token_shift(x, None if state is None else state.shift, lengths)
        hidden = torch.relu(self.key(x + delta * self.blend)).square()
        return zero_padding(self.value(hidden), lengths), ChannelMixState(last)
