"""SLSTM: the sLSTM layer of the 2024 block, with its convolution, head-wise gates and norm."""

from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from workbench.cells.checks import check_input, check_tail
from workbench.cells.levers import (
    Lever,
    before_log_sigmoid,
    before_sigmoid,
    before_tanh,
    forget_levers,
    log_input_lever,
    not_too_far,
)
from workbench.cells.parts import CausalConv, HeadNorm, HeadwiseLinear, split_heads, zero_padding
from workbench.cells.roles import tag
from workbench.kernels.backends import Choice
from workbench.kernels.checks import compute_dtype, full_width, silence
from workbench.kernels.slstm import SLSTMState, exponential, slstm, slstm_expforget, slstm_gates
from workbench.kernels.slstm.unstabilized import (
    slstm_expforget_unstabilized,
    slstm_unstabilized,
    slstm_unstabilized_gates,
)
from workbench.shapes import Float, Int, Tensor


class SLSTMCellState(NamedTuple):
    """What a stream must carry."""

    tail: Tensor  # last inputs of the convolution (B, conv - 1, E), none without one
    memory: SLSTMState


Forget = Literal["sigmoid", "exponential"]


class Inputs(NamedTuple):
    """What the kernel needs."""

    wx: Tensor  # input part of the gates z, i, f, o (4, B, H, T, D)
    r: Tensor  # recurrent weights (4, H, D, D)


class Recurrence(NamedTuple):
    """The kernel, the reference that says what happens in it, and its forget gate."""

    kernel: Callable
    watch: Callable
    log_forget: Callable[[Tensor], Tensor]


KERNELS = {
    "sigmoid": Recurrence(slstm, slstm_gates, F.logsigmoid),
    "exponential": Recurrence(slstm_expforget, slstm_gates, exponential),
}
UNSTABILIZED = {
    "sigmoid": Recurrence(slstm_unstabilized, slstm_unstabilized_gates, F.logsigmoid),
    "exponential": Recurrence(slstm_expforget_unstabilized, slstm_unstabilized_gates, exponential),
}


class SLSTM(nn.Module):
    """sLSTM with memory mixing inside each head.

    A short convolution feeds the input and forget gates; candidate and output gate see x itself. There
    is no projection after the norm: the block's MLP follows (post-up-projection).

    Args:
        width: model width E, a multiple of heads.
        heads: heads H; each mixes its own memory only.
        conv: steps that the convolution sees; 0 for none, then all gates see x itself.
        depth: position of the layer in its stack, 0 ... 1; it bends the spread of the forget biases.
        forget_bias: first and last bias of the forget gates of a head, the others evenly between; None is the
            official spread, from 5 to -7 along a power law, which leaves few long memories in a small head.
        forget: "sigmoid", or "exponential", which starts with the same forget gates.
        backend: form of the kernel, by name or as a `Choice`.

    References:
        Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Fig. 10 (Appendix A.4).
    """

    role = "core"
    SILENT: ClassVar = {"output": 0.0}  # what makes a head answer nothing, see workbench.cells.levers

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        conv: int = 4,
        depth: float = 0.0,
        forget_bias: tuple[float, float] | None = None,
        forget: Forget = "sigmoid",
        backend: str | Choice = "auto",
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"width={width} is not a multiple of heads={heads}; try width={-(-width // heads) * heads}."
            )
        self.width, self.heads, self.forget, self.backend = width, heads, forget, backend
        self.recurrence = KERNELS[forget]
        self.conv = tag("input", CausalConv(width, conv)) if conv else None
        self.gates = tag("input", nn.ModuleDict({g: HeadwiseLinear(width, heads) for g in "zifo"}))
        size = width // heads
        self.recurrent = nn.Parameter(torch.zeros(4, heads, size, size))
        self.bias = nn.Parameter(torch.zeros(4, heads, 1, size))
        bias = power_law(size, depth) if forget_bias is None else torch.linspace(*forget_bias, size)
        self.bias.data[2] = F.logsigmoid(bias) if forget == "exponential" else bias
        self.norm = HeadNorm(width, heads)

    def project(
        self, x: Float[Tensor, "B T E"], state: SLSTMCellState | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Inputs, Tensor, SLSTMState | None]:
        """Return what the kernel needs, the new tail of the convolution, and the kernel's state."""
        tail, memory = (None, None) if state is None else state
        x = zero_padding(x, lengths)
        if self.conv is None:
            if tail is not None:
                check_tail("tail", tail, 0, x)
            smooth, tail = x, x[:, :0]
        else:
            smooth, tail = self.conv(x, tail, lengths)
            smooth = F.silu(smooth)
        inputs = {"z": x, "i": smooth, "f": smooth, "o": x}
        wx = torch.stack([split_heads(self.gates[g](inputs[g]), self.heads) for g in "zifo"])
        return Inputs(wx + self.bias[:, None], self.recurrent), tail, memory

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: SLSTMCellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], SLSTMCellState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, SLSTMCellState, lengths)
        at, tail, memory = self.project(x, state, lengths)
        h, memory = self.recurrence.kernel(*at, memory, lengths=lengths, backend=self.backend)
        return self.norm(h), SLSTMCellState(tail, memory)

    def trace(
        self,
        x: Float[Tensor, "B T E"],
        state: SLSTMCellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        check_input(self, x, state, SLSTMCellState, lengths)
        (wx, r), _, memory = self.project(x, state, lengths)
        wide = compute_dtype(wx)
        with full_width(wx):
            wx, r, narrow = silence(wx, lengths, 3).to(wide), r.to(wide), wx.dtype
            h, _, gates = self.recurrence.watch(wx, r, memory, lengths, self.recurrence.log_forget)
        h = silence(h, lengths).to(narrow)
        write = torch.exp(gates.i - gates.m)
        return zero_padding(self.norm(h), lengths), {
            "candidate": gates.z,
            "log_input": gates.i,
            "input": write,
            "write_strength": write / gates.n,
            "forget": gates.log_f.exp(),
            "log_forget": gates.log_f,
            "output": gates.o,
            "cell": gates.c,
            "normalizer": gates.n,
            "stabilizer": gates.m,
            "hidden": h,
        }

    def levers(self) -> dict[str, Lever]:
        """What can be forced, by name (see workbench.cells.levers)."""
        grows = self.forget == "exponential"
        return {
            "candidate": Lever("wx", before_tanh, -1.0, 1.0, row=0),
            "log_input": log_input_lever("wx", row=1),
            **forget_levers("wx", not_too_far if grows else before_log_sigmoid, row=2, grows=grows),
            "output": Lever("wx", before_sigmoid, row=3),
        }

    def without_stabilizer(self) -> Recurrence:
        """The same equations without m."""
        return UNSTABILIZED[self.forget]


def power_law(size: int, depth: float) -> Float[Tensor, " D"]:
    """Biases from +5 falling to -7 over the units of a head, sooner or later with depth: short and long memories.

    The initial values of the official implementation ("powerlaw_blockdependent").
    """
    place = torch.arange(size) / max(size - 1, 1)
    return 5 - 12 * place ** (0.3 + 1.3 * depth)
