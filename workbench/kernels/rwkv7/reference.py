"""RWKV-7, one step at a time: the equations as printed, transposed. Slow, and the truth for every test.

References:
    Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456: the
    state evolution of the time mixing. The paper's state is V x K and stands on the left of what it is
    multiplied by; ours is its transpose, K x V, as in every kernel here.
"""

from typing import NamedTuple

import torch

from workbench.kernels.observe import field, observe, size_and_rank
from workbench.shapes import Float, Tensor


class RWKV7State(NamedTuple):
    """Memory between steps, float32 or wider. Empty: s = 0."""

    s: Tensor  # matrix memory, k v^T (B, H, K, V), the transpose of the paper's


class RWKV7Gates(NamedTuple):
    """What happened inside."""

    size: Tensor  # Frobenius norm of the memory (B, H, T)
    rank: Tensor  # its effective rank (B, H, T)
    write: Tensor  # Frobenius norm of what is written, v k^T - (S kappa) (kappa * a)^T (B, H, T)
    removed: Tensor  # what the memory held under the removal key before the step (B, H, T, V)


def empty_state(k: Tensor, v: Tensor) -> RWKV7State:
    """The memory before the first step, for k (..., T, K) and v (..., T, V)."""
    return RWKV7State(k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1]))


def step(
    r: Float[Tensor, "B H K"],
    log_w: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    kappa: Float[Tensor, "B H K"],
    a: Float[Tensor, "B H K"],
    state: RWKV7State,
) -> tuple[Float[Tensor, "B H V"], RWKV7State]:
    """Advance RWKV-7 by one step.

    Args:
        r: receptance, what the memory is asked (B, H, K).
        log_w: logarithm of the decay of each channel of the keys (B, H, K), at most 0.
        k: replacement key, under which v is written (B, H, K).
        v: value (B, H, V).
        kappa: removal key, normalised (B, H, K).
        a: in-context learning rate, the share of what kappa finds that is removed (B, H, K), 0 ... 1.
        state: memory after the previous step.

    Returns:
        y (B, H, V), and the new state.
    """
    removed = held(kappa, state)  # S kappa, of the memory before it decays
    s = log_w.exp()[..., None] * state.s  # S diag(w)
    s = s - (kappa * a)[..., :, None] * removed[..., None, :]  # - (S kappa) (kappa * a)^T
    s = s + k[..., :, None] * v[..., None, :]  # + v k^T
    state = RWKV7State(s)
    return held(r, state), state  # y = S r


def held(key: Float[Tensor, "B H K"], state: RWKV7State) -> Float[Tensor, "B H V"]:
    """What the memory holds under a key."""
    return torch.einsum("bhk,bhkv->bhv", key, state.s)


def rwkv7(
    r: Float[Tensor, "B H T K"],
    log_w: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    kappa: Float[Tensor, "B H T K"],
    a: Float[Tensor, "B H T K"],
    state: RWKV7State | None = None,
) -> tuple[Float[Tensor, "B H T V"], RWKV7State]:
    """Run RWKV-7 over a sequence; see `workbench.kernels.rwkv7`."""
    state = state or empty_state(k, v)
    outputs = []
    for now in zip(*(x.unbind(2) for x in (r, log_w, k, v, kappa, a)), strict=True):
        y, state = step(*now, state)
        outputs.append(y)
    return torch.stack(outputs, 2), state


def rwkv7_gates(
    r: Float[Tensor, "B H T K"],
    log_w: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    kappa: Float[Tensor, "B H T K"],
    a: Float[Tensor, "B H T K"],
    state: RWKV7State | None = None,
) -> tuple[Float[Tensor, "B H T V"], RWKV7State, RWKV7Gates]:
    """The same run, with what only the memory knows at each step."""
    return observe(step, look, (r, log_w, k, v, kappa, a), state or empty_state(k, v))


def look(inputs: tuple[Tensor, ...], states: list[RWKV7State]) -> RWKV7Gates:
    """What happened in some steps, from their inputs and the states around them."""
    _, _, k, v, kappa, a = inputs
    s = field(states, "s")
    removed = torch.einsum("bhtk,bhtkv->bhtv", kappa, s[:, :, :-1])
    written = k[..., :, None] * v[..., None, :] - (kappa * a)[..., :, None] * removed[..., None, :]
    return RWKV7Gates(*size_and_rank(s[:, :, 1:]), written.flatten(-2).norm(dim=-1), removed)
