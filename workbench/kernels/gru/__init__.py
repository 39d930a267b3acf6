"""GRU: the second baseline, with its recurrent weights in heads (one head is the classic layer)."""

from torch import Tensor

from workbench.kernels.backends import Backend, Backends, Choice
from workbench.kernels.checks import check_lengths, check_shapes, check_state, compute_dtype, full_width, silence
from workbench.kernels.gru.reference import GRUGates, GRUState, gru_gates
from workbench.kernels.lstm import FUSED_LIMITS, one_dense_head

HERE = "workbench.kernels.gru"
BACKENDS = Backends(
    "gru",
    fused=Backend(f"{HERE}.fused:gru", one_dense_head, limits=FUSED_LIMITS),
    reference=Backend(f"{HERE}.reference:gru"),
)


def gru(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    state: GRUState | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, GRUState]:
    """Run the GRU over a sequence.

    h_t = (1 - u) tanh(wx_n + reset (r_n h_{t-1} + b)) + u h_{t-1},
    with reset = sigmoid(wx_r + r_r h_{t-1}) and u = sigmoid(wx_u + r_u h_{t-1}). The reset gate acts behind the
    recurrent weights, as in cuDNN and torch; in Cho et al. (2014) it acts before them.

    Args:
        wx: input part of the preactivations, in the order reset, update, candidate, bias included (3, B, H, T, D).
        r: recurrent weights, one block for each head (3, H, D, D).
        b: bias of the candidate inside the reset gate's reach (H, D).
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
        Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
        Translation, arXiv:1406.1078.
    """
    sizes = check_shapes("gru", wx=(wx, "3 B H T D"), r=(r, "3 H D D"), b=(b, "H D"))
    check_state("gru", state, GRUState, sizes, wx, "B H D")
    check_lengths("gru", lengths, sizes["B"], sizes["T"])
    form = BACKENDS.choose(backend, wx, r, b, lengths=lengths)
    dtype = compute_dtype(wx)
    with full_width(wx):
        h, state = form(silence(wx, lengths, 3).to(dtype), r.to(dtype), b.to(dtype), state, lengths)
    return silence(h, lengths).to(wx.dtype), state


__all__ = ["BACKENDS", "GRUGates", "GRUState", "gru", "gru_gates"]
