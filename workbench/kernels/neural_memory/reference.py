"""Titans' neural memory with one matrix, step by step: the equations as printed. Slow, and the truth for every test.

References:
    Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Eqs. 12-18.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from workbench.kernels.checks import inside
from workbench.kernels.observe import field, observe, size_and_rank
from workbench.shapes import Bool, Float, Int, Tensor


class NeuralMemoryState(NamedTuple):
    """Memory between steps, float32 or wider. Empty: all zero."""

    m: Tensor  # memory, from keys to values (B, H, K, V)
    s: Tensor  # surprise: what moves the memory, with momentum (B, H, K, V)
    anchor: Tensor  # memory at which gradients are taken (B, H, K, V)
    position: Tensor  # steps since the anchor was taken, int64 (B,)


class NeuralMemoryGates(NamedTuple):
    """What happened inside, each (B, H, T)."""

    error: Tensor  # length of M(k) - v at the anchor: the root of the loss, Eq. 12
    size: Tensor  # Frobenius norm of the memory
    rank: Tensor  # its effective rank
    momentum: Tensor  # Frobenius norm of the surprise


def empty_state(k: Tensor, v: Tensor) -> NeuralMemoryState:
    """The memory before the first step, for k (B, H, T, K) and v (B, H, T, V)."""
    m = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
    return NeuralMemoryState(m, m, m, k.new_zeros(k.shape[0], dtype=torch.int64))


def step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    alpha: Float[Tensor, "B H"],
    eta: Float[Tensor, "B H"],
    theta: Float[Tensor, "B H"],
    refresh: int,
    state: NeuralMemoryState,
) -> tuple[Float[Tensor, "B H V"], NeuralMemoryState]:
    """Advance by one step.

    Args:
        q, k: query and key (B, H, K).
        v: value (B, H, V).
        alpha, eta, theta: decay, momentum and step size (B, H).
        refresh: steps that share one anchor.
        state: memory after the previous step.

    Returns:
        y (B, H, V), and the new state.
    """
    m, s, anchor, position = state
    alpha, eta, theta = (x[..., None, None] for x in (alpha, eta, theta))
    error = torch.einsum("bhk,bhkv->bhv", k, anchor) - v  # M(k) - v
    gradient = 2 * k[..., :, None] * error[..., None, :]  # of Eq. 12, at M_t' of Eq. 16
    s = eta * s - theta * gradient  # Eqs. 14, 18
    m = (1 - alpha) * m + s  # Eq. 13
    y = torch.einsum("bhk,bhkv->bhv", q, m)  # Eq. 15
    due = position + 1 >= refresh
    anchor = torch.where(due[:, None, None, None], m, anchor)  # t' of Eq. 16
    return y, NeuralMemoryState(m, s, anchor, torch.where(due, 0, position + 1))


def hold(alive: Bool[Tensor, "B 1"], after: tuple, before: tuple) -> tuple:
    """The state after a step, or the one before it where the sequence has ended."""
    shaped = (alive.view(-1, *[1] * (x.ndim - 1)) for x in after)
    return type(after)(*map(torch.where, shaped, after, before))


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
) -> tuple[Float[Tensor, "B H T V"], NeuralMemoryState]:
    """Run over a sequence; see `workbench.kernels.neural_memory`. Where it is not `alive`, nothing changes."""
    state, advance = state or empty_state(k, v), living(step, refresh)
    outputs = []
    for now in zip(*(x.unbind(2) for x in (q, k, v, alpha, eta, theta, alive)), strict=True):
        y, state = advance(*now, state)
        outputs.append(y)
    return torch.stack(outputs, 2), state


def neural_memory_gates(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    alpha: Float[Tensor, "B H T"],
    eta: Float[Tensor, "B H T"],
    theta: Float[Tensor, "B H T"],
    state: NeuralMemoryState | None = None,
    *,
    refresh: int = 1,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], NeuralMemoryState, NeuralMemoryGates]:
    """The same run, with what only the memory knows at each step."""
    inputs = (q, k, v, alpha, eta, theta, still_alive(q, lengths))
    return observe(living(step, refresh), look, inputs, state or empty_state(k, v))


def look(inputs: tuple[Tensor, ...], states: list[NeuralMemoryState]) -> NeuralMemoryGates:
    """What happened in some steps, from their inputs and the states around them."""
    _, k, v, *_ = inputs
    wrong = torch.einsum("bhtk,bhtkv->bhtv", k, field(states[:-1], "anchor")) - v
    size, rank = size_and_rank(field(states[1:], "m"))
    return NeuralMemoryGates(wrong.norm(dim=-1), size, rank, field(states[1:], "s").flatten(-2).norm(dim=-1))


def living(step: Callable[..., tuple[Tensor, tuple]], refresh: int) -> Callable[..., tuple[Tensor, tuple]]:
    """A step that takes, behind its other inputs, where the sequence is alive, and changes nothing where it is not."""

    def step_or_hold(*now: Tensor | tuple) -> tuple[Tensor, tuple]:
        *inputs, here, state = now
        y, after = step(*inputs, refresh, state)
        return y, hold(here, after, state)

    return step_or_hold


def still_alive(q: Float[Tensor, "B H T K"], lengths: Int[Tensor, " B"] | None) -> Bool[Tensor, "B 1 T"]:
    """True where a step belongs to its sequence."""
    ends = q.new_full((q.shape[0],), q.shape[2], dtype=torch.int64) if lengths is None else lengths
    return inside(ends, q.shape[2])[:, None]
