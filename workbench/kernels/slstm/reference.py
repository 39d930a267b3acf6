"""sLSTM, one step at a time: the equations as printed. Slow, and the truth for every test.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 8-17.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from workbench.kernels.scan import preactivations, scan
from workbench.shapes import Float, Int, Tensor


class SLSTMState(NamedTuple):
    """Memory between steps, each (B, H, D), float32 or wider. Empty: h = c = n = 0, m = -inf."""

    h: Tensor  # output, fed back through r
    c: Tensor  # cell
    n: Tensor  # normaliser
    m: Tensor  # log scale of c and n


class SLSTMGates(NamedTuple):
    """What happened inside, each (B, H, T, D)."""

    z: Tensor  # candidate, -1 ... 1
    i: Tensor  # log of the exponential input gate: its preactivation
    log_f: Tensor  # logarithm of the forget gate
    o: Tensor  # output gate, 0 ... 1
    c: Tensor  # cell, scaled by exp(-m)
    n: Tensor  # normaliser, scaled by exp(-m)
    m: Tensor  # stabiliser


LogForget = Callable[[Tensor], Tensor]


def exponential(f: Tensor) -> Tensor:
    """The logarithm of an exponential gate: its preactivation."""
    return f


def empty_state(wx: Tensor) -> SLSTMState:
    """The memory before the first step, for inputs wx (4, B, H, T, D)."""
    zero = wx.new_zeros(wx.shape[1], wx.shape[2], wx.shape[4])
    return SLSTMState(zero, zero, zero, torch.full_like(zero, -torch.inf))


def step(
    wx: Float[Tensor, "4 B H D"],
    r: Float[Tensor, "4 H D D"],
    state: SLSTMState,
    log_forget: LogForget = F.logsigmoid,
) -> tuple[Float[Tensor, "B H D"], SLSTMState]:
    """Advance the sLSTM by one step.

    Args:
        wx: input part of the gates z, i, f, o, bias included (4, B, H, D).
        r: recurrent weights, one block for each head (4, H, D, D).
        state: memory after the previous step.
        log_forget: logarithm of the forget gate, from its preactivation: that of a sigmoid, or of exp.

    Returns:
        h (B, H, D), and the state that holds it.
    """
    h, c, n, m = state
    z, i, f, o = wx + torch.einsum("ghde,bhe->gbhd", r, h)
    log_f = log_forget(f)  # Eq. 13: either gate
    m_new = torch.maximum(log_f + m, i)  # Eq. 15
    i = torch.exp(i - m_new)  # Eq. 16
    f = torch.exp(log_f + m - m_new)  # Eq. 17
    c = f * c + i * torch.tanh(z)  # Eqs. 8, 11
    n = f * n + i  # Eq. 9
    h = torch.sigmoid(o) * c / n  # Eqs. 10, 14
    return h, SLSTMState(h, c, n, m_new)


def slstm(
    wx: Float[Tensor, "4 B H T D"],
    r: Float[Tensor, "4 H D D"],
    state: SLSTMState | None = None,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T D"], SLSTMState]:
    """Run the sLSTM over a sequence; see `workbench.kernels.slstm.slstm`."""
    seen = scan(step, wx, r, state or empty_state(wx), lengths)
    return torch.stack([s.h for s in seen], 2), seen[-1]


def slstm_expforget(
    wx: Float[Tensor, "4 B H T D"],
    r: Float[Tensor, "4 H D D"],
    state: SLSTMState | None = None,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T D"], SLSTMState]:
    """Run the sLSTM with an exponential forget gate; see `workbench.kernels.slstm.slstm_expforget`."""
    seen = scan(partial(step, log_forget=exponential), wx, r, state or empty_state(wx), lengths)
    return torch.stack([s.h for s in seen], 2), seen[-1]


def slstm_gates(
    wx: Float[Tensor, "4 B H T D"],
    r: Float[Tensor, "4 H D D"],
    state: SLSTMState | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    log_forget: LogForget = F.logsigmoid,
) -> tuple[Float[Tensor, "B H T D"], SLSTMState, SLSTMGates]:
    """The same run, with the gates and the memory of every step.

    A gate depends on the output of the step before: it exists only inside the loop.
    """
    state = state or empty_state(wx)
    seen = scan(partial(step, log_forget=log_forget), wx, r, state, lengths)
    return torch.stack([s.h for s in seen], 2), seen[-1], look(wx, r, state, seen, log_forget)


def look(
    wx: Float[Tensor, "4 B H T D"],
    r: Float[Tensor, "4 H D D"],
    first: SLSTMState,
    seen: list[SLSTMState],
    log_forget: LogForget,
) -> SLSTMGates:
    """What happened, from the inputs, the first state and the one after each step."""
    h, c, n, m = (torch.stack(parts, 2) for parts in zip(*seen, strict=True))
    z, i, f, o = preactivations(wx, r, first.h, h)
    return SLSTMGates(torch.tanh(z), i, log_forget(f), torch.sigmoid(o), c, n, m)
