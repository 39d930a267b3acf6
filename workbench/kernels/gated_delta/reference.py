"""Gated DeltaNet, one step at a time: the equations as printed. Slow, and the truth for every test.

References:
    Yang et al. (2024), Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464, Eq. 10.
    The state is the transpose of the paper's, keys first, as in the other matrix memories here.
"""

from typing import NamedTuple

import torch

from workbench.shapes import Float, Tensor


class GatedDeltaState(NamedTuple):
    """Memory between steps, float32 or wider. Empty: s = 0."""

    s: Tensor  # matrix memory, k v^T (B, H, K, V)


class GatedDeltaGates(NamedTuple):
    """What happened inside."""

    error: Tensor  # what the decayed memory got wrong about the value, before the write (B, H, T, V)
    size: Tensor  # Frobenius norm of the memory after the step (B, H, T)


def empty_state(k: Tensor, v: Tensor) -> GatedDeltaState:
    """The memory before the first step, for k (..., T, K) and v (..., T, V)."""
    return GatedDeltaState(k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1]))


def answer(
    query: Float[Tensor, "B H K"], g: Float[Tensor, "B H"], state: GatedDeltaState
) -> tuple[Float[Tensor, "B H V"], Float[Tensor, "B H K V"]]:
    """What the memory says to a query once it has decayed, and the decayed memory."""
    s = torch.exp(g)[..., None, None] * state.s  # alpha_t S_{t-1} of Eq. 10
    return torch.einsum("bhk,bhkv->bhv", query, s), s


def step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    beta: Float[Tensor, "B H"],
    g: Float[Tensor, "B H"],
    state: GatedDeltaState,
) -> tuple[Float[Tensor, "B H V"], GatedDeltaState]:
    """Advance the gated delta rule by one step.

    Args:
        q, k: query and key (B, H, K).
        v: value (B, H, V).
        beta: share of the error that is written (B, H), 0 ... 2.
        g: log decay (B, H), at most 0.
        state: memory after the previous step.

    Returns:
        o (B, H, V), and the new state.
    """
    old, s = answer(k, g, state)
    write = beta[..., None] * (v - old)
    s = s + k[..., :, None] * write[..., None, :]  # Eq. 10, transposed
    o = torch.einsum("bhk,bhkv->bhv", q, s)  # o_t = S_t q_t, Sec. 2.1
    return o, GatedDeltaState(s)


def gated_delta(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    g: Float[Tensor, "B H T"],
    state: GatedDeltaState | None = None,
) -> tuple[Float[Tensor, "B H T V"], GatedDeltaState]:
    """Run the gated delta rule over a sequence; see `workbench.kernels.gated_delta`."""
    state = state or empty_state(k, v)
    outputs = []
    for now in zip(*(x.unbind(2) for x in (q, k, v, beta, g)), strict=True):
        o, state = step(*now, state)
        outputs.append(o)
    return torch.stack(outputs, 2), state


def gated_delta_gates(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    g: Float[Tensor, "B H T"],
    state: GatedDeltaState | None = None,
) -> tuple[Float[Tensor, "B H T V"], GatedDeltaState, GatedDeltaGates]:
    """The same run, with what only the memory knows at each step."""
    state = state or empty_state(k, v)
    outputs, seen = [], []
    for now in zip(*(x.unbind(2) for x in (q, k, v, beta, g)), strict=True):
        old, _ = answer(now[1], now[4], state)
        o, state = step(*now, state)
        outputs.append(o)
        seen.append((now[2] - old, state.s.flatten(-2).norm(dim=-1)))
    return torch.stack(outputs, 2), state, GatedDeltaGates(*(torch.stack(x, 2) for x in zip(*seen, strict=True)))
