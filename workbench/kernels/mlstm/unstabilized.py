"""mLSTM without its stabiliser, one step at a time: what m is there for, seen by leaving it out.

The same mathematics where nothing overflows, which exp(i~) does in float32 from i~ = 88.7 on. For looking, not for
training: see `workbench.trace.edits.drop_stabilizer`.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 19-27; the stabiliser that is
    missing here is that of Eqs. 15-17.
"""

import torch
import torch.nn.functional as F

from workbench.kernels.backends import Choice
from workbench.kernels.checks import compute_dtype, full_width, silence
from workbench.kernels.chunks import finite
from workbench.kernels.mlstm import check_inputs, mask_padding, widen
from workbench.kernels.mlstm.reference import MLSTMGates, MLSTMState, empty_state, look
from workbench.kernels.observe import observe
from workbench.shapes import Float, Int, Tensor


def step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    i: Float[Tensor, "B H"],
    log_f: Float[Tensor, "B H"],
    state: MLSTMState,
) -> tuple[Float[Tensor, "B H V"], MLSTMState]:
    """Advance by one step; arguments and results are those of the stabilised step, and m stays 0."""
    c, n, m = state
    i = torch.exp(i)[..., None]  # Eq. 25
    f = torch.exp(log_f)[..., None]  # Eq. 26
    c = f[..., None] * c + i[..., None] * k[..., :, None] * v[..., None, :]  # Eq. 19, transposed
    n = f * n + i * k  # Eq. 20
    q = q * q.shape[-1] ** -0.5  # the scale of Eq. 23, on q
    read = torch.einsum("bhk,bhkv->bhv", q, c)
    norm = torch.einsum("bhk,bhk->bh", q, n).abs()
    h = read / torch.maximum(norm, torch.ones_like(norm))[..., None]  # Eq. 21
    return h, MLSTMState(c, n, m)


def unscaled(state: MLSTMState) -> MLSTMState:
    """The same memory without a log scale, overflow and all."""
    scale = torch.exp(finite(state.m))[..., None]
    return MLSTMState(scale[..., None] * state.c, scale * state.n, torch.zeros_like(state.m))


def mlstm_unstabilized_gates(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    i: Float[Tensor, "B H T"],
    log_f: Float[Tensor, "B H T"],
    state: MLSTMState | None = None,
) -> tuple[Float[Tensor, "B H T V"], MLSTMState, MLSTMGates]:
    """Run over a sequence, with what only the memory knows at each step."""
    return observe(step, look, (q, k, v, i, log_f), unscaled(state or empty_state(k, v)))


def mlstm_unstabilized(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, MLSTMState]:
    """Run over a sequence as `workbench.kernels.mlstm.mlstm` does; any backend is this one form."""
    check_inputs("mlstm", q, k, v, i, f, state, lengths)
    i, f = mask_padding(i, f, lengths)
    with full_width(q):
        log_f = F.logsigmoid(f.to(compute_dtype(q)))
        h, state, _ = mlstm_unstabilized_gates(*widen(q, k, v, i, lengths=lengths), log_f, state)
    return silence(h, lengths).to(q.dtype), state


def mlstm_expforget_unstabilized(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, MLSTMState]:
    """The same with an exponential forget gate, f = exp(f~)."""
    check_inputs("mlstm_expforget", q, k, v, i, f, state, lengths)
    i, log_f = mask_padding(i, f, lengths, keep=0.0)
    with full_width(q):
        wide = widen(q, k, v, i, lengths=lengths)
        h, state, _ = mlstm_unstabilized_gates(*wide, log_f.to(compute_dtype(q)), state)
    return silence(h, lengths).to(q.dtype), state
