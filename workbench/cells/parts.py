"""What cells share: head-wise norm and projection, causal convolution with its tail, the gated MLP."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from workbench.cells.checks import check_tail
from workbench.cells.roles import tag
from workbench.kernels.checks import silence
from workbench.shapes import Float, Int, Tensor


def small_init(weight: Tensor, width: int) -> None:
    """Fill with N(0, 2 / (5 width)), as the xLSTM does for what reads the residual stream."""
    nn.init.normal_(weight, std=math.sqrt(2 / (5 * width)))


def wang_init(weight: Tensor, width: int, layers: int) -> None:
    """Fill with N(0, (2 / layers)^2 / width), as the xLSTM does for what writes to the residual stream."""
    nn.init.normal_(weight, std=2 / layers / math.sqrt(width))


def soft_cap(x: Float[Tensor, "*B"], cap: float | None) -> Float[Tensor, "*B"]:
    """cap tanh(x / cap), in float32 or wider: near x where it is small, never past the cap. None leaves x as it is."""
    if cap is None:
        return x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (cap * torch.tanh(wide / cap)).to(x.dtype)


def split_heads(x: Float[Tensor, "B T E"], heads: int) -> Float[Tensor, "B H T D"]:
    """Cut the width into heads."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B T E"]:
    """Put the heads side by side again."""
    return x.transpose(1, 2).flatten(2)


class HeadwiseLinear(nn.Module):
    """A block-diagonal projection without bias: each block of the width sees only itself."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        if width % blocks:
            raise ValueError(f"width={width} is not a multiple of blocks={blocks}.")
        size = width // blocks
        self.weight = nn.Parameter(torch.empty(blocks, size, size))
        small_init(self.weight, width)

    def forward(self, x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T E"]:
        """Project each block by its own matrix."""
        x = x.unflatten(-1, (self.weight.shape[0], -1))
        return torch.einsum("bthe,hde->bthd", x, self.weight).flatten(2)


class HeadNorm(nn.Module):
    """Layer norm within each head, reduced in float32, with one weight per unit."""

    role = "norm"

    def __init__(self, width: int, heads: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.heads, self.eps = heads, eps

    def forward(self, x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B T E"]:
        """Normalise each head's output, and put the heads side by side."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return merge_heads(F.layer_norm(wide, x.shape[-1:], eps=self.eps)).to(x.dtype) * self.weight


class RMSNorm(nn.Module):
    """Divide by the root mean square of the width, reduced in float32, and weigh each unit."""

    role = "norm"

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*B E"]) -> Float[Tensor, "*B E"]:
        """Normalise the last axis."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.rms_norm(wide, x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


class CausalConv(nn.Module):
    """A short depthwise convolution over time; its state is the tail of the inputs seen so far."""

    def __init__(self, width: int, size: int = 4, *, bias: bool = True) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(width, size))
        bound = 1 / math.sqrt(size)
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound)) if bias else None

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        tail: Float[Tensor, "B L E"] | None = None,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B L E"]]:
        """Convolve, and return the last size - 1 inputs for the next call.

        Args:
            x: inputs (B, T, E).
            tail: what the last call returned (B, size - 1, E); None is a past of zeros.
            lengths: steps of each sequence (B,).

        Returns:
            y (B, T, E), and the new tail (B, size - 1, E).
        """
        if tail is None:
            tail = x.new_zeros(x.shape[0], self.size - 1, x.shape[2])
        check_tail("tail", tail, self.size - 1, x)
        seen = torch.cat([tail, x], 1)
        y = F.conv1d(seen.transpose(1, 2), self.weight[:, None], self.bias, groups=x.shape[2]).transpose(1, 2)
        if lengths is None:
            return y, seen[:, x.shape[1] :].clone()  # a view would keep all T steps in memory
        last = lengths[:, None] + torch.arange(self.size - 1, device=x.device)  # positions in `seen`
        return y, seen.gather(1, last[..., None].expand(-1, -1, x.shape[2]))


class GatedMLP(nn.Module):
    """down(act(up_gate x) * up x), the hidden width rounded up to a multiple of 64.

    Args:
        width: model width E.
        factor: hidden width, in widths.
        layers: layers of the stack, for the scale of the last projection.
        activation: "gelu" makes it the GeGLU of the 2024 blocks, "silu" the SwiGLU of xLSTM 7B.

    References:
        Shazeer (2020), GLU Variants Improve Transformer, arXiv:2002.05202.
    """

    def __init__(
        self, width: int, *, factor: float = 1.3, layers: int = 1, activation: Literal["gelu", "silu"] = "gelu"
    ) -> None:
        super().__init__()
        self.activation = {"gelu": F.gelu, "silu": F.silu}[activation]
        hidden = 64 * math.ceil(factor * width / 64)
        self.up = tag("projection", nn.Linear(width, 2 * hidden, bias=False))
        self.down = tag("projection", nn.Linear(hidden, width, bias=False))
        small_init(self.up.weight, width)
        wang_init(self.down.weight, width, layers)

    def forward(self, x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T E"]:
        """Apply the MLP to each step."""
        gate, value = self.up(x).chunk(2, -1)
        return self.down(self.activation(gate) * value)


def zero_padding(x: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None) -> Float[Tensor, "B T E"]:
    """Zero what lies behind the end of each sequence, whatever it holds."""
    return silence(x, lengths, 1)
