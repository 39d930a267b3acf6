"""mLSTM, parallel inside a chunk, the state handed from chunk to chunk: linear in T.

References:
    Beck et al. (2025), Tiled Flash Linear Attention, arXiv:2503.14376, Eqs. 6-11.
"""

import math

import torch

from workbench.kernels.chunks import finite, pad_steps, segment_sums
from workbench.kernels.mlstm.parallel import read
from workbench.kernels.mlstm.reference import MLSTMState, empty_state
from workbench.shapes import Float, Tensor


def mlstm(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    i: Float[Tensor, "B H T"],
    log_f: Float[Tensor, "B H T"],
    state: MLSTMState | None = None,
    *,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "B H T V"], MLSTMState]:
    """Run the mLSTM over a sequence; held to the reference by tests/contract.py."""
    steps = q.shape[2]
    size = min(chunk_size, steps)
    more = -steps % size
    state = state or empty_state(k, v)
    q, k, v = (pad_steps(x, 2, more).unflatten(2, (-1, size)) for x in (q, k, v))  # (B, H, N, C, D)
    i = pad_steps(i, 2, more, -math.inf).unflatten(2, (-1, size))  # (B, H, N, C)
    log_f = pad_steps(log_f, 2, more).unflatten(2, (-1, size))
    before, state = hand_over(k, v, i, log_f, state)
    h, *_ = read(q, k, v, i, log_f, before)
    return h.flatten(2, 3)[:, :, :steps], state


def hand_over(
    k: Float[Tensor, "B H N C K"],
    v: Float[Tensor, "B H N C V"],
    i: Float[Tensor, "B H N C"],
    log_f: Float[Tensor, "B H N C"],
    state: MLSTMState,
) -> tuple[MLSTMState, MLSTMState]:
    """The state before each chunk, with a chunk axis (B, H, N, ...), and the state after the last."""
    weights = segment_sums(log_f)[..., -1, :] + i  # of each step, at the end of its chunk
    m_add = weights.amax(-1)  # (B, H, N)
    key = torch.exp(weights - finite(m_add)[..., None])[..., None] * k
    c_add, n_add = key.transpose(-1, -2) @ v, key.sum(-2)
    decay = log_f.sum(-1)
    before = []
    for log_keep, log_add, c_new, n_new in zip(*(x.unbind(2) for x in (decay, m_add, c_add, n_add)), strict=True):
        before.append(state)
        c, n, m = state
        m_new = torch.maximum(log_keep + m, log_add)
        kept = torch.exp(log_keep + m - finite(m_new))[..., None]
        added = torch.exp(log_add - finite(m_new))[..., None]
        c = kept[..., None] * c + added[..., None] * c_new
        state = MLSTMState(c, kept * n + added * n_new, m_new)
    return MLSTMState(*(torch.stack(parts, 2) for parts in zip(*before, strict=True))), state
