"""The configurations that make stacks: one for each way of putting cells into blocks."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from workbench.cells.channel_mix import ChannelMix
from workbench.cells.gated_delta import GatedDelta
from workbench.cells.gru import GRU
from workbench.cells.lstm import LSTM
from workbench.cells.mlstm import MLSTM, Gates
from workbench.cells.mlstm_large import MLSTMLarge
from workbench.cells.parts import GatedMLP
from workbench.cells.rwkv7 import RWKV7
from workbench.cells.rwkv7_initial import Ranks
from workbench.cells.slstm import SLSTM, Forget
from workbench.cells.titans import Memory, Titans
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
        blocks = [self.block(at) for at in range(self.layers)]
        return Stack(self.width, blocks, self.last_norm, recompute=self.recompute)

    @property
    def last_norm(self) -> NormKind | None:
        """The norm behind the last block."""
        return self.norm

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


class XLSTMShape(BaseModel):
    """Sizes that the 2024 paper fixes and its official package can change.

    Attributes:
        inner: width inside the mLSTM; None is 2 width.
        block: width of the blocks in the mLSTM's projections to q, k and v.
        slstm_heads: heads of the sLSTM; None is `heads`.
        slstm_conv: steps that the sLSTM's convolution sees, 0 for none; None is `conv`.
        mlp_factor: hidden width of the MLP behind the sLSTM, in widths; None for no MLP.
        mlp_activation: what its gate passes through.
        final_norm: whether a norm follows the last block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    inner: Count | None = None
    block: Count = 4
    slstm_heads: Count | None = None
    slstm_conv: Annotated[int, Field(ge=0)] | None = None
    mlp_factor: Annotated[float, Field(gt=0)] | None = 1.3
    mlp_activation: Literal["gelu", "silu"] = "gelu"
    final_norm: bool = True


class XLSTMStackConfig(Layout):
    """Residual blocks of the 2024 paper: mLSTM everywhere but at `slstm_at`."""

    kind: Literal["xlstm"] = "xlstm"
    heads: Count = 4
    slstm_at: tuple[int, ...] = (0,)
    forget_bias: tuple[float, float] | None = None  # of the sLSTM, see workbench.cells.slstm
    forget: Forget = "sigmoid"  # of the sLSTM
    gates: Gates = "exponential"  # of the mLSTM, see workbench.cells.mlstm
    conv: Annotated[int, Field(ge=2)] = 4
    shape: XLSTMShape = XLSTMShape()

    @property
    def last_norm(self) -> NormKind | None:
        """The norm behind the last block."""
        return self.norm if self.shape.final_norm else None

    @property
    def slstm_heads(self) -> int:
        """Heads of the sLSTM."""
        return self.shape.slstm_heads or self.heads

    @model_validator(mode="after")
    def _sizes_fit(self) -> "XLSTMStackConfig":
        if wrong := [at for at in self.slstm_at if not 0 <= at < self.layers]:
            raise ValueError(f"slstm_at holds {wrong}, and must name blocks from 0 to {self.layers - 1}")
        if self.width % self.slstm_heads:
            raise ValueError(f"width={self.width} is not a multiple of slstm_heads={self.slstm_heads}")
        inner = self.shape.inner or 2 * self.width
        if inner % self.heads or inner % self.shape.block:
            raise ValueError(f"inner={inner} is not a multiple of heads={self.heads} and block={self.shape.block}")
        return self

    def block(self, at: int) -> Block:
        """Post-up-projection around an sLSTM, pre-up-projection around an mLSTM."""
        return self._slstm(at) if at in self.slstm_at else self._mlstm()

    def _slstm(self, at: int) -> Block:
        shape = self.shape
        cell = SLSTM(
            self.width,
            heads=self.slstm_heads,
            conv=self.conv if shape.slstm_conv is None else shape.slstm_conv,
            depth=at / max(self.layers - 1, 1),
            forget_bias=self.forget_bias,
            forget=self.forget,
        )
        mlp = None
        if shape.mlp_factor is not None:
            factor, activation = shape.mlp_factor, shape.mlp_activation
            mlp = GatedMLP(self.width, factor=factor, layers=self.layers, activation=activation)
        return Block(self.width, cell, mlp, self.dropout)

    def _mlstm(self) -> Block:
        cell = MLSTM(
            self.width,
            heads=self.heads,
            conv=self.conv,
            block=self.shape.block,
            inner=self.shape.inner,
            layers=self.layers,
            gates=self.gates,
        )
        return Block(self.width, cell, None, self.dropout)


