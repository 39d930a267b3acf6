"""Losses and scores, with their units."""

import torch

from workbench.shapes import Float, Tensor


def pinball(
    forecast: Float[Tensor, "*B Q"], target: Float[Tensor, "*B"], quantiles: tuple[float, ...]
) -> Float[Tensor, ""]:
    """Mean pinball loss over the quantiles, in the unit of the target. At the median it is half the absolute error.

    References:
        Koenker and Bassett (1978), Regression Quantiles, Econometrica 46(1).
    """
    level = torch.tensor(quantiles, dtype=forecast.dtype, device=forecast.device)
    miss = target[..., None] - forecast
    return torch.maximum(level * miss, (level - 1) * miss).mean()


def scores(forecast: Float[Tensor, "N P"], target: Float[Tensor, "N P"]) -> dict[str, float]:
    """Mean absolute and root mean squared error over all windows and steps, in the unit of the target."""
    miss = (forecast - target).double()
    return {"mae": float(miss.abs().mean()), "rmse": float(miss.pow(2).mean().sqrt())}


def coverage(low: Float[Tensor, "N P"], high: Float[Tensor, "N P"], target: Float[Tensor, "N P"]) -> float:
    """Share of targets that lie in the band."""
    return float(((low <= target) & (target <= high)).double().mean())
