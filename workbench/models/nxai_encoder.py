"""NX-AI's package `xlstm` as the body of an encoder: its block stack, in plain torch, imported when it is made.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517; package xlstm 2.0.6.
"""

from pydantic import BaseModel, ConfigDict, model_validator
from torch import nn

from workbench.cells.roles import tag
from workbench.models.layouts import Count, Width
from workbench.shapes import Float, Int, Tensor


class NXAIOptions(BaseModel):
    """Sizes of the package's block stack.

    Attributes:
        width: model width E.
        layers: blocks in series.
        dropout: share that is dropped in training.
        heads: heads of both kinds of cells.
        slstm_at: which blocks are sLSTM; all others are mLSTM.
        context_length: the longest sequence; each mLSTM keeps a mask of its square.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Width = 64
    layers: Count = 2
    dropout: float = 0.0
    heads: Count = 4
    slstm_at: tuple[int, ...] = (0,)
    context_length: Count = 512

    @model_validator(mode="after")
    def _fit(self) -> "NXAIOptions":
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        if wrong := [at for at in self.slstm_at if not 0 <= at < self.layers]:
            raise ValueError(f"slstm_at holds {wrong}, and must name blocks from 0 to {self.layers - 1}")
        return self


class NXAIBody(nn.Module):
    """The package's block stack as `body(x, lengths=) -> (y, None)`; its whole pass shows no state."""

    def __init__(self, stack: nn.Module, context_length: int) -> None:
        super().__init__()
        self.stack = stack
        self.context_length = context_length

    def forward(
        self, x: Float[Tensor, "B T E"], *, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T E"], None]:
        """Return y (B, T, E); behind the end of a sequence it means nothing, and changes nothing before.

        Raises:
            ValueError: more steps than the stack was made for.
        """
        if x.shape[1] > self.context_length:
            raise ValueError(
                f"x has T = {x.shape[1]} steps, and this stack was made for context_length={self.context_length}; "
                f"make it with context_length={x.shape[1]}."
            )
        return self.stack(x), None


def nxai_body(options: NXAIOptions) -> NXAIBody:
    """Make the package's block stack, with fresh weights.

    Raises:
        RuntimeError: the package is not installed.
    """
    try:
        from xlstm import mLSTMBlockConfig, sLSTMBlockConfig, xLSTMBlockStack, xLSTMBlockStackConfig
        from xlstm.blocks.mlstm.layer import mLSTMLayerConfig
        from xlstm.blocks.slstm.layer import sLSTMLayerConfig
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"xlstm_nxai needs the package xlstm ({error}): pip install -e '.[nxai]', after a look at its licence in "
            f"README. The encoder xlstm is our own form of it, and needs nothing."
        ) from None
    mlstm = mLSTMBlockConfig(mlstm=mLSTMLayerConfig(num_heads=options.heads))
    slstm = sLSTMBlockConfig(slstm=sLSTMLayerConfig(backend="vanilla", num_heads=options.heads))
    any_slstm, any_mlstm = bool(options.slstm_at), len(set(options.slstm_at)) < options.layers
    stack = xLSTMBlockStack(
        xLSTMBlockStackConfig(
            mlstm_block=mlstm if any_mlstm else None,
            slstm_block=slstm if any_slstm else None,
            context_length=options.context_length,
            embedding_dim=options.width,
            num_blocks=options.layers,
            dropout=options.dropout,
            slstm_at=list(options.slstm_at),
        )
    )
    return NXAIBody(with_roles(stack), options.context_length)


def with_roles(stack: nn.Module) -> nn.Module:
    """Give the package's modules the roles that ours have, by what they are; the gates of its mLSTM are core."""
    for name, module in stack.named_modules():
        kind = type(module).__name__
        if kind.endswith("Norm"):
            tag("norm", module)
        elif kind in ("LinearHeadwiseExpand", "CausalConv1d"):
            tag("input", module)
        elif kind == "Linear" and "mlstm_cell" not in name:
            tag("projection", module)
    return tag("core", stack)
