"""mLSTM with a sigmoid input gate, one step at a time: the equations as printed, the truth for every test.

References:
    Beck et al. (2025), Tiled Flash Linear Attention, arXiv:2503.14376, Eqs. 13-15.
"""

from typing import NamedTuple

import torch

from workbench.kernels.observe import field, observe, size_and_rank
from workbench.shapes import Float, Tensor


class MLSTMSigmoidState(NamedTuple):
    """Memory between steps, float32 or wider. Empty: c = 0."""

    c: Tensor  # matrix memory, k v^T (B, H, K, V)


class MLSTMSigmoidGates(NamedTuple):
    """What happened inside, each (B, H, T)."""

    size: Tensor  # Frobenius norm of the memory C
    rank: Tensor  # its effective rank


def empty_state(k: Tensor, v: Tensor) -> MLSTMSigmoidState:
    """The memory before the first step, for k (..., T, K) and v (..., T, V)."""
    return MLSTMSigmoidState(k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1]))


def step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    i: Float[Tensor, "B H"],
    log_f: Float[Tensor, "B H"],
    state: MLSTMSigmoidState,
) -> tuple[Float[Tensor, "B H V"], MLSTMSigmoidState]:
    """Advance by one step.

    Args:
        q, k: query and key (B, H, K).
        v: value (B, H, V).
        i: preactivation of the input gate (B, H).
        log_f: logarithm of the forget gate (B, H).
        state: memory after the previous step.

    Returns:
        h~ (B, H, V), before any norm and output gate, and the new state.
    """
    write = torch.sigmoid(i)[..., None, None] * k[..., :, None] * v[..., None, :]
    c = torch.exp(log_f)[..., None, None] * state.c + write  # Eqs. 13-15
    h = torch.einsum("bhk,bhkv->bhv", q * q.shape[-1] ** -0.5, c)  # Eqs. 13-15
    return h, MLSTMSigmoidState(c)


def mlstm_sigmoid(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    i: Float[Tensor, "B H T"],
    log_f: Float[Tensor, "B H T"],
    state: MLSTMSigmoidState | None = None,
) -> tuple[Float[Tensor, "B H T V"], MLSTMSigmoidState]:
    """Run over a sequence; see `workbench.kernels.mlstm.mlstm_sigmoid`."""
    state = state or empty_state(k, v)
    outputs = []
    for now in zip(*(x.unbind(2) for x in (q, k, v, i, log_f)), strict=True):
        h, state = step(*now, state)
        outputs.append(h)
    return torch.stack(outputs, 2), state


def mlstm_sigmoid_gates(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    i: Float[Tensor, "B H T"],
    log_f: Float[Tensor, "B H T"],
    state: MLSTMSigmoidState | None = None,
) -> tuple[Float[Tensor, "B H T V"], MLSTMSigmoidState, MLSTMSigmoidGates]:
    """The same run, with what only the memory knows at each step."""
    return observe(step, look, (q, k, v, i, log_f), state or empty_state(k, v))


def look(inputs: tuple[Tensor, ...], states: list[MLSTMSigmoidState]) -> MLSTMSigmoidGates:
    """What happened in some steps, from their inputs and the states around them."""
    return MLSTMSigmoidGates(*size_and_rank(field(states[1:], "c")))
