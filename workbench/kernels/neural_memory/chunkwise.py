"""Titans' neural memory with one matrix, parallel inside a chunk: linear in T, for any chunk and any refresh.

The error at step t is taken at a memory of this very chunk, which is linear in the errors before it:
(I + A) E = what the first memories leave wrong. One triangular solve gives all errors of a chunk at once, so a
chunk may hold many refreshes (refresh = 1: one at each step) as well as a part of one.

References:
    Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Eqs. 12-18.
    The solve is ours, after the chunkwise delta rule of Yang et al. (2024), Parallelizing Linear Transformers
    with the Delta Rule over Sequence Length, arXiv:2406.06484.
"""

from typing import NamedTuple

import torch

from workbench.kernels.chunks import pad_steps, solve_unit_lower
from workbench.kernels.neural_memory.coefficients import Coefficients, coefficients
from workbench.kernels.neural_memory.reference import NeuralMemoryState, empty_state
from workbench.shapes import Bool, Float, Int, Tensor


class Anchors(NamedTuple):
    """Memories at which gradients are taken: weights of what they are made of, for C + 1 moments of a chunk.

    The moments are those before each step, and the end of the chunk.
    """

    memory: Tensor  # of the memory before the chunk (B, H, N, C + 1)
    surprise: Tensor  # of the surprise before it
    anchor: Tensor  # of the anchor before it: 1 until the first refresh, then 0
    errors: Tensor  # of each gradient of the chunk (B, H, N, C + 1, C)


def neural_memory(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    alpha: Float[Tensor, "B H T"],
    eta: Float[Tensor, "B H T"],
    theta: Float[Tensor, "B H T"],
    alive: Bool[Tensor, "B 1 T"],
    refresh: int,
    state: NeuralMemoryState | None = None,
    *,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "B H T V"], NeuralMemoryState]:
    """Run over a sequence; held to the reference by tests/contract.py."""
    state = state or empty_state(k, v)
    steps = q.shape[2]
    size = min(chunk_size, steps)
    alpha, eta, theta = (
        pad_steps(x, 2, -steps % size, still).unflatten(2, (-1, size))
        for x, still in ((alpha, 0.0), (eta, 1.0), (theta, 0.0))
    )
    q, k, v, alive = (pad_steps(x, 2, -steps % size).unflatten(2, (-1, size)) for x in (q, k, v, alive))
    at = coefficients(alpha, eta, theta, alive)
    before, errors, state = hand_over(k, v, at, find_anchors(at, last_refresh(alive, refresh, state.position)), state)
    memory = at.beta[..., None] * (q @ before.m) + at.f[..., None] * (q @ before.s)
    y = memory - 2 * (at.gamma * (q @ k.transpose(-1, -2))) @ errors
    taken = alive.sum((1, 2, 3))
    return y.flatten(2, 3)[:, :, :steps], NeuralMemoryState(*state[:3], (state.position + taken) % refresh)


def last_refresh(alive: Bool[Tensor, "B 1 N C"], refresh: int, position: Int[Tensor, " B"]) -> Int[Tensor, "B 1 N M"]:
    """Steps from the start of each chunk to the last refresh, at each of the M = C + 1 moments.

    Zero or less: it was before the chunk.
    """
    chunks, size = alive.shape[2:]
    taken = torch.nn.functional.pad(alive.flatten(2).cumsum(2), (1, 0))
    since = (taken + position[:, None, None]) % refresh
    start = size * torch.arange(chunks, device=alive.device)[:, None]
    return (taken - since).unfold(2, size + 1, size) - start


def find_anchors(at: Coefficients, row: Int[Tensor, "B 1 N M"]) -> Anchors:
    """What each gradient's memory is made of: the row of the last refresh, or the anchor that came in."""
    here = row > 0
    index = (row - 1).clamp(min=0).expand(*at.beta.shape[:-1], -1)
    memory, surprise = (x.gather(-1, index) * here for x in (at.beta, at.f))
    errors = at.gamma.gather(-2, index[..., None].expand(*index.shape, at.gamma.shape[-1])) * here[..., None]
    return Anchors(memory, surprise, (~here).to(memory.dtype).expand_as(memory), errors)


def hand_over(
    k: Float[Tensor, "B H N C K"],
    v: Float[Tensor, "B H N C V"],
    at: Coefficients,
    anchors: Anchors,
    state: NeuralMemoryState,
) -> tuple[NeuralMemoryState, Float[Tensor, "B H N C V"], NeuralMemoryState]:
    """The state before each chunk, with a chunk axis (B, H, N, ...), all errors, and the state after the last."""
    made_of = torch.stack(anchors[:3], -1)  # (B, H, N, C + 1, 3)
    asked = (made_of[..., :-1, :, None] * k[..., None, :]).flatten(-2)  # k, once for each first memory
    lower = 2 * anchors.errors[..., :-1, :] * (k @ k.transpose(-1, -2))
    solved = solve_unit_lower(lower, torch.cat([asked, v], -1))
    asked, target = solved.split([asked.shape[-1], v.shape[-1]], -1)
    last = at.beta[..., -1], at.f[..., -1], at.m[..., -1]
    none = torch.zeros_like(last[0])
    mix = torch.stack(
        [torch.stack([last[0], last[1], none], -1), torch.stack([none, last[2], none], -1), made_of[..., -1, :]], -2
    )  # (B, H, N, 3, 3)
    weights = torch.stack([at.gamma[..., -1, :], at.n[..., -1, :], anchors.errors[..., -1, :]], -2)
    written = -2 * weights[..., None] * k[..., None, :, :]  # (B, H, N, 3, C, K)
    memories = torch.stack(state[:3], 2)  # (B, H, 3, K, V)
    before, errors = [], []
    for n in range(k.shape[2]):
        before.append(memories)
        errors.append(asked[:, :, n] @ memories.flatten(2, 3) - target[:, :, n])
        kept = (mix[:, :, n] @ memories.flatten(3)).view_as(memories)
        memories = kept + written[:, :, n].transpose(-1, -2) @ errors[-1][:, :, None]
    before = NeuralMemoryState(*torch.stack(before, 2).unbind(3), state.position)
    return before, torch.stack(errors, 2), NeuralMemoryState(*memories.unbind(2), state.position)
