"""What decay, momentum and step size make of each gradient inside a chunk: products and sums, never a quotient.

With gradients u_j the recurrence M_t = (1 - alpha_t) M_{t-1} + S_t, S_t = eta_t S_{t-1} - theta_t u_t is linear:

    M_t = beta_t M_0 + f_t S_0 - sum_j Gamma_{t,j} u_j,    S_t = m_t S_0 - sum_j n_{t,j} u_j.

References:
    Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Eqs. 16-18. There the
    weights are quotients beta_t / beta_i, which have no value where the memory is cleared (alpha = 1).
"""

from typing import NamedTuple

import torch

from workbench.shapes import Bool, Float, Tensor


class Coefficients(NamedTuple):
    """Weights after each step of a chunk, t down and j across."""

    beta: Tensor  # of the first memory, in the memory (..., C)
    m: Tensor  # of the first surprise, in the surprise (..., C)
    f: Tensor  # of the first surprise, in the memory (..., C)
    n: Tensor  # of each gradient, in the surprise (..., C, C)
    gamma: Tensor  # of each gradient, in the memory (..., C, C)


def coefficients(
    alpha: Float[Tensor, "*B C"],
    eta: Float[Tensor, "*B C"],
    theta: Float[Tensor, "*B C"],
    alive: Bool[Tensor, "*#B C"],
) -> Coefficients:
    """Return the weights of a chunk that starts from any memory and surprise.

    Args:
        alpha, eta, theta: decay, momentum and step size (..., C); 0, 1 and 0 where a step is not alive.
        alive: False where the surprise must not reach the memory (..., C). No gate can say so: M_t takes all of S_t.
    """
    keep, carry = segment_products(torch.stack([1 - alpha, eta]))
    beta, m = keep[..., 0] * (1 - alpha[..., :1]), carry[..., 0] * eta[..., :1]
    n = carry * theta[..., None, :]
    f = (keep @ (m * alive)[..., None])[..., 0]
    return Coefficients(beta, m, f, n, keep @ (n * alive[..., None]))


def segment_products(x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C C"]:
    """Product of the factors after step s up to step t, at [t, s]; 0 where s > t.

    Row by row: exact, with exact gradients, where factors are 0.
    """
    row, rows = torch.zeros_like(x), []
    for factor, start in zip(x.unbind(-1), torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), strict=True):
        row = factor[..., None] * row + start
        rows.append(row)
    return torch.stack(rows, -2)
