"""mLSTM with a sigmoid input gate, parallel inside a chunk, the state handed from chunk to chunk: linear in T.

References:
    Beck et al. (2025), Tiled Flash Linear Attention, arXiv:2503.14376, Eqs. 13-15.
"""

import torch

from workbench.kernels.chunks import pad_steps, segment_sums
from workbench.kernels.mlstm.sigmoid_reference import MLSTMSigmoidState, empty_state
from workbench.shapes import Float, Tensor


def mlstm_sigmoid(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    i: Float[Tensor, "B H T"],
    log_f: Float[Tensor, "B H T"],
    state: MLSTMSigmoidState | None = None,
    *,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "B H T V"], MLSTMSigmoidState]:
    """Run over a sequence; held to the reference by tests/contract.py."""
    steps = q.shape[2]
    size = min(chunk_size, steps)
    c = (state or empty_state(k, v)).c
    k, q = torch.sigmoid(i)[..., None] * k, q * q.shape[-1] ** -0.5
    q, k, v, log_f = (pad_steps(x, 2, -steps % size).unflatten(2, (-1, size)) for x in (q, k, v, log_f))
    weights = torch.exp(segment_sums(log_f))  # of each step in the memory at a later one (B, H, N, C, C)
    h = (q @ k.transpose(-1, -2) * weights) @ v
    new = (weights[..., -1, :, None] * k).transpose(-1, -2) @ v
    carry = torch.exp(log_f.cumsum(-1))  # what is left of the chunk's first memory (B, H, N, C)
    before = []
    for kept, added in zip(carry[..., -1, None, None].unbind(2), new.unbind(2), strict=True):
        before.append(c)
        c = kept * c + added
    h = h + (carry[..., None] * q) @ torch.stack(before, 2)
    return h.flatten(2, 3)[:, :, :steps], MLSTMSigmoidState(c)
