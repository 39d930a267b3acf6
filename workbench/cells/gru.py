"""GRU: the second baseline."""

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
from workbench.kernels.gru import GRUState, gru, gru_gates
from workbench.shapes import Float, Int, Tensor


class Inputs(NamedTuple):
    """What the kernel needs."""

    wx: Tensor  # input part of reset, update and candidate (3, B, 1, T, E)
    r: Tensor  # recurrent weights (3, 1, E, E)
    b: Tensor  # bias of the candidate, behind its reset (1, E)


class GRU(nn.Module):
    """GRU with one dense head: width in, width out; fresh weights as torch's own layer has them.

    Args:
        width: model width E, also the size of the memory.
        backend: form of the kernel, by name or as a `Choice`.

    References:
        Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
        Translation, arXiv:1406.1078.
    """

    role = "core"
    SILENT: ClassVar = {"forget": 0.0, "candidate": 0.0}  # makes it answer nothing, see workbench.cells.levers

    def __init__(self, width: int, *, backend: str | Choice = "auto") -> None:
        super().__init__()
        self.width, self.heads, self.backend = width, 1, backend
        bound = width**-0.5
        self.gates = tag("input", nn.Linear(width, 3 * width))  # reset, update, candidate
        self.recurrent = nn.Parameter(torch.empty(3, 1, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1, width).uniform_(-bound, bound))  # of the candidate, behind its reset
        nn.init.uniform_(self.gates.bias, -bound, bound)

    def project(self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None) -> Inputs:
        """Return what the kernel needs, in the width of the recurrent weights."""
        parts = self.gates(zero_padding(x, lengths)).to(self.recurrent.dtype).chunk(3, -1)
        return Inputs(torch.stack([split_heads(part, 1) for part in parts]), self.recurrent, self.bias)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: GRUState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], GRUState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, GRUState, lengths)
        h, state = gru(*self.project(x, lengths), state, lengths=lengths, backend=self.backend)
        return merge_heads(h), state

    def trace(
        self,
        x: Float[Tensor, "B T E"],
        state: GRUState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        check_input(self, x, state, GRUState, lengths)
        at = self.project(x, lengths)
        with full_width(at.wx):
            wide = (part.to(compute_dtype(at.wx)) for part in at)
            h, _, gates = gru_gates(*wide, state, lengths)
        return zero_padding(merge_heads(h), lengths).to(at.wx.dtype), {
            "candidate": gates.candidate,
            "input": 1 - gates.update,
            "write_strength": 1 - gates.update,
            "forget": gates.update,
            "log_forget": gates.update.log(),
            "reset": gates.reset,
            "hidden": h,
        }

    def levers(self) -> dict[str, Lever]:
        """What can be forced, by name (see workbench.cells.levers)."""
        write = Lever("wx", lambda x: before_log_sigmoid(torch.log1p(-x)), row=1)
        return {
            "reset": Lever("wx", before_sigmoid, row=0),
            **forget_levers("wx", before_log_sigmoid, row=1),
            "input": write,
            "write_strength": write,
            "candidate": Lever("wx", before_tanh, -1.0, 1.0, row=2, bias="b"),
        }
