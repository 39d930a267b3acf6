"""The forecaster: a window of the past and what is known ahead in, quantiles of the future out."""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from workbench.cells.roles import tag
from workbench.models.fresh import fresh
from workbench.models.heads import PoolKind, forecast_head
from workbench.models.layouts import StackConfig, XLSTMStackConfig
from workbench.shapes import Float, Tensor


class ForecasterConfig(BaseModel):
    """Everything that defines a forecaster's shape; its weights live in a checkpoint.

    Attributes:
        inputs: variables of the past, F.
        known: variables known ahead, G.
        horizon: steps ahead, P.
        quantiles: rising, between 0 and 1, with the median among them.
        pool: how the past is pooled.
        stack: the recurrent network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["forecaster"] = "forecaster"
    inputs: Annotated[int, Field(ge=1)]
    known: Annotated[int, Field(ge=0)] = 0
    horizon: Annotated[int, Field(ge=1)]
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    pool: PoolKind = "last"
    stack: StackConfig = XLSTMStackConfig()

    @field_validator("quantiles")
    @classmethod
    def _rise(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        if list(quantiles) != sorted(set(quantiles)) or not all(0 < q < 1 for q in quantiles) or 0.5 not in quantiles:
            raise ValueError("must rise between 0 and 1 and hold 0.5")
        return quantiles

    def build(self, seed: int = 0) -> "Forecaster":
        """Make the model, with fresh weights drawn from the seed."""
        return fresh(lambda: Forecaster(self), seed)

    def example(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs of the right shape, the same for a seed on every machine: a past of 32 steps, and what is known."""
        g = torch.Generator().manual_seed(seed)
        return torch.randn(2, 32, self.inputs, generator=g), torch.randn(2, self.horizon, self.known, generator=g)


class Forecaster(nn.Module):
    """Project the past, run the stack over it, and decode the steps ahead.

    The last value of the first variable is added to every forecast, so that the network learns the change.

    Args:
        config: its shape.
    """

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        width = config.stack.width
        self.project = tag("input", nn.Linear(config.inputs, width))
        self.stack = config.stack.build()
        self.head = forecast_head(
            config.pool, width=width, horizon=config.horizon, known=config.known, quantiles=len(config.quantiles)
        )

    def forward(self, past: Float[Tensor, "B T F"], known: Float[Tensor, "B P G"]) -> Float[Tensor, "B P Q"]:
        """Return the quantiles of the first variable, P steps ahead.

        Args:
            past: the window, the target first (B, T, F).
            known: what is known of the steps ahead (B, P, G).
        """
        hidden, _ = self.stack(self.project(past))
        return self.head(hidden, known)[:, :, 0] + past[:, -1:, :1]
