"""The residual block: norm, cell, residual; and, where there is one, norm, MLP, residual."""

from typing import Literal, NamedTuple

from torch import nn

from workbench.cells.parts import RMSNorm
from workbench.cells.roles import tag
from workbench.shapes import Float, Int, Tensor

NormKind = Literal["layer", "affine", "rms"]


class Block(nn.Module):
    """x + cell(norm(x)), then x + mlp(norm(x)).

    With an MLP this is the post-up-projection block (sLSTM); a cell that widens and narrows by itself
    makes it the pre-up-projection block (mLSTM).

    Args:
        width: model width E.
        cell: any cell, `cell(x, state, lengths=) -> (y, state)`.
        mlp: a position-wise network, or None.
        dropout: share of each branch's output that is dropped in training.
        norm: which norm stands before each branch.

    References:
        Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Sec. 2.4.
    """

    def __init__(
        self,
        width: int,
        cell: nn.Module,
        mlp: nn.Module | None = None,
        dropout: float = 0.0,
        norm: NormKind = "layer",
    ) -> None:
        super().__init__()
        self.norm = make_norm(norm, width)
        self.cell = cell
        self.mlp_norm = None if mlp is None else make_norm(norm, width)
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: tuple | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
        shared: Tensor | None = None,
    ) -> tuple[Float[Tensor, "B T E"], tuple, Tensor | None]:
        """Return y (B, T, E), the state of the cell, and what later blocks share, as it came."""
        y, state = self.cell(self.norm(x), state, lengths=lengths)
        x = x + self.dropout(y)
        if self.mlp is not None:
            x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x, state, shared


class MixBlockState(NamedTuple):
    """What a stream through a block of time mix and channel mix must carry."""

    cell: tuple
    mlp: tuple


class MixBlock(nn.Module):
    """The block of RWKV-7: time mix and channel mix, both with memory, and values shared with the blocks above.

    Args:
        width: model width E.
        cell: a time mix, `cell.mix(x, state, lengths=, v_first=) -> (y, state, v_first)`.
        mlp: a channel mix, `mlp(x, state, lengths=) -> (y, state)`.
        dropout: share of each branch's output that is dropped in training.

    References:
        Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456.
    """

    def __init__(self, width: int, cell: nn.Module, mlp: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = make_norm("affine", width)
        self.cell = cell
        self.mlp_norm = make_norm("affine", width)
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: MixBlockState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
        shared: Tensor | None = None,
    ) -> tuple[Float[Tensor, "B T E"], MixBlockState, Tensor]:
        """Return y (B, T, E), the states of both parts, and the values of the first block (B, T, E)."""
        cell, mlp = (None, None) if state is None else state
        y, cell, shared = self.cell.mix(self.norm(x), cell, lengths=lengths, v_first=shared)
        x = x + self.dropout(y)
        y, mlp = self.mlp(self.mlp_norm(x), mlp, lengths=lengths)
        return x + self.dropout(y), MixBlockState(cell, mlp), shared


class Plain(nn.Module):
    """A cell alone, without norm and residual: a layer of the stacked LSTM as it was before."""

    def __init__(self, cell: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.cell = cell
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: tuple | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
        shared: Tensor | None = None,
    ) -> tuple[Float[Tensor, "B T E"], tuple, Tensor | None]:
        """Return y (B, T, E), the state of the cell, and what later blocks share, as it came."""
        y, state = self.cell(x, state, lengths=lengths)
        return self.dropout(y), state, shared


def make_norm(kind: NormKind, width: int) -> nn.Module:
    """A norm over the width: layer norm with weights alone, with weights and biases, or the root mean square."""
    return RMSNorm(width) if kind == "rms" else tag("norm", nn.LayerNorm(width, bias=kind == "affine"))
