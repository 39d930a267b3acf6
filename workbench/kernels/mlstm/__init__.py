"""mLSTM: matrix memory with exponential gates, linear attention that can forget (Beck et al. 2024)."""

import math

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

HERE = "workbench.kernels.mlstm"
BACKENDS = Backends(
    "mlstm",
    chunkwise=Backend(f"{HERE}.chunkwise:mlstm"),
    parallel=Backend(f"{HERE}.parallel:mlstm"),
    reference=Backend(f"{HERE}.reference:mlstm"),
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
    sizes = check_shapes("mlstm", q=(q, "B H T K"), k=(k, "B H T K"), v=(v, "B H T V"), i=(i, "B H T"), f=(f, "B H T"))
    check_state("mlstm", state, MLSTMState, sizes, q, "B H K V", "B H K", "B H")
    check_lengths("mlstm", lengths, sizes["B"], sizes["T"])
    form = BACKENDS.choose(backend, q, k, v, i, f)
    qkv = [silence(x, lengths) for x in (q, k, v)]
    wide = [x.to(compute_dtype(q)) for x in (*qkv, *mask_padding(i, f, lengths))]
    with full_width(q):
        h, state = form(*wide, state)
    return silence(h, lengths).to(q.dtype), state


def mask_padding(i: Tensor, f: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Preactivations i, f (B, H, T) that write nothing and keep everything behind the end of a sequence."""
    if lengths is None:
        return i, f
    padding = ~inside(lengths, i.shape[2])[:, None]
    return i.masked_fill(padding, -math.inf), f.masked_fill(padding, math.inf)


__all__ = ["BACKENDS", "MLSTMGates", "MLSTMState", "mask_padding", "mlstm", "mlstm_gates"]
