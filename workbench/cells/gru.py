"""GRU: the second baseline."""

import torch
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.parts import merge_heads, split_heads, zero_padding
from workbench.cells.roles import tag
from workbench.kernels.backends import Choice
from workbench.kernels.gru import GRUState, gru, gru_gates
from workbench.shapes import Float, Int, Tensor


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

    def __init__(self, width: int, *, backend: str | Choice = "auto") -> None:
        super().__init__()
        self.width, self.backend = width, backend
        bound = width**-0.5
        self.gates = tag("input", nn.Linear(width, 3 * width))  # reset, update, candidate
        self.recurrent = nn.Parameter(torch.empty(3, 1, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1, width).uniform_(-bound, bound))  # of the candidate, behind its reset
        nn.init.uniform_(self.gates.bias, -bound, bound)

    def project(self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None) -> Float[Tensor, "3 B 1 T E"]:
        """The input part of the gates, in the width of the recurrent weights."""
        parts = self.gates(zero_padding(x, lengths)).to(self.recurrent.dtype).chunk(3, -1)
        return torch.stack([split_heads(part, 1) for part in parts])

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: GRUState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], GRUState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, GRUState, lengths)
        wx = self.project(x, lengths)
        h, state = gru(wx, self.recurrent, self.bias, state, lengths=lengths, backend=self.backend)
        return merge_heads(h), state

    def trace(
        self, x: Float[Tensor, "B T E"], state: GRUState | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        h, _, gates = gru_gates(self.project(x, lengths), self.recurrent, self.bias, state, lengths)
        return zero_padding(merge_heads(h), lengths), {
            "candidate": gates.candidate,
            "input": 1 - gates.update,
            "forget": gates.update,
            "log_forget": gates.update.log(),
            "reset": gates.reset,
            "hidden": h,
        }
