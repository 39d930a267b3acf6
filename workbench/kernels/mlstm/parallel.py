"""mLSTM, all steps at once: quadratic in T, from any state.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 71-77.
    The part that reads the first state is ours, in the notation of Beck et al. (2025), Tiled Flash Linear
    Attention, arXiv:2503.14376, Eqs. 6-11.
"""

import torch

from workbench.kernels.chunks import finite, segment_sums, unit
from workbench.kernels.mlstm.reference import MLSTMState, empty_state
from workbench.shapes import Float, Tensor


def mlstm(
    q: Float[Tensor, "*B T K"],
    k: Float[Tensor, "*B T K"],
    v: Float[Tensor, "*B T V"],
    i: Float[Tensor, "*B T"],
    log_f: Float[Tensor, "*B T"],
    state: MLSTMState | None = None,
) -> tuple[Float[Tensor, "*B T V"], MLSTMState]:
    """Run the mLSTM over a sequence; held to the reference by tests/contract.py."""
    state = state or empty_state(k, v)
    h, weights, carry, m = read(q, k, v, i, log_f, state)
    kept = carry[..., -1, None]
    key = weights[..., -1, :, None] * k
    c = kept[..., None] * state.c + key.transpose(-1, -2) @ v
    return h, MLSTMState(c, kept * state.n + key.sum(-2), m[..., -1])


def read(
    q: Float[Tensor, "*B T K"],
    k: Float[Tensor, "*B T K"],
    v: Float[Tensor, "*B T V"],
    i: Float[Tensor, "*B T"],
    log_f: Float[Tensor, "*B T"],
    state: MLSTMState,
) -> tuple[Float[Tensor, "*B T V"], Float[Tensor, "*B T T"], Float[Tensor, "*B T"], Float[Tensor, "*B T"]]:
    """What each step reads from the steps up to it and from the state before them.

    Returns:
        h~ (..., T, V); the weight of step s in the memory at step t (..., T, T); the weight of the
        first state in it (..., T); the stabiliser m (..., T).
    """
    weights = segment_sums(log_f) + i[..., None, :]  # Eqs. 71-73, log scale
    carry = log_f.cumsum(-1) + state.m[..., None]
    m = torch.maximum(weights.amax(-1), carry)  # Eq. 74
    scale = finite(m)
    weights = torch.exp(weights - scale[..., None])  # Eq. 75
    carry = torch.exp(carry - scale)
    q = q * q.shape[-1] ** -0.5
    scores = q @ k.transpose(-1, -2) * weights  # Eq. 76
    kept = carry[..., None] * q
    total = scores.sum(-1) + (kept @ state.n[..., None])[..., 0]
    h = (scores @ v + kept @ state.c) / torch.maximum(total.abs(), unit(scale))[..., None]  # Eq. 77
    return h, weights, carry, m