class XLSTMLargeStackConfig(Layout):
    """Residual blocks of xLSTM 7B: mLSTM, then SwiGLU, each behind an RMS norm."""

    kind: Literal["xlstm_large"] = "xlstm_large"
    norm: ClassVar[NormKind | None] = "rms"
    heads: Count = 8
    qk_factor: Annotated[float, Field(gt=0)] = 0.5
    gate_cap: Annotated[float, Field(gt=0)] | None = 15.0
    gates: Gates = "exponential"  # see workbench.cells.mlstm
    mlp_factor: Annotated[float, Field(gt=0)] = 8 / 3

    @model_validator(mode="after")
    def _keys_fit(self) -> "XLSTMLargeStackConfig":
        keys = int(self.qk_factor * self.width)
        if keys % self.heads or not keys:
            raise ValueError(f"qk_factor={self.qk_factor} makes keys of {keys}, not a multiple of heads={self.heads}")
        return self

    def block(self, at: int) -> Block:
        """One layer with its MLP."""
        cell = MLSTMLarge(
            self.width,
            heads=self.heads,
            qk_factor=self.qk_factor,
            gate_cap=self.gate_cap,
            layers=self.layers,
            gates=self.gates,
        )
        mlp = GatedMLP(self.width, factor=self.mlp_factor, layers=self.layers, activation="silu")
        return Block(self.width, cell, mlp, self.dropout, norm="rms")


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


class TitansStackConfig(Layout):
    """Residual blocks of Titans' memory as a layer (LMM), then a SwiGLU, each behind an RMS norm."""

    kind: Literal["titans"] = "titans"
    norm: ClassVar[NormKind | None] = "rms"
    heads: Count = 4
    memory: Memory = "linear"
    factor: Count = 4  # of the two layers of an "mlp", see workbench.cells.titans
    refresh: Count = 1
    conv: Annotated[int, Field(ge=2)] = 4
    persistent: Annotated[int, Field(ge=0)] = 0
    mlp_factor: Annotated[float, Field(gt=0)] = 8 / 3

    def block(self, at: int) -> Block:
        """One layer with its MLP."""
        cell = Titans(
            self.width,
            heads=self.heads,
            memory=self.memory,
            factor=self.factor,
            refresh=self.refresh,
            conv=self.conv,
            persistent=self.persistent,
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
    output_bias: bool = False  # of the time mix; weights of the authors' demonstrations have one
    mlp_factor: Count = 4

    @model_validator(mode="after")
    def _head_fits(self) -> "RWKV7StackConfig":
        if self.width % self.head_size:
            raise ValueError(f"width={self.width} is not a multiple of head_size={self.head_size}")
        return self

    def block(self, at: int) -> MixBlock:
        """Time mix and channel mix at a position."""
        place = {"layer": at, "layers": self.layers}
        cell = RWKV7(
            self.width,
            head_size=self.head_size,
            ranks=self.ranks,
            norm_eps=self.norm_eps,
            output_bias=self.output_bias,
            **place,
        )
        return MixBlock(self.width, cell, ChannelMix(self.width, factor=self.mlp_factor, **place), self.dropout)


StackConfig = Annotated[
    LSTMStackConfig
    | GRUStackConfig
    | XLSTMStackConfig
    | XLSTMLargeStackConfig
    | GatedDeltaStackConfig
    | TitansStackConfig
    | RWKV7StackConfig,
    Field(discriminator="kind"),
]
