"""The residual block: norm, cell, residual; and, where there is one, norm, MLP, residual."""

from typing import NamedTuple

from torch import nn

from workbench.cells.roles import tag
from workbench.shapes import Float, Int, Tensor


class Block(nn.Module):
    """x + cell(norm(x)), then x + mlp(norm(x)).

    With an MLP this is the post-up-projection block (sLSTM); a cell that widens and narrows by itself
    makes it the pre-up-projection block (mLSTM).

    Args:
        width: model width E.
        cell: any cell, `cell(x, state, lengths=) -> (y, state)`.
        mlp: a position-wise network, or None.
        dropout: share of each branch's output that is dropped in training.

    References:
        Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Sec. 2.4.
    """

    def __init__(self, width: int, cell: nn.Module, mlp: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = tag("norm", nn.LayerNorm(width, bias=False))
        self.cell = cell
        self.mlp_norm = None if mlp is None else tag("norm", nn.LayerNorm(width, bias=False))
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B T E"], state: tuple | None = None, *, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T E"], tuple]:
        """Return y (B, T, E) and the state of the cell."""
        y, state = self.cell(self.norm(x), state, lengths=lengths)
        x = x + self.dropout(y)
        if self.mlp is not None:
            x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x, state


class Plain(nn.Module):
    """A cell alone, without norm and residual: a layer of the stacked LSTM as it was before."""

    def __init__(self, cell: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.cell = cell
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B T E"], state: tuple | None = None, *, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T E"], tuple]:
        """Return y (B, T, E) and the state of the cell."""
        y, state = self.cell(x, state, lengths=lengths)
        return self.dropout(y), state


class StackState(NamedTuple):
    """What a stream through a stack must carry: the state of each block, in order."""

    blocks: tuple
