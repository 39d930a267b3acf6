"""GRU, one step at a time: the equations as printed. Slow, and the truth for every test.

References:
    Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
    Translation, arXiv:1406.1078, Eqs. 5-8, with the reset gate behind the recurrent weights.
"""

from typing import NamedTuple

import torch

from workbench.kernels.scan import scan
from workbench.shapes import Float, Int, Tensor


class GRUState(NamedTuple):
    """Memory between steps, float32 or wider. Empty: zeros."""

    h: Tensor  # output, fed back through r (B, H, D)


class GRUGates(NamedTuple):
    """What happened inside, each (B, H, T, D)."""

    reset: Tensor  # share of the past that the candidate sees, 0 ... 1
    update: Tensor  # share of the past that is kept, 0 ... 1
    candidate: Tensor  # new content, -1 ... 1


def empty_state(wx: Tensor) -> GRUState:
    """The memory before the first step, for inputs wx (3, B, H, T, D)."""
    return GRUState(wx.new_zeros(wx.shape[1], wx.shape[2], wx.shape[4]))


def gates(wx: Float[Tensor, "3 B *H D"], past: Float[Tensor, "3 B *H D"], b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reset, update and candidate, from the input's part and the past's part of the preactivations."""
    reset = torch.sigmoid(wx[0] + past[0])  # Eq. 5
    update = torch.sigmoid(wx[1] + past[1])  # Eq. 6
    return reset, update, torch.tanh(wx[2] + reset * (past[2] + b))  # Eq. 8


def step(
    wx: Float[Tensor, "3 B H D"], r: Float[Tensor, "3 H D D"], b: Float[Tensor, "H D"], state: GRUState
) -> tuple[Float[Tensor, "B H D"], GRUState]:
    """Advance the GRU by one step.

    Args:
        wx: input part of the preactivations: reset, update, candidate, bias included (3, B, H, D).
        r: recurrent weights, one block for each head (3, H, D, D).
        b: bias of the candidate inside the reset gate's reach (H, D).
        state: memory after the previous step.

    Returns:
        h (B, H, D), and the state that holds it.
    """
    _, update, candidate = gates(wx, torch.einsum("ghde,bhe->gbhd", r, state.h), b)
    h = update * state.h + (1 - update) * candidate  # Eq. 7
    return h, GRUState(h)


def gru(
    wx: Float[Tensor, "3 B H T D"],
    r: Float[Tensor, "3 H D D"],
    b: Float[Tensor, "H D"],
    state: GRUState | None = None,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T D"], GRUState]:
    """Run the GRU over a sequence; see `workbench.kernels.gru.gru`."""
    seen = scan(lambda now, r, state: step(now, r, b, state), wx, r, state or empty_state(wx), lengths)
    return torch.stack([s.h for s in seen], 2), seen[-1]


def gru_gates(
    wx: Float[Tensor, "3 B H T D"],
    r: Float[Tensor, "3 H D D"],
    b: Float[Tensor, "H D"],
    state: GRUState | None = None,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T D"], GRUState, GRUGates]:
    """The same run, with the gates of every step."""
    state = state or empty_state(wx)
    h, last = gru(wx, r, b, state, lengths)
    before = torch.cat([state.h[:, :, None], h[:, :, :-1]], 2)
    return h, last, GRUGates(*gates(wx, torch.einsum("ghde,bhte->gbhtd", r, before), b[:, None]))
