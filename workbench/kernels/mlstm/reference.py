"""mLSTM, one step at a time: the equations as printed. Slow, and the truth for every test.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Eqs. 19-27.
    The state holds unscaled keys and q is scaled when it reads, as in Beck et al. (2025), xLSTM 7B,
    arXiv:2503.13427, Eqs. 2-9; the outputs are the same.
"""

from typing import NamedTuple

import torch

from workbench.kernels.chunks import finite, unit
from workbench.kernels.observe import field, observe, size_and_rank
from workbench.shapes import Float, Tensor


class MLSTMState(NamedTuple):
    """Memory between steps, float32 or wider. Empty: c = n = 0, m = -inf."""

    c: Tensor  # matrix memory, k v^T (B, H, K, V)
    n: Tensor  # normaliser (B, H, K)
    m: Tensor  # log scale of c and n (B, H)


class MLSTMGates(NamedTuple):
    """What happened inside, each (B, H, T) but n."""

    m: Tensor  # stabiliser
    norm: Tensor  # what the memory's answer is divided by: the larger of |n q| and 1, scaled by exp(-m)
    size: Tensor  # Frobenius norm of the memory C, scaled by exp(-m)
    rank: Tensor  # effective rank of C
    n: Tensor  # the normaliser itself, scaled by exp(-m) (B, H, T, K)


def empty_state(k: Tensor, v: Tensor) -> MLSTMState:
    """The memory before the first step, for k (..., T, K) and v (..., T, V)."""
    batch, K, V = k.shape[:-2], k.shape[-1], v.shape[-1]
    return MLSTMState(k.new_zeros(*batch, K, V), k.new_zeros(*batch, K), k.new_full(batch, -torch.inf))


def step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    i: Float[Tensor, "B H"],
    log_f: Float[Tensor, "B H"],
    state: MLSTMState,
) -> tuple[Float[Tensor, "B H V"], MLSTMState]:
    """Advance the mLSTM by one step.

    Args:
        q, k: query and key (B, H, K).
        v: value (B, H, V).
        i: preactivation of the input gate (B, H).
        log_f: logarithm of the forget gate (B, H): log sigmoid(f~) or, where it is exponential, f~ itself.
        state: memory after the previous step.

    Returns:
        h~ (B, H, V), before any output gate, and the new state.
    """
    c, n, m = state
    m_new = torch.maximum(log_f + m, i)  # Eq. 15, for a head
    scale = finite(m_new)
    i = torch.exp(i - scale)[..., None]  # Eqs. 16, 25
    f = torch.exp(log_f + m - scale)[..., None]  # Eqs. 17, 26
    c = f[..., None] * c + i[..., None] * k[..., :, None] * v[..., None, :]  # Eq. 19, transposed
    n = f * n + i * k  # Eq. 20
    q = q * q.shape[-1] ** -0.5  # the scale of Eq. 23, on q
    read = torch.einsum("bhk,bhkv->bhv", q, c)
    norm = torch.einsum("bhk,bhk->bh", q, n).abs()
    h = read / torch.maximum(norm, unit(scale))[..., None]  # Eq. 21
    return h, MLSTMState(c, n, m_new)


def mlstm(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    i: Float[Tensor, "B H T"],
    log_f: Float[Tensor, "B H T"],
    state: MLSTMState | None = None,
) -> tuple[Float[Tensor, "B H T V"], MLSTMState]:
    """Run the mLSTM over a sequence; see `workbench.kernels.mlstm`."""
    state = state or empty_state(k, v)
    outputs = []
    for now in zip(*(x.unbind(2) for x in (q, k, v, i, log_f)), strict=True):
        h, state = step(*now, state)
        outputs.append(h)
    return torch.stack(outputs, 2), state


def mlstm_gates(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    i: Float[Tensor, "B H T"],
    log_f: Float[Tensor, "B H T"],
    state: MLSTMState | None = None,
) -> tuple[Float[Tensor, "B H T V"], MLSTMState, MLSTMGates]:
    """The same run, with what only the memory knows at each step."""
    return observe(step, look, (q, k, v, i, log_f), state or empty_state(k, v))


def look(inputs: tuple[Tensor, ...], states: list[MLSTMState]) -> MLSTMGates:
    """What happened in some steps, from their inputs and the states around them."""
    q, (m, n) = inputs[0], (field(states[1:], name) for name in "mn")
    size, rank = size_and_rank(field(states[1:], "c"))
    norm = (q * n).sum(-1).abs() * q.shape[-1] ** -0.5
    return MLSTMGates(m, torch.maximum(norm, unit(finite(m))), size, rank, n)
