"""Gated DeltaNet, one step at a time: the equations as printed. Slow, and the truth for every test.

References:
    Yang et al. (2024), Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464, Eq. 10.
    The state is the transpose of the paper's, keys first, as in the other matrix memories here.
"""

from typing import NamedTuple

import torch

from workbench.kernels.observe import field, observe, size_and_rank
from workbench.shapes import Float, Tensor


class GatedDeltaState(NamedTuple):
    """Memory between steps, float32 or wider. Empty: s = 0."""

    s: Tensor  # matrix memory, k v^T (B, H, K, V)


class GatedDeltaGates(NamedTuple):
    """What happened inside."""

    error: Tensor  # what the decayed memory got wrong about the value, before the write (B, H, T, V)
    write: Tensor  # length of what is written, k (beta error)^T (B, H, T)
    size: Tensor  # Frobenius norm of the memory after the step (B, H, T)
    rank: Tensor  # its effective rank (B, H, T)


def empty_state(k: Tensor, v: Tensor) -> GatedDeltaState:
    """The memory before the first step, for k (..., T, K) and v (..., T, V)."""
    return GatedDeltaState(k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1]))


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
    s = torch.exp(g)[..., None, None] * state.s  # alpha_t S_{t-1} of Eq. 10
    write = beta[..., None] * (v - torch.einsum("bhk,bhkv->bhv", k, s))
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
    return observe(step, look, (q, k, v, beta, g), state or empty_state(k, v))


def look(inputs: tuple[Tensor, ...], states: list[GatedDeltaState]) -> GatedDeltaGates:
    """What happened in some steps, from their inputs and the states around them."""
    _, k, v, beta, g = inputs
    s = field(states, "s")
    error = v - torch.exp(g)[..., None] * torch.einsum("bhtk,bhtkv->bhtv", k, s[:, :, :-1])
    write = k.norm(dim=-1) * beta.abs() * error.norm(dim=-1)
    return GatedDeltaGates(error, write, *size_and_rank(s[:, :, 1:]))
