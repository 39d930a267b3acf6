"""What parallel and chunked forms share: segment sums, padding, and the scale of an empty memory."""

import math

import torch

from workbench.shapes import Float, Tensor


def segment_sums(log_decay: Float[Tensor, "*B T"]) -> Float[Tensor, "*B T T"]:
    """Sum of the log decays after step s up to step t, at [t, s]; -inf where s > t.

    Each sum adds only its own terms, so that a long past does not cost precision
    (a difference of cumulative sums would).
    """
    steps = log_decay.shape[-1]
    later = torch.ones(steps, steps, dtype=torch.bool, device=log_decay.device).tril(-1)
    terms = log_decay[..., :, None].expand(*log_decay.shape, steps).masked_fill(~later, 0)
    causal = torch.ones_like(later).tril()
    return terms.cumsum(-2).masked_fill(~causal, -math.inf)


def finite(log_scale: Tensor) -> Tensor:
    """The log scale of a memory, with 0 in place of the -inf of an empty one."""
    return log_scale.masked_fill(log_scale == -math.inf, 0)


def unit(log_scale: Tensor) -> Tensor:
    """The 1 of unscaled units, exp(-scale), kept between exp(-80) and exp(80).

    Beyond that float32 would overflow and its gradient be 0 times infinity, or underflow and the answer to an
    empty query be 0 / 0. Nothing else is near enough to 1 there to tell the difference.
    """
    return torch.exp((-log_scale).clamp(-80, 80))


def pad_steps(x: Tensor, dim: int, more: int, value: float = 0.0) -> Tensor:
    """Append `more` steps of `value` along `dim`."""
    if more == 0:
        return x
    shape = list(x.shape)
    shape[dim] = more
    return torch.cat([x, x.new_full(shape, value)], dim)


def solve_unit_lower(a: Float[Tensor, "*B C C"], b: Float[Tensor, "*B C D"]) -> Float[Tensor, "*B C D"]:
    """Solve (I + L) x = b, where L is what lies below the diagonal of `a`."""
    return torch.linalg.solve_triangular(a.tril(-1), b, upper=False, unitriangular=True)
