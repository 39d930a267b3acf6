"""From a sequence of hidden states to a forecast: pool the past, then decode the steps ahead."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from workbench.kernels.checks import inside
from workbench.shapes import Float, Int, Tensor

PoolKind = Literal["last", "mean", "attention"]


class Pool(nn.Module):
    """Weigh the hidden states over time and add them up.

    Args:
        width: model width E.
        kind: "last" takes the last step, "mean" all alike, "attention" asks each step with a learned query.
    """

    role = "head"

    def __init__(self, width: int, kind: PoolKind) -> None:
        super().__init__()
        self.kind = kind
        self.query = nn.Parameter(torch.zeros(width)) if kind == "attention" else None

    def weights(self, hidden: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B T"]:
        """The share of each step; a row adds up to 1, or to 0 where a sequence has no step."""
        batch, steps, width = hidden.shape
        ends = torch.full((batch,), steps, device=hidden.device) if lengths is None else lengths
        here = inside(ends, steps)
        if self.kind == "attention":
            scores = hidden @ self.query / width**0.5
            scores = scores.masked_fill(~here, torch.finfo(scores.dtype).min)
            return torch.softmax(scores, -1).masked_fill(~here, 0)
        if self.kind == "mean":
            return here.to(hidden) / ends.clamp(min=1)[:, None]
        return (torch.arange(steps, device=hidden.device) == ends[:, None] - 1).to(hidden)

    def forward(self, hidden: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B E"]:
        """The weighted sum over time, of the first steps alone where there are lengths (B,)."""
        if self.kind == "last" and lengths is None:
            return hidden[:, -1]
        return torch.einsum("bt,bte->be", self.weights(hidden, lengths), hidden)


class ForecastHead(nn.Module):
    """Pool the past, meet it with what is known of each step ahead, and read off the quantiles.

    y_p = W gelu(A pool(h) + B known_p + e_p), one vector e_p for each step ahead.

    Args:
        width: model width E.
        horizon: steps ahead P.
        channels: targets at each step.
        known: variables known ahead, G; 0 where there are none.
        quantiles: how many numbers for each target.
        kind: how the past is pooled.
    """

    role = "head"

    def __init__(
        self, kind: PoolKind, *, width: int, horizon: int, channels: int = 1, known: int = 0, quantiles: int = 1
    ) -> None:
        super().__init__()
        self.pool = Pool(width, kind)
        self.past = nn.Linear(width, width)
        self.ahead = nn.Linear(known, width, bias=False) if known else None
        self.step = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.read = nn.Linear(width, channels * quantiles)
        self.quantiles = quantiles

    def forward(
        self, hidden: Float[Tensor, "B T E"], known: Float[Tensor, "B P G"] | None = None
    ) -> Float[Tensor, "B P C Q"]:
        """Return the forecast for every step ahead, target and quantile."""
        meet = self.past(self.pool(hidden))[:, None] + self.step
        if self.ahead is not None:
            meet = meet + self.ahead(known)
        return self.read(F.gelu(meet)).unflatten(-1, (-1, self.quantiles))


def forecast_head(
    kind: PoolKind, *, width: int, horizon: int, channels: int = 1, known: int = 0, quantiles: int = 1
) -> ForecastHead:
    """Make a forecast head by the name of its pooling.

    Raises:
        ValueError: unknown name.
    """
    kinds = PoolKind.__args__
    if kind not in kinds:
        raise ValueError(f"forecast head {kind!r} is unknown; choose one of {', '.join(kinds)}.")
    return ForecastHead(kind, width=width, horizon=horizon, channels=channels, known=known, quantiles=quantiles)
