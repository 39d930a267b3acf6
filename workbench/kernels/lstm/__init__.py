"""LSTM: the baseline, with its recurrent weights in heads (one head is the classic layer)."""

import torch
from torch import Tensor

from workbench.kernels.backends import Backend, Backends, Choice
from workbench.kernels.checks import check_lengths, check_shapes, check_state, compute_dtype, full_width, silence
from workbench.kernels.cudnn import rounds
from workbench.kernels.lstm.reference import LSTMGates, LSTMState, lstm_gates


def one_dense_head(wx: Tensor, r: Tensor, *rest: Tensor, lengths: Tensor | None = None) -> str | None:
    """Why torch's fused LSTM cannot take these inputs, or None."""
    if r.shape[1] > 1:
        return f"runs one head, and got {r.shape[1]}"
    if lengths is not None:
        return "takes sequences of one length, and got lengths"
    if torch.compiler.is_compiling() and rounds(wx):
        return "cannot keep float32 products in full inside a compiled graph on a GPU"
    return None


HERE = "workbench.kernels.lstm"
FUSED_LIMITS = "one head, no lengths; not float32 compiled on a GPU"
BACKENDS = Backends(
    "lstm",
    fused=Backend(f"{HERE}.fused:lstm", one_dense_head, limits=FUSED_LIMITS),
    reference=Backend(f"{HERE}.reference:lstm"),
)


def lstm(
    wx: Tensor,
    r: Tensor,
    state: LSTMState | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, LSTMState]:
    """Run the LSTM over a sequence.

    c_t = sigmoid(f~) c_{t-1} + sigmoid(i~) tanh(z~),   h_t = sigmoid(o~) tanh(c_t),
    where a preactivation such as z~ is wx + r h_{t-1}.

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
        RuntimeError: the form cannot take these inputs.

    References:
        Hochreiter and Schmidhuber (1997), Long Short-Term Memory, Neural Computation 9(8); forget gate of
        Gers et al. (2000). Equations as in Beck et al. (2024), arXiv:2405.04517, Eqs. 2-7.
    """
    sizes = check_shapes("lstm", wx=(wx, "4 B H T D"), r=(r, "4 H D D"))
    check_state("lstm", state, LSTMState, sizes, wx, *["B H D"] * 2)
    check_lengths("lstm", lengths, sizes["B"], sizes["T"])
    form = BACKENDS.choose(backend, wx, r, lengths=lengths)
    dtype = compute_dtype(wx)
    with full_width(wx):
        h, state = form(silence(wx, lengths, 3).to(dtype), r.to(dtype), state, lengths)
    return silence(h, lengths).to(wx.dtype), state


__all__ = ["BACKENDS", "LSTMGates", "LSTMState", "lstm", "lstm_gates"]
