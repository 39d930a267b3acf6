"""RWKV-7, parallel inside a chunk, the state handed from chunk to chunk: linear in T.

Inside a chunk of C steps that starts from the state s, with G_i the sum of log_w up to step i, what the
removal keys find is z = (I + A)^{-1} (A' v + (kappa e^{G - log_w}) s), where A_ij and A'_ij, for j < i, are
the products of kappa_i with b_j = kappa_j a_j and with k_j, decayed by e^{G_{i-1} - G_j}. Outputs and the
next state follow from v and z. This is the chunk form of a diagonal plus low-rank transition.

Memory of training over T: 2 + log2(C) times the inputs, and N = T / C matrices K x (K + V) for each head.

References:
    Yang et al. (2024), Parallelizing Linear Transformers with the Delta Rule over Sequence Length,
    arXiv:2406.06484, for the chunk form of a delta rule.
    Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456.
    The decayed products of pairs by halves, and the transition from chunk to chunk, are ours.
"""

import torch
import torch.nn.functional as F

from workbench.kernels.chunks import pad_steps, solve_unit_lower
from workbench.kernels.rwkv7.reference import RWKV7State, empty_state
from workbench.shapes import Float, Tensor


def rwkv7(
    r: Float[Tensor, "B H T K"],
    log_w: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    kappa: Float[Tensor, "B H T K"],
    a: Float[Tensor, "B H T K"],
    state: RWKV7State | None = None,
    *,
    chunk_size: int = 32,
) -> tuple[Float[Tensor, "B H T V"], RWKV7State]:
    """Run RWKV-7 over a sequence; chunk_size is rounded up to a power of two. Held to tests/contract.py."""
    steps = r.shape[2]
    size = 1 << (min(chunk_size, steps) - 1).bit_length()
    more = -steps % size
    state = state or empty_state(k, v)
    inputs = (r, log_w, k, v, kappa, kappa * a)
    r, log_w, k, v, kappa, b = (pad_steps(x, 2, more).unflatten(2, (-1, size)) for x in inputs)  # (B, H, N, C, D)
    asked = F.pad(kappa[..., 1:, :], (0, 0, 0, 1))  # kappa reads the memory after the step before it
    read, found = products(torch.stack([r, asked]), torch.stack([k, b]), log_w)
    found = F.pad(found[..., :-1, :], (0, 0, 1, 0))  # (2, B, H, N, C, C), nothing at the first step
    first = kappa * sums_before(log_w).exp()
    z = solve_unit_lower(found[1], torch.cat([found[0] @ v, first], -1))
    z, z_state = z.split([v.shape[-1], k.shape[-1]], -1)  # z + z_state s is what the removal keys find

    to_end = sums_after(log_w).exp()
    k_end, b_end = ((x * to_end).transpose(-1, -2) for x in (k, b))
    move = torch.diag_embed(log_w.sum(-2).exp()) - b_end @ z_state
    before, state = hand_over(move, k_end @ v - b_end @ z, state)
    y = read[0] @ v - read[1] @ z + (r * log_w.cumsum(-2).exp() - read[1] @ z_state) @ before
    return y.flatten(2, 3)[:, :, :steps], state


def hand_over(
    move: Float[Tensor, "B H N K K"], add: Float[Tensor, "B H N K V"], state: RWKV7State
) -> tuple[Float[Tensor, "B H N K V"], RWKV7State]:
    """The memory before each chunk, and the state after the last: s becomes move s + add."""
    s, before = state.s, []
    for by, new in zip(move.unbind(2), add.unbind(2), strict=True):
        before.append(s)
        s = by @ s + new
    return torch.stack(before, 2), RWKV7State(s)


def products(
    rows: Float[Tensor, "P *B C K"], columns: Float[Tensor, "Q *B C K"], log_w: Float[Tensor, "*B C K"]
) -> Float[Tensor, "P Q *B C C"]:
    """Products of row i with column j, each channel decayed by the steps after j up to i; 0 where j > i.

    Of any two steps exactly one halving of the chunk puts j into a first half and i into the second. Decay
    from j to the middle and from the middle to i are two factors of at most 1: nothing can overflow, and what
    underflows is 0. No tensor has more than a row's size, where all pairs at once would have C rows'.
    """
    blocks = torch.einsum("p...k,q...k->pq...", rows, columns)[..., None, None]  # (P, Q, *B, C, 1, 1)
    size = rows.shape[-2]
    half = 1
    while half < size:
        (early, _), (_, late) = (x.unflatten(-2, (-1, 2, half)).unbind(-3) for x in (columns, rows))
        before, after = log_w.unflatten(-2, (-1, 2, half)).unbind(-3)
        early, late = early * sums_after(before).exp(), late * after.cumsum(-2).exp()
        across = torch.einsum("p...ik,q...jk->pq...ij", late, early)
        first, second = blocks.unflatten(-3, (-1, 2)).unbind(-3)
        top = torch.cat([first, torch.zeros_like(across)], -1)
        blocks = torch.cat([top, torch.cat([across, second], -1)], -2)
        half *= 2
    return blocks.squeeze(-3)


def sums_before(x: Float[Tensor, "*B C K"]) -> Float[Tensor, "*B C K"]:
    """Sum over the steps before each step."""
    return F.pad(x[..., :-1, :], (0, 0, 1, 0)).cumsum(-2)


def sums_after(x: Float[Tensor, "*B C K"]) -> Float[Tensor, "*B C K"]:
    """Sum over the steps after each step."""
    return F.pad(x[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)
