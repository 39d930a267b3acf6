"""Titans' neural memory with two layers, parallel between two refreshes, without a weight matrix for each step.

Gradients are of rank one, delta k^T and e a^T. What a query reads is therefore a sum over the steps of the chunk:

    H_t = beta_t W1 q_t + f_t S1 q_t - sum_j Gamma_{t,j} (k_j . q_t) delta_j,   X_t = phi(H_t),
    y_t = beta_t W2 X_t + f_t S2 X_t - sum_j Gamma_{t,j} (a_j . X_t) e_j.

References:
    Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Eqs. 12-18; the form of
    the reads follows Sun et al. (2024), Learning to (Learn at Test Time), arXiv:2407.04620, Sec. 2.5.
"""

import torch
import torch.nn.functional as F

from workbench.kernels.neural_memory.coefficients import Coefficients, coefficients
from workbench.kernels.neural_memory.mlp_reference import NeuralMemoryMLPState, slope
from workbench.shapes import Bool, Float, Tensor


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
    *,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "B H T V"], NeuralMemoryMLPState]:
    """Run over a sequence; held to the reference by tests/contract.py.

    A refresh may only fall on the end of a chunk: chunks have the largest size up to `chunk_size` that divides
    `refresh`, and each sequence of the batch starts as far into its first chunk as its position says.
    """
    steps = q.shape[2]
    size = next(s for s in range(min(chunk_size, refresh, steps), 0, -1) if refresh % s == 0)
    chunks = -(-(steps + size - 1) // size)
    shift = state.position % size
    place = torch.arange(chunks * size, device=q.device) - shift[:, None]  # (B, N C), step of each place
    outside = (place < 0) | (place >= steps)
    place = place.clamp(0, steps - 1)

    def lay(x: Tensor, still: float) -> Tensor:
        """Put the steps in their places (B, H, N, C, ...), and `still` where there is none."""
        at = (x.shape[0], 1, chunks * size, *[1] * (x.ndim - 3))
        moved = x.gather(2, place.view(at).expand(-1, x.shape[1], -1, *x.shape[3:]))
        return moved.masked_fill(outside.view(at), still).unflatten(2, (chunks, size))

    q, k, v, alive = (lay(x, 0.0) for x in (q, k, v, alive))
    at = coefficients(lay(alpha, 0.0), lay(eta, 1.0), lay(theta, 0.0), alive)
    taken = alive[:, 0].sum(-1)  # (B, N)
    due = (taken > 0) & ((state.position[:, None] + taken.cumsum(1)) % refresh == 0)
    outputs = []
    for n in range(chunks):
        y, state = chunk(q[:, :, n], k[:, :, n], v[:, :, n], Coefficients(*(x[:, :, n] for x in at)), due[:, n], state)
        outputs.append(y)
    back = (torch.arange(steps, device=q.device) + shift[:, None])[:, None, :, None]
    y = torch.cat(outputs, 2)
    y = y.gather(2, back.expand(-1, y.shape[1], -1, y.shape[3]))
    return y, NeuralMemoryMLPState(*state[:6], (state.position + taken.sum(1)) % refresh)


def chunk(
    q: Float[Tensor, "B H C K"],
    k: Float[Tensor, "B H C K"],
    v: Float[Tensor, "B H C V"],
    at: Coefficients,
    due: Bool[Tensor, " B"],
    state: NeuralMemoryMLPState,
) -> tuple[Float[Tensor, "B H C V"], NeuralMemoryMLPState]:
    """What the steps of one chunk read, and the state after it, its anchors taken anew where that is `due`."""
    w1, w2, s1, s2, anchor1, anchor2, position = state
    h = k @ anchor1.mT
    a = F.gelu(h)
    e = 2 * (a @ anchor2.mT - v)
    delta = (e @ anchor2) * slope(h)
    x = F.gelu(read(q, w1, s1, k, delta, at))
    y = read(x, w2, s2, a, e, at)
    w1, s1 = write(w1, s1, k, delta, at)
    w2, s2 = write(w2, s2, a, e, at)
    due = due[:, None, None, None]
    return y, NeuralMemoryMLPState(
        w1, w2, s1, s2, torch.where(due, w1, anchor1), torch.where(due, w2, anchor2), position
    )


def read(
    x: Float[Tensor, "B H C I"],
    w: Float[Tensor, "B H O I"],
    s: Float[Tensor, "B H O I"],
    k: Float[Tensor, "B H C I"],
    u: Float[Tensor, "B H C O"],
    at: Coefficients,
) -> Float[Tensor, "B H C O"]:
    """What a layer, as it stands at each step, makes of that step's x; its gradients are u k^T."""
    kept = at.beta[..., None] * (x @ w.mT) + at.f[..., None] * (x @ s.mT)
    return kept - (at.gamma * (x @ k.mT)) @ u


def write(
    w: Float[Tensor, "B H O I"],
    s: Float[Tensor, "B H O I"],
    k: Float[Tensor, "B H C I"],
    u: Float[Tensor, "B H C O"],
    at: Coefficients,
) -> tuple[Float[Tensor, "B H O I"], Float[Tensor, "B H O I"]]:
    """A layer and its surprise after the chunk, whose gradients are u k^T."""
    beta, m, f = (x[..., -1, None, None] for x in (at.beta, at.m, at.f))
    into_w, into_s = ((x[..., -1, :, None] * u).mT @ k for x in (at.gamma, at.n))
    return beta * w + f * s - into_w, m * s - into_s
