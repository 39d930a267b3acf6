"""Blocks in series, carrying the state of each; and the configurations that make them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from workbench.cells.lstm import LSTM
from workbench.cells.mlstm import MLSTM
from workbench.cells.parts import GatedMLP, zero_padding
from workbench.cells.roles import tag
from workbench.cells.slstm import SLSTM
from workbench.models.block import Block, Plain, StackState
from workbench.shapes import Float, Int, Tensor

Width = Annotated[int, Field(ge=1, le=65_536)]


class LSTMStackConfig(BaseModel):
    """LSTM layers on top of each other, as they were before residuals and norms."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["lstm"] = "lstm"
    width: Width = 64
    layers: Annotated[int, Field(ge=1)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self) -> "Stack":
        """Make the network, with fresh weights."""
        blocks = [Plain(LSTM(self.width), self.dropout) for _ in range(self.layers)]
        return Stack(self.width, blocks, norm=False)


class XLSTMStackConfig(BaseModel):
    """Residual blocks of the 2024 paper: mLSTM everywhere but at `slstm_at`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["xlstm"] = "xlstm"
    width: Width = 64
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    slstm_at: tuple[int, ...] = (0,)
    forget_bias: tuple[float, float] | None = None  # of the sLSTM, see workbench.cells.slstm
    conv: Annotated[int, Field(ge=2)] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _fits(self) -> "XLSTMStackConfig":
        if wrong := [at for at in self.slstm_at if not 0 <= at < self.layers]:
            raise ValueError(f"slstm_at holds {wrong}, and must name blocks from 0 to {self.layers - 1}")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        return self

    def build(self) -> "Stack":
        """Make the network, with fresh weights."""
        return Stack(self.width, [self.block(at) for at in range(self.layers)])

    def block(self, at: int) -> Block:
        """The block at a position: post-up-projection around an sLSTM, pre-up-projection around an mLSTM."""
        if at in self.slstm_at:
            depth = at / max(self.layers - 1, 1)
            cell = SLSTM(self.width, heads=self.heads, conv=self.conv, depth=depth, forget_bias=self.forget_bias)
            return Block(self.width, cell, GatedMLP(self.width, layers=self.layers), self.dropout)
        cell = MLSTM(self.width, heads=self.heads, conv=self.conv, layers=self.layers)
        return Block(self.width, cell, None, self.dropout)


StackConfig = Annotated[LSTMStackConfig | XLSTMStackConfig, Field(discriminator="kind")]


class Stack(nn.Module):
    """Blocks in series, and a norm behind the last.

    Args:
        width: model width E.
        blocks: modules `block(x, state, lengths=) -> (y, state)`.
        norm: whether a layer norm follows, as a residual stream needs.
    """

    def __init__(self, width: int, blocks: list[nn.Module], norm: bool = True) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(blocks)
        self.norm = tag("norm", nn.LayerNorm(width, bias=False)) if norm else nn.Identity()

    def forward(
        self, x: Float[Tensor, "B T E"], state: StackState | None = None, *, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T E"], StackState]:
        """Return y (B, T, E) and the state of every block."""
        x = zero_padding(x, lengths)
        states = [None] * len(self.blocks) if state is None else state.blocks
        after = []
        for block, before in zip(self.blocks, states, strict=True):
            x, now = block(x, before, lengths=lengths)
            after.append(now)
        return self.norm(x), StackState(tuple(after))
