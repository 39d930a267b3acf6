"""sLSTM: scalar memory, exponential input gate, heads that mix their own memory (Beck et al. 2024)."""

from torch import Tensor

from workbench.kernels.backends import Backend, Backends, Choice
from workbench.kernels.checks import check_lengths, check_shapes, check_state, compute_dtype, full_width, silence
from workbench.kernels.slstm.reference import SLSTMGates, SLSTMState, exponential, slstm_gates

HERE = "workbench.kernels.slstm"
BACKENDS = Backends("slstm", reference=Backend(f"{HERE}.reference:slstm"))
EXPFORGET_BACKENDS = Backends("slstm_expforget", reference=Backend(f"{HERE}.reference:slstm_expforget"))


def slstm(
    wx: Tensor,
    r: Tensor,
    state: SLSTMState | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, SLSTMState]:
    """Run the sLSTM over a sequence.

    For each unit, with z = tanh(z~), i = exp(i~), f = sigmoid(f~), o = sigmoid(o~):
    c_t = f c_{t-1} + i z,   n_t = f n_{t-1} + i,   h_t = o c_t / n_t,
    where a preactivation such as z~ is wx + r h_{t-1}. c and n are kept scaled by exp(-m).

    Args:
        wx: input part of the preactivations, in the order z, i, f, o, bias included (4, B, H, T, D).
        r: recurrent weights, one block for each head (4, H, D, D).
        state: memory to start from; None is empty.
        lengths: steps of each sequence (B,); what lies behind changes nothing and gives h = 0.
        backend: a form by name, or a `Choice`.

    Returns:
        h (B, H, T, D) in the dtype of wx, and the state after the last step in float32 or wider.

    Raises:
        TypeError: inputs that are not floating point, or the state of another kernel.
        ValueError: shapes that do not fit, an unknown backend.

    References:
        Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 8-17.
    """
    return enter(BACKENDS, wx, r, state, lengths, backend)


def slstm_expforget(
    wx: Tensor,
    r: Tensor,
    state: SLSTMState | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, SLSTMState]:
    """Run the sLSTM with an exponential forget gate, f = exp(f~): the other choice of Eq. 13.

    Above f~ = 0 the memory grows; scaled by exp(-m), nothing overflows. Arguments, results and errors are
    those of `slstm`.

    References:
        Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 8-17.
    """
    return enter(EXPFORGET_BACKENDS, wx, r, state, lengths, backend)


def enter(
    backends: Backends,
    wx: Tensor,
    r: Tensor,
    state: SLSTMState | None,
    lengths: Tensor | None,
    backend: str | Choice,
) -> tuple[Tensor, SLSTMState]:
    """The door of both: check, choose a form, run it in the width of the state."""
    kernel = backends.recurrence
    sizes = check_shapes(kernel, wx=(wx, "4 B H T D"), r=(r, "4 H D D"))
    check_state(kernel, state, SLSTMState, sizes, wx, *["B H D"] * 4)
    check_lengths(kernel, lengths, sizes["B"], sizes["T"])
    form = backends.choose(backend, wx, r, lengths=lengths)
    dtype = compute_dtype(wx)
    with full_width(wx):
        h, state = form(silence(wx, lengths, 3).to(dtype), r.to(dtype), state, lengths)
    return silence(h, lengths).to(wx.dtype), state


__all__ = [
    "BACKENDS",
    "EXPFORGET_BACKENDS",
    "SLSTMGates",
    "SLSTMState",
    "exponential",
    "slstm",
    "slstm_expforget",
    "slstm_gates",
]
