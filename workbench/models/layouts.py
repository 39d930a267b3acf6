"""The configurations that make stacks: one for each way of putting cells into blocks."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from workbench.cells.channel_mix import ChannelMix
from workbench.cells.gated_delta import GatedDelta
from workbench.cells.gru import GRU
from workbench.cells.lstm import LSTM
from workbench.cells.mlstm import MLSTM, Gates
from workbench.cells.parts import GatedMLP
from workbench.cells.rwkv7 import RWKV7
from workbench.cells.rwkv7_initial import Ranks
from workbench.cells.slstm import SLSTM, Forget
from workbench.models.block import Block, MixBlock, NormKind, Plain
from workbench.models.stack import Stack

Width = Annotated[int, Field(ge=1, le=65_536)]
Count = Annotated[int, Field(ge=1)]


class Layout(BaseModel):
    """What every layout has.

    Attributes:
        width: model width E.
        layers: blocks in series.
        dropout: share of each branch's output that is dropped in training.
        recompute: trade time for memory in training, see `workbench.models.stack.Stack`.
    """

    norm: ClassVar[NormKind | None] = "layer"  # behind the last block
    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Width = 64
    layers: Count = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    recompute: bool = False

    def build(self) -> Stack:
        """Make the network, with fresh weights."""
        return Stack(self.width, [self.block(at) for at in range(self.layers)], self.norm, recompute=self.recompute)

    def block(self, at: int) -> nn.Module:
        """The block at a position."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _heads_fit(self) -> "Layout":
        heads = getattr(self, "heads", 1)
        if self.width % heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={heads}")
        return self


class LSTMStackConfig(Layout):
    """LSTM layers on top of each other, as they were before residuals and norms."""

    kind: Literal["lstm"] = "lstm"
    norm: ClassVar[NormKind | None] = None

    def block(self, at: int) -> Plain:
        """One layer."""
        return Plain(LSTM(self.width), self.dropout)


class GRUStackConfig(Layout):
    """GRU layers on top of each other."""

    kind: Literal["gru"] = "gru"
    norm: ClassVar[NormKind | None] = None

    def block(self, at: int) -> Plain:
        """One layer."""
        return Plain(GRU(self.width), self.dropout)


class XLSTMStackConfig(Layout):
    """Residual blocks of the 2024 paper: mLSTM everywhere but at `slstm_at`."""

    kind: Literal["xlstm"] = "xlstm"
    heads: Count = 4
    slstm_at: tuple[int, ...] = (0,)
    forget_bias: tuple[float, float] | None = None  # of the sLSTM, see workbench.cells.slstm
    forget: Forget = "sigmoid"  # of the sLSTM
    gates: Gates = "exponential"  # of the mLSTM, see workbench.cells.mlstm
    conv: Annotated[int, Field(ge=2)] = 4

    @model_validator(mode="after")
    def _positions_fit(self) -> "XLSTMStackConfig":
        if wrong := [at for at in self.slstm_at if not 0 <= at < self.layers]:
            raise ValueError(f"slstm_at holds {wrong}, and must name blocks from 0 to {self.layers - 1}")
        return self

    def block(self, at: int) -> Block:
        """Post-up-projection around an sLSTM, pre-up-projection around an mLSTM."""
        if at in self.slstm_at:
            depth = at / max(self.layers - 1, 1)
            bias, forget = self.forget_bias, self.forget
            cell = SLSTM(self.width, heads=self.heads, conv=self.conv, depth=depth, forget_bias=bias, forget=forget)
            return Block(self.width, cell, GatedMLP(self.width, layers=self.layers), self.dropout)
        cell = MLSTM(self.width, heads=self.heads, conv=self.conv, layers=self.layers, gates=self.gates)
        return Block(self.width, cell, None, self.dropout)


class GatedDeltaStackConfig(Layout):
    """Residual blocks of Gated DeltaNet: the layer, then a SwiGLU, each behind an RMS norm."""

    kind: Literal["gated_deltanet"] = "gated_deltanet"
    norm: ClassVar[NormKind | None] = "rms"
    heads: Count = 4
    head_size: Count | None = None  # None is 0.75 width / heads
    expand_v: Annotated[float, Field(gt=0)] = 2.0
    conv: Annotated[int, Field(ge=2)] = 4
    negative_eigenvalues: bool = False
    mlp_factor: Annotated[float, Field(gt=0)] = 8 / 3

    def block(self, at: int) -> Block:
        """One layer with its MLP."""
        cell = GatedDelta(
            self.width,
            heads=self.heads,
            head_size=self.head_size,
            expand_v=self.expand_v,
            conv=self.conv,
            negative_eigenvalues=self.negative_eigenvalues,
        )
        mlp = GatedMLP(self.width, factor=self.mlp_factor, layers=self.layers, activation="silu")
        return Block(self.width, cell, mlp, self.dropout, norm="rms")


class RWKV7StackConfig(Layout):
    """Blocks of RWKV-7: time mix and channel mix, each behind a layer norm; the first block's values reach all."""

    kind: Literal["rwkv7"] = "rwkv7"
    norm: ClassVar[NormKind | None] = "affine"
    head_size: Count = 16
    ranks: Ranks | None = None  # of decay, rate, value and gate; None is the official formula of the width
    norm_eps: Annotated[float, Field(gt=0)] | None = None  # None is 1e-5 head_size

    @model_validator(mode="after")
    def _head_fits(self) -> "RWKV7StackConfig":
        if self.width % self.head_size:
            raise ValueError(f"width={self.width} is not a multiple of head_size={self.head_size}")
        return self

    def block(self, at: int) -> MixBlock:
        """Time mix and channel mix at a position."""
        place = {"layer": at, "layers": self.layers}
        cell = RWKV7(self.width, head_size=self.head_size, ranks=self.ranks, norm_eps=self.norm_eps, **place)
        return MixBlock(self.width, cell, ChannelMix(self.width, **place), self.dropout)


StackConfig = Annotated[
    LSTMStackConfig | GRUStackConfig | XLSTMStackConfig | GatedDeltaStackConfig | RWKV7StackConfig,
    Field(discriminator="kind"),
]
