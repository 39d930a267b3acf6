"""Gated DeltaNet, parallel inside a chunk, the state handed from chunk to chunk: linear in T.

References:
    Yang et al. (2024), Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464, Sec. 3.3: Eqs. 4-9
    with decay. All decays are taken from sums of log decays over a segment, at most 1, where the paper divides
    cumulative products.
"""

import torch

from workbench.kernels.chunks import pad_steps, segment_sums, solve_unit_lower
from workbench.kernels.gated_delta.reference import GatedDeltaState, empty_state
from workbench.shapes import Float, Tensor


def gated_delta(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    g: Float[Tensor, "B H T"],
    state: GatedDeltaState | None = None,
    *,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "B H T V"], GatedDeltaState]:
    """Run the gated delta rule over a sequence; held to the reference by tests/contract.py."""
    steps = q.shape[2]
    size = min(chunk_size, steps)
    state = state or empty_state(k, v)
    q, k, v, beta, g = (pad_steps(x, 2, -steps % size).unflatten(2, (-1, size)) for x in (q, k, v, beta, g))
    decay = torch.exp(segment_sums(g))  # from step j to step i of the chunk: Gamma (B, H, N, C, C)
    carry = torch.exp(g.cumsum(-1))[..., None]  # what is left of the chunk's first memory (B, H, N, C, 1)
    u, w = represent(k, v, beta, decay, carry)
    late = (decay[..., -1, :, None] * k).transpose(-1, -2)  # keys at the end of the chunk (B, H, N, K, C)
    before, writes, state = hand_over(u, w, late, carry[..., -1, :, None], state)
    o = (carry * q) @ before + (q @ k.transpose(-1, -2) * decay) @ writes  # Eq. 9, with decay
    return o.flatten(2, 3)[:, :, :steps], state


def represent(
    k: Float[Tensor, "B H N C K"],
    v: Float[Tensor, "B H N C V"],
    beta: Float[Tensor, "B H N C"],
    decay: Float[Tensor, "B H N C C"],
    carry: Float[Tensor, "B H N C 1"],
) -> tuple[Float[Tensor, "B H N C V"], Float[Tensor, "B H N C K"]]:
    """What each step writes: u - w S, linear in the memory S before its chunk (the WY representation)."""
    key = beta[..., None] * k
    seen = key @ k.transpose(-1, -2) * decay  # what each step rereads of the writes before it
    both = solve_unit_lower(seen, torch.cat([beta[..., None] * v, carry * key], -1))  # Eqs. 6-7, with decay
    return both.split([v.shape[-1], k.shape[-1]], -1)


def hand_over(
    u: Float[Tensor, "B H N C V"],
    w: Float[Tensor, "B H N C K"],
    late: Float[Tensor, "B H N K C"],
    kept: Float[Tensor, "B H N 1 1"],
    state: GatedDeltaState,
) -> tuple[Float[Tensor, "B H N K V"], Float[Tensor, "B H N C V"], GatedDeltaState]:
    """The memory before each chunk, what the steps of each chunk write, and the state after the last."""
    s, before, writes = state.s, [], []
    for u_n, w_n, late_n, kept_n in zip(*(x.unbind(2) for x in (u, w, late, kept)), strict=True):
        before.append(s)
        writes.append(u_n - w_n @ s)
        s = kept_n * s + late_n @ writes[-1]  # Eq. 8, with decay
    return torch.stack(before, 2), torch.stack(writes, 2), GatedDeltaState(s)
