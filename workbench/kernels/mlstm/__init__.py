"""mLSTM: matrix memory, linear attention that can forget, with three kinds of gates (Beck et al. 2024, 2025)."""

import math

import torch.nn.functional as F
from torch import Tensor

from workbench.kernels.backends import Backend, Backends, Choice
from workbench.kernels.checks import (
    check_lengths,
    check_shapes,
    check_state,
    compute_dtype,
    full_width,
    inside,
    silence,
)
from workbench.kernels.mlstm.reference import MLSTMGates, MLSTMState, mlstm_gates
from workbench.kernels.mlstm.sigmoid_reference import (
    MLSTMSigmoidGates,
    MLSTMSigmoidState,
    mlstm_sigmoid_gates,
)

HERE = "workbench.kernels.mlstm"
FORMS = {
    "chunkwise": Backend(f"{HERE}.chunkwise:mlstm"),
    "parallel": Backend(f"{HERE}.parallel:mlstm"),
    "reference": Backend(f"{HERE}.reference:mlstm"),
}
BACKENDS = Backends("mlstm", **FORMS)
EXPFORGET_BACKENDS = Backends("mlstm_expforget", **FORMS)
SIGMOID_BACKENDS = Backends(
    "mlstm_sigmoid",
    chunkwise=Backend(f"{HERE}.sigmoid_chunkwise:mlstm_sigmoid"),
    reference=Backend(f"{HERE}.sigmoid_reference:mlstm_sigmoid"),
)


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, MLSTMState]:
    """Run the mLSTM over a sequence.

    C_t = f C_{t-1} + i k v^T,   n_t = f n_{t-1} + i k,   h~_t = C_t^T q / max(|n_t^T q|, 1),
    with i = exp(i~), f = sigmoid(f~) and q scaled by K^-1/2. C and n are kept scaled by exp(-m), where
    the 1 becomes exp(-m); nothing is added to the denominator.

    Args:
        q, k: queries and keys (B, H, T, K), unscaled.
        v: values (B, H, T, V).
        i, f: preactivations of the input and forget gates (B, H, T).
        state: memory to start from; None is empty.
        lengths: steps of each sequence (B,); what lies behind changes nothing and gives h~ = 0.
        backend: a form by name, or a `Choice`.

    Returns:
        h~ (B, H, T, V), before any output gate, in the dtype of q, and the state in float32 or wider.

    Raises:
        TypeError: inputs that are not floating point, or the state of another kernel.
        ValueError: shapes that do not fit, an unknown backend.

    References:
        Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 19-27.
    """
    check_inputs("mlstm", q, k, v, i, f, state, lengths)
    form = BACKENDS.choose(backend, q, k, v, i, f)
    i, f = mask_padding(i, f, lengths)
    with full_width(q):
        log_f = F.logsigmoid(f.to(compute_dtype(q)))
        h, state = form(*widen(q, k, v, i, lengths=lengths), log_f, state)
    return silence(h, lengths).to(q.dtype), state


def mlstm_expforget(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, MLSTMState]:
    """Run the mLSTM with an exponential forget gate, f = exp(f~): the other choice of Eq. 26.

    Above f~ = 0 the memory grows; scaled by exp(-m), nothing overflows. Arguments, results and errors are
    those of `mlstm`.

    References:
        Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 19-27.
    """
    check_inputs("mlstm_expforget", q, k, v, i, f, state, lengths)
    form = EXPFORGET_BACKENDS.choose(backend, q, k, v, i, f)
    i, log_f = mask_padding(i, f, lengths, keep=0.0)
    with full_width(q):
        h, state = form(*widen(q, k, v, i, lengths=lengths), log_f.to(compute_dtype(q)), state)
    return silence(h, lengths).to(q.dtype), state


def mlstm_sigmoid(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMSigmoidState | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, MLSTMSigmoidState]:
    """Run the mLSTM with a sigmoid input gate: neither normaliser nor stabiliser.

    C_t = f C_{t-1} + i k v^T,   h~_t = C_t^T q,   with i = sigmoid(i~), f = sigmoid(f~) and q scaled by K^-1/2.
    This is linear attention with one decay for each head. Arguments and errors are those of `mlstm`.

    Returns:
        h~ (B, H, T, V), before any norm and output gate, in the dtype of q, and the state in float32 or wider.

    References:
        Beck et al. (2025), Tiled Flash Linear Attention, arXiv:2503.14376, Eqs. 13-15.
    """
    check_inputs("mlstm_sigmoid", q, k, v, i, f, state, lengths)
    form = SIGMOID_BACKENDS.choose(backend, q, k, v, i, f)
    i, f = mask_padding(i, f, lengths)
    with full_width(q):
        log_f = F.logsigmoid(f.to(compute_dtype(q)))
        h, state = form(*widen(q, k, v, i, lengths=lengths), log_f, state)
    return silence(h, lengths).to(q.dtype), state


def check_inputs(
    kernel: str, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: tuple | None, lengths: Tensor | None
) -> None:
    """Refuse what does not fit; the three kernels differ in their state alone."""
    sizes = check_shapes(kernel, q=(q, "B H T K"), k=(k, "B H T K"), v=(v, "B H T V"), i=(i, "B H T"), f=(f, "B H T"))
    if kernel == "mlstm_sigmoid":
        check_state(kernel, state, MLSTMSigmoidState, sizes, q, "B H K V")
    else:
        check_state(kernel, state, MLSTMState, sizes, q, "B H K V", "B H K", "B H")
    check_lengths(kernel, lengths, sizes["B"], sizes["T"])


def widen(q: Tensor, k: Tensor, v: Tensor, i: Tensor, *, lengths: Tensor | None) -> list[Tensor]:
    """The inputs in the width of the state, q, k, v zero behind the end of each sequence."""
    return [x.to(compute_dtype(q)) for x in (*(silence(x, lengths) for x in (q, k, v)), i)]


def mask_padding(i: Tensor, f: Tensor, lengths: Tensor | None, keep: float = math.inf) -> tuple[Tensor, Tensor]:
    """Preactivations i, f (B, H, T) that write nothing and keep everything behind the end of a sequence.

    `keep` is the preactivation of a forget gate of 1: infinity for a sigmoid, 0 for an exponential.
    """
    if lengths is None:
        return i, f
    padding = ~inside(lengths, i.shape[2])[:, None]
    return i.masked_fill(padding, -math.inf), f.masked_fill(padding, keep)


__all__ = [
    "BACKENDS",
    "EXPFORGET_BACKENDS",
    "SIGMOID_BACKENDS",
    "MLSTMGates",
    "MLSTMSigmoidGates",
    "MLSTMSigmoidState",
    "MLSTMState",
    "mask_padding",
    "mlstm",
    "mlstm_expforget",
    "mlstm_gates",
    "mlstm_sigmoid",
    "mlstm_sigmoid_gates",
]
