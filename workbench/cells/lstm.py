"""LSTM: the classic layer, the baseline of every comparison."""

from typing import ClassVar, NamedTuple

import torch
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.levers import (
    Lever,
    before_log_sigmoid,
    before_sigmoid,
    before_tanh,
    forget_levers,
)
from workbench.cells.parts import merge_heads, split_heads, zero_padding
from workbench.cells.roles import tag
from workbench.kernels.backends import Choice
from workbench.kernels.checks import compute_dtype, full_width
from workbench.kernels.lstm import LSTMState, lstm, lstm_gates
from workbench.shapes import Float, Int, Tensor


class Inputs(NamedTuple):
    """What the kernel needs."""

    wx: Tensor  # input part of the gates z, i, f, o (4, B, 1, T, E)
    r: Tensor  # recurrent weights (4, 1, E, E)


class LSTM(nn.Module):
    """LSTM with one dense head: width in, width out.

    The forget gate starts open (bias 1), as Jozefowicz et al. (2015) advise; the rest starts as torch's does.

    Args:
        width: model width E, also the size of the memory.
        backend: form of the kernel, by name or as a `Choice`.

    References:
        Hochreiter and Schmidhuber (1997), Long Short-Term Memory, Neural Computation 9(8).
    """

    role = "core"
    SILENT: ClassVar = {"output": 0.0}  # what makes it answer nothing, see workbench.cells.levers

    def __init__(self, width: int, *, backend: str | Choice = "auto") -> None:
        super().__init__()
        self.width, self.heads, self.backend = width, 1, backend
        bound = width**-0.5
        self.gates = tag("input", nn.Linear(width, 4 * width))
        self.recurrent = nn.Parameter(torch.empty(4, 1, width, width).uniform_(-bound, bound))
        nn.init.uniform_(self.gates.bias, -bound, bound)
        self.gates.bias.data[2 * width : 3 * width] = 1.0  # order z, i, f, o

    def project(self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None) -> Inputs:
        """Return what the kernel needs, in the width of the recurrent weights."""
        parts = self.gates(zero_padding(x, lengths)).to(self.recurrent.dtype).chunk(4, -1)
        return Inputs(torch.stack([split_heads(part, 1) for part in parts]), self.recurrent)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: LSTMState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], LSTMState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, LSTMState, lengths)
        h, state = lstm(*self.project(x, lengths), state, lengths=lengths, backend=self.backend)
        return merge_heads(h), state

    def trace(
        self,
        x: Float[Tensor, "B T E"],
        state: LSTMState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        check_input(self, x, state, LSTMState, lengths)
        at = self.project(x, lengths)
        with full_width(at.wx):
            wide = (part.to(compute_dtype(at.wx)) for part in at)
            h, _, gates = lstm_gates(*wide, state, lengths)
        return zero_padding(merge_heads(h), lengths).to(at.wx.dtype), {
            "candidate": gates.z,
            "input": gates.i,
            "forget": gates.log_f.exp(),
            "log_forget": gates.log_f,
            "output": gates.o,
            "cell": gates.c,
            "hidden": h,
        }

    def levers(self) -> dict[str, Lever]:
        """What can be forced, by name (see workbench.cells.levers)."""
        return {
            "candidate": Lever("wx", before_tanh, -1.0, 1.0, row=0),
            "input": Lever("wx", before_sigmoid, row=1),
            **forget_levers("wx", before_log_sigmoid, row=2),
            "output": Lever("wx", before_sigmoid, row=3),
        }
