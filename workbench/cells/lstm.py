"""LSTM: the classic layer, the baseline of every comparison."""

import torch
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.parts import merge_heads, split_heads, zero_padding
from workbench.cells.roles import tag
from workbench.kernels.backends import Choice
from workbench.kernels.lstm import LSTMState, lstm, lstm_gates
from workbench.shapes import Float, Int, Tensor


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

    def __init__(self, width: int, *, backend: str | Choice = "auto") -> None:
        super().__init__()
        self.width, self.backend = width, backend
        bound = width**-0.5
        self.gates = tag("input", nn.Linear(width, 4 * width))
        self.recurrent = nn.Parameter(torch.empty(4, 1, width, width).uniform_(-bound, bound))
        nn.init.uniform_(self.gates.bias, -bound, bound)
        self.gates.bias.data[2 * width : 3 * width] = 1.0  # order z, i, f, o

    def project(self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None) -> Float[Tensor, "4 B 1 T E"]:
        """The input part of the gates, in the width of the recurrent weights."""
        parts = self.gates(zero_padding(x, lengths)).to(self.recurrent.dtype).chunk(4, -1)
        return torch.stack([split_heads(part, 1) for part in parts])

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: LSTMState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], LSTMState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, LSTMState, lengths)
        h, state = lstm(self.project(x, lengths), self.recurrent, state, lengths=lengths, backend=self.backend)
        return merge_heads(h), state

    def trace(
        self, x: Float[Tensor, "B T E"], state: LSTMState | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        h, _, gates = lstm_gates(self.project(x, lengths), self.recurrent, state, lengths)
        return zero_padding(merge_heads(h), lengths), {
            "candidate": gates.z,
            "input": gates.i,
            "forget": gates.log_f.exp(),
            "log_forget": gates.log_f,
            "output": gates.o,
            "cell": gates.c,
            "hidden": h,
        }
