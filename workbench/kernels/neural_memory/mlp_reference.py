"""Titans' neural memory with two layers, step by step: the equations as printed, the truth for every test.

References:
    Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Eqs. 12-18.
    The paper leaves the nonlinearity of the memory open. It is the exact GELU here, as in titans-pytorch; that of
    TTT-MLP, Sun et al. (2024), Learning to (Learn at Test Time), arXiv:2407.04620, Sec. 2.7, is a GELU too.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from workbench.kernels.neural_memory.reference import NeuralMemoryGates, living, still_alive
from workbench.kernels.observe import field, observe, size_and_rank
from workbench.shapes import Bool, Float, Int, Tensor


class NeuralMemoryMLPState(NamedTuple):
    """Memory between steps, float32 or wider. Empty: the initial weights, at rest."""

    w1: Tensor  # first layer of the memory (B, H, F, K)
    w2: Tensor  # second layer (B, H, V, F)
    s1: Tensor  # surprise of the first layer: what moves it, with momentum (B, H, F, K)
    s2: Tensor  # surprise of the second layer (B, H, V, F)
    anchor1: Tensor  # first layer at which gradients are taken (B, H, F, K)
    anchor2: Tensor  # second layer at which they are taken (B, H, V, F)
    position: Tensor  # steps since the anchors were taken, int64 (B,)


def first_state(w1: Float[Tensor, "H F K"], w2: Float[Tensor, "H V F"], batch: int) -> NeuralMemoryMLPState:
    """The memory before the first step: the initial weights, once for each sequence."""
    w1, w2 = (w.expand(batch, *w.shape) for w in (w1, w2))
    s1, s2 = torch.zeros_like(w1), torch.zeros_like(w2)
    return NeuralMemoryMLPState(w1, w2, s1, s2, w1, w2, w1.new_zeros(batch, dtype=torch.int64))


def slope(h: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The derivative of the GELU."""
    return 0.5 * (1 + torch.erf(h * math.sqrt(0.5))) + h * torch.exp(-h.square() / 2) / math.sqrt(2 * math.pi)


def gradients(
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    w1: Float[Tensor, "B H F K"],
    w2: Float[Tensor, "B H V F"],
) -> tuple[Float[Tensor, "B H F K"], Float[Tensor, "B H V F"], Float[Tensor, "B H V"]]:
    """The gradients of the loss |M(k) - v|^2 (Eq. 12) towards both layers, and the error M(k) - v."""
    h = torch.einsum("bhfk,bhk->bhf", w1, k)
    a = F.gelu(h)
    error = torch.einsum("bhvf,bhf->bhv", w2, a) - v
    delta = torch.einsum("bhvf,bhv->bhf", w2, 2 * error) * slope(h)
    return delta[..., :, None] * k[..., None, :], 2 * error[..., :, None] * a[..., None, :], error


def step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    alpha: Float[Tensor, "B H"],
    eta: Float[Tensor, "B H"],
    theta: Float[Tensor, "B H"],
    refresh: int,
    state: NeuralMemoryMLPState,
) -> tuple[Float[Tensor, "B H V"], NeuralMemoryMLPState]:
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
    w1, w2, s1, s2, anchor1, anchor2, position = state
    alpha, eta, theta = (x[..., None, None] for x in (alpha, eta, theta))
    u1, u2, _ = gradients(k, v, anchor1, anchor2)  # of Eq. 12, at M_t' of Eq. 16
    s1, s2 = eta * s1 - theta * u1, eta * s2 - theta * u2  # Eqs. 14, 18
    w1, w2 = (1 - alpha) * w1 + s1, (1 - alpha) * w2 + s2  # Eq. 13
    y = torch.einsum("bhvf,bhf->bhv", w2, F.gelu(torch.einsum("bhfk,bhk->bhf", w1, q)))  # Eq. 15
    due = position + 1 >= refresh
    anchor1, anchor2 = (
        torch.where(due[:, None, None, None], *pair) for pair in ((w1, anchor1), (w2, anchor2))
    )  # t' of Eq. 16
    return y, NeuralMemoryMLPState(w1, w2, s1, s2, anchor1, anchor2, torch.where(due, 0, position + 1))


def neural_memory_mlp(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    alpha: Float[Tensor, "B H T"],
    eta: Float[Tensor, "B H T"],
    theta: Float[Tensor, "B H T"],
    alive: Bool[Tensor, "B 1 T"],
    refresh: int,
    state: NeuralMemoryMLPState,
) -> tuple[Float[Tensor, "B H T V"], NeuralMemoryMLPState]:
    """Run over a sequence; see `workbench.kernels.neural_memory`. Where it is not `alive`, nothing changes."""
    outputs, advance = [], living(step, refresh)
    for now in zip(*(x.unbind(2) for x in (q, k, v, alpha, eta, theta, alive)), strict=True):
        y, state = advance(*now, state)
        outputs.append(y)
    return torch.stack(outputs, 2), state


def neural_memory_mlp_gates(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    alpha: Float[Tensor, "B H T"],
    eta: Float[Tensor, "B H T"],
    theta: Float[Tensor, "B H T"],
    state: NeuralMemoryMLPState,
    *,
    refresh: int = 1,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], NeuralMemoryMLPState, NeuralMemoryGates]:
    """The same run, with what only the memory knows at each step; norms and rank are of both layers together."""
    inputs = (q, k, v, alpha, eta, theta, still_alive(q, lengths))
    return observe(living(step, refresh), look, inputs, state)


def look(inputs: tuple[Tensor, ...], states: list[NeuralMemoryMLPState]) -> NeuralMemoryGates:
    """What happened in some steps, from their inputs and the states around them."""
    _, k, v, *_ = inputs
    hidden = F.gelu(torch.einsum("bhtfk,bhtk->bhtf", field(states[:-1], "anchor1"), k))
    wrong = torch.einsum("bhtvf,bhtf->bhtv", field(states[:-1], "anchor2"), hidden) - v
    w1, w2, s1, s2 = (field(states[1:], name) for name in ("w1", "w2", "s1", "s2"))
    size, rank = size_and_rank(w1, w2)
    momentum = torch.cat([s1.flatten(-2), s2.flatten(-2)], -1).norm(dim=-1)
    return NeuralMemoryGates(wrong.norm(dim=-1), size, rank, momentum)
