"""Blocks in series, carrying the state of each."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from workbench.cells.parts import zero_padding
from workbench.models.block import NormKind, make_norm
from workbench.shapes import Float, Int, Tensor


class StackState(NamedTuple):
    """What a stream through a stack must carry: the state of each block, in order."""

    blocks: tuple


class Stack(nn.Module):
    """Blocks in series, and a norm behind the last.

    Args:
        width: model width E.
        blocks: modules `block(x, state, lengths=, shared=) -> (y, state, shared)`. What the first block shares
            (RWKV-7: its values) reaches every later one, and goes no further than this call.
        norm: the norm behind the last block, as a residual stream needs; None for no norm.
        recompute: keep the input of each block alone, and compute the block again in the backward pass. The
            memory of training then grows with T by `layers` tensors (B, T, E) and the inside of one block,
            instead of the inside of all; gradients are the same.
    """

    def __init__(
        self, width: int, blocks: list[nn.Module], norm: NormKind | None = "layer", *, recompute: bool = False
    ) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.Identity() if norm is None else make_norm(norm, width)
        self.recompute = recompute

    def forward(
        self, x: Float[Tensor, "B T E"], state: StackState | None = None, *, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T E"], StackState]:
        """Return y (B, T, E) and the state of every block.

        Raises:
            TypeError: the state is not one that a stack returned.
            ValueError: x is not (B, T, E) with E = width, or the state is that of another number of blocks.
        """
        if x.ndim != 3 or x.shape[2] != self.width:
            raise ValueError(f"x is {tuple(x.shape)}, and must be (B, T, E) with E = {self.width}, the stack's width.")
        if state is not None and not isinstance(state, StackState):
            raise TypeError(
                f"state must be None or the StackState that a stack returned, and is {type(state).__name__}."
            )
        if state is not None and len(state.blocks) != len(self.blocks):
            raise ValueError(f"the state is that of {len(state.blocks)} blocks, and this stack has {len(self.blocks)}.")
        x, shared = zero_padding(x, lengths), None
        after = []
        for at, block in enumerate(self.blocks):
            before = None if state is None else state.blocks[at]
            if self.recompute and torch.is_grad_enabled():
                x, now, shared = checkpoint(block, x, before, lengths=lengths, shared=shared, use_reentrant=False)
            else:
                x, now, shared = block(x, before, lengths=lengths, shared=shared)
            after.append(now)
        return self.norm(x), StackState(tuple(after))
