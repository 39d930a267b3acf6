"""LSTM, one step at a time: the equations as printed. Slow, and the truth for every test.

References:
    Hochreiter and Schmidhuber (1997), Long Short-Term Memory, Neural Computation 9(8), with the forget
    gate of Gers et al. (2000), in the numbering of Beck et al. (2024), arXiv:2405.04517, Eqs. 2-7.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from workbench.kernels.scan import preactivations, scan
from workbench.shapes import Float, Int, Tensor


class LSTMState(NamedTuple):
    """Memory between steps, each (B, H, D), float32 or wider. Empty: zeros."""

    h: Tensor  # output, fed back through r
    c: Tensor  # cell


class LSTMGates(NamedTuple):
    """What happened inside, each (B, H, T, D)."""

    z: Tensor  # candidate, -1 ... 1
    i: Tensor  # input gate, 0 ... 1
    log_f: Tensor  # logarithm of the forget gate
    o: Tensor  # output gate, 0 ... 1
    c: Tensor  # cell


def empty_state(wx: Tensor) -> LSTMState:
    """The memory before the first step, for inputs wx (4, B, H, T, D)."""
    zero = wx.new_zeros(wx.shape[1], wx.shape[2], wx.shape[4])
    return LSTMState(zero, zero)


def step(
    wx: Float[Tensor, "4 B H D"], r: Float[Tensor, "4 H D D"], state: LSTMState
) -> tuple[Float[Tensor, "B H D"], LSTMState]:
    """Advance the LSTM by one step.

    Args:
        wx: input part of the gates z, i, f, o, bias included (4, B, H, D).
        r: recurrent weights, one block for each head (4, H, D, D).
        state: memory after the previous step.

    Returns:
        h (B, H, D), and the state that holds it.
    """
    z, i, f, o = wx + torch.einsum("ghde,bhe->gbhd", r, state.h)  # Eqs. 4-7, inside the brackets
    c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(z)  # Eqs. 2, 4-6
    h = torch.sigmoid(o) * torch.tanh(c)  # Eqs. 3, 7
    return h, LSTMState(h, c)


def lstm(
    wx: Float[Tensor, "4 B H T D"],
    r: Float[Tensor, "4 H D D"],
    state: LSTMState | None = None,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T D"], LSTMState]:
    """Run the LSTM over a sequence; see `workbench.kernels.lstm.lstm`."""
    seen = scan(step, wx, r, state or empty_state(wx), lengths)
    return torch.stack([s.h for s in seen], 2), seen[-1]


def lstm_gates(
    wx: Float[Tensor, "4 B H T D"],
    r: Float[Tensor, "4 H D D"],
    state: LSTMState | None = None,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T D"], LSTMState, LSTMGates]:
    """The same run, with the gates and the memory of every step.

    A gate depends on the output of the step before: it exists only inside the loop.
    """
    state = state or empty_state(wx)
    seen = scan(step, wx, r, state, lengths)
    h, c = (torch.stack(parts, 2) for parts in zip(*seen, strict=True))
    z, i, f, o = preactivations(wx, r, state.h, h)
    return h, seen[-1], LSTMGates(torch.tanh(z), torch.sigmoid(i), F.logsigmoid(f), torch.sigmoid(o), c)
