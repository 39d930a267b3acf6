"""sLSTM without its stabiliser, one step at a time: what m is there for, seen by leaving it out.

The same mathematics where nothing overflows, which exp(i~) does in float32 from i~ = 88.7 on. For looking, not for
training: see `workbench.trace.edits.drop_stabilizer`.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 8-14; the stabiliser that is
    missing here is that of Eqs. 15-17.
"""

from functools import partial

import torch
import torch.nn.functional as F

from workbench.kernels.backends import Choice
from workbench.kernels.checks import check_lengths, check_shapes, check_state, compute_dtype, full_width, silence
from workbench.kernels.scan import scan
from workbench.kernels.slstm.reference import LogForget, SLSTMGates, SLSTMState, empty_state, exponential, look
from workbench.shapes import Float, Int, Tensor


def step(
    wx: Float[Tensor, "4 B H D"],
    r: Float[Tensor, "4 H D D"],
    state: SLSTMState,
    log_forget: LogForget = F.logsigmoid,
) -> tuple[Float[Tensor, "B H D"], SLSTMState]:
    """Advance by one step; arguments and results are those of the stabilised step, and m stays 0."""
    h, c, n, m = state
    z, i, f, o = wx + torch.einsum("ghde,bhe->gbhd", r, h)
    i = torch.exp(i)  # Eq. 12
    f = torch.exp(log_forget(f))  # Eq. 13: either gate
    c = f * c + i * torch.tanh(z)  # Eqs. 8, 11
    n = f * n + i  # Eq. 9
    h = torch.sigmoid(o) * c / n  # Eqs. 10, 14
    return h, SLSTMState(h, c, n, m)


def unscaled(state: SLSTMState) -> SLSTMState:
    """The same memory without a log scale, overflow and all."""
    scale = torch.exp(state.m)
    return SLSTMState(state.h, scale * state.c, scale * state.n, torch.zeros_like(state.m))


def slstm_unstabilized_gates(
    wx: Float[Tensor, "4 B H T D"],
    r: Float[Tensor, "4 H D D"],
    state: SLSTMState | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    log_forget: LogForget = F.logsigmoid,
) -> tuple[Float[Tensor, "B H T D"], SLSTMState, SLSTMGates]:
    """Run over a sequence, with the gates and the memory of every step."""
    state = unscaled(state or empty_state(wx))
    seen = scan(partial(step, log_forget=log_forget), wx, r, state, lengths)
    gates = look(wx, r, state, seen, log_forget)
    return torch.stack([s.h for s in seen], 2), seen[-1], gates


def slstm_unstabilized(
    wx: Tensor,
    r: Tensor,
    state: SLSTMState | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, SLSTMState]:
    """Run over a sequence as `workbench.kernels.slstm.slstm` does; any backend is this one form."""
    return enter("slstm", F.logsigmoid, wx, r, state, lengths)


def slstm_expforget_unstabilized(
    wx: Tensor,
    r: Tensor,
    state: SLSTMState | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, SLSTMState]:
    """The same with an exponential forget gate, f = exp(f~)."""
    return enter("slstm_expforget", exponential, wx, r, state, lengths)


def enter(
    kernel: str, log_forget: LogForget, wx: Tensor, r: Tensor, state: SLSTMState | None, lengths: Tensor | None
) -> tuple[Tensor, SLSTMState]:
    """The door of both: check, and run in the width of the state."""
    sizes = check_shapes(kernel, wx=(wx, "4 B H T D"), r=(r, "4 H D D"))
    check_state(kernel, state, SLSTMState, sizes, wx, *["B H D"] * 4)
    check_lengths(kernel, lengths, sizes["B"], sizes["T"])
    dtype = compute_dtype(wx)
    with full_width(wx):
        wide = silence(wx, lengths, 3).to(dtype)
        h, state, _ = slstm_unstabilized_gates(wide, r.to(dtype), state, lengths, log_forget)
    return silence(h, lengths).to(wx.dtype), state
