"""From a sequence of hidden states to a forecast: make one vector of the past, then read the steps ahead off it."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from workbench.cells.parts import zero_padding
from workbench.kernels.checks import inside
from workbench.shapes import Float, Int, Tensor

PoolKind = Literal["last", "mean", "attention"]
HeadKind = Literal["last", "mean", "attention", "mean_mlp", "flatten"]


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
        hidden = zero_padding(hidden, lengths)
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
        return torch.einsum("bt,bte->be", self.weights(hidden, lengths), zero_padding(hidden, lengths))

    def trace(
        self, hidden: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B E"], dict[str, Tensor]]:
        """The same, with the weights that it was read by (see workbench.trace)."""
        weights = self.weights(hidden, lengths)
        return torch.einsum("bt,bte->be", weights, zero_padding(hidden, lengths)), {"pooling_weights": weights}


class AttentionPool(nn.Module):
    """Ask every step one learned question, with several heads of attention.

    a_t = softmax over t of (W_q s) . (W_k h_t) / sqrt(D) in each head;   y = W_o (sum_t a_t W_v h_t).

    s, the question, and the biases start at 0: a fresh pool weighs all steps alike. With its biases it has
    4 E^2 + 5 E parameters; `Pool(width, "attention")` has E, and one head.

    Args:
        width: model width E.
        heads: heads H.

    References:
        Vaswani et al. (2017), Attention Is All You Need, arXiv:1706.03762, Sec. 3.2.
        Lee et al. (2019), Set Transformer, arXiv:1810.00825, Sec. 3.2, for the learned question.
    """

    role = "head"

    def __init__(self, width: int, *, heads: int = 4) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}.")
        self.heads = heads
        self.question = nn.Parameter(torch.zeros(width))
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.query, self.key, self.value, self.mix):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def weights(
        self, hidden: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B H T"]:
        """The share of each step in each head; a row adds up to 1, or to 0 where a sequence has no step."""
        query = self.query(self.question).unflatten(-1, (self.heads, -1))  # (H, D)
        key = self.key(zero_padding(hidden, lengths)).unflatten(-1, (self.heads, -1))  # (B, T, H, D)
        scores = torch.einsum("hd,bthd->bht", query, key) / query.shape[-1] ** 0.5
        if lengths is None:
            return torch.softmax(scores, -1)
        here = inside(lengths, hidden.shape[1])[:, None]
        return torch.softmax(scores.masked_fill(~here, torch.finfo(scores.dtype).min), -1).masked_fill(~here, 0)

    def forward(self, hidden: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B E"]:
        """What the heads read, mixed; of the first steps alone where there are lengths (B,), 0 where there is none."""
        return self.trace(hidden, lengths)[0]

    def trace(
        self, hidden: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B E"], dict[str, Tensor]]:
        """The same, with the weights that it was read by (see workbench.trace)."""
        weights = self.weights(hidden, lengths)
        value = self.value(zero_padding(hidden, lengths)).unflatten(-1, (self.heads, -1))
        pooled = self.mix(torch.einsum("bht,bthd->bhd", weights, value).flatten(1))
        if lengths is not None:
            pooled = pooled.masked_fill((lengths == 0)[:, None], 0)
        return pooled, {"pooling_weights": weights}


class Flatten(nn.Module):
    """All steps side by side, 0 where there is padding.

    Args:
        tokens: how many steps there must be, T.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, hidden: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B X"]:
        """The hidden states of a sequence as one vector (B, T E)."""
        if hidden.shape[1] != self.tokens:
            raise ValueError(
                f"a flat head of tokens={self.tokens} got {hidden.shape[1]} steps; it has weights for each step, so "
                "make it for this length, or take a head that pools."
            )
        return zero_padding(hidden, lengths).flatten(1)


class Readout(nn.Module):
    """Make one vector of the past, and read every step ahead off it at once.

    Args:
        pool: `pool(hidden, lengths) -> (B, X)`.
        decode: from that vector to all numbers of the forecast, (B, X) to (B, P C Q).
        horizon: steps ahead P.
        quantiles: how many numbers for each target, Q.
    """

    role = "head"

    def __init__(self, pool: nn.Module, decode: nn.Module, *, horizon: int, quantiles: int = 1) -> None:
        super().__init__()
        self.pool, self.decode = pool, decode
        self.horizon, self.quantiles = horizon, quantiles

    def forward(
        self, hidden: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B P C Q"]:
        """Return the forecast for every step ahead, target and quantile."""
        return self.decode(self.pool(hidden, lengths)).unflatten(-1, (self.horizon, -1, self.quantiles))


class StepwiseHead(nn.Module):
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
    kind: HeadKind,
    *,
    width: int,
    horizon: int,
    channels: int = 1,
    quantiles: int = 1,
    heads: int = 4,
    hidden: int | None = None,
    tokens: int | None = None,
    known: int | None = None,
) -> nn.Module:
    """Make a forecast head by its name: `head(hidden, lengths) -> (B, P, C, Q)`.

    "last" and "mean" read the forecast off one vector by a linear map, "mean_mlp" by a linear map, GELU and another;
    "attention" does that behind an `AttentionPool`; "flatten" has weights for each step. So "attention" is to be
    measured against "mean_mlp", which lacks nothing but the attention.

    Args:
        kind: its name.
        width: model width E.
        horizon: steps ahead P.
        channels: targets at each step.
        quantiles: how many numbers for each target.
        heads: of the attention.
        hidden: width inside the MLP; None is 2 E, and for "flatten" no MLP.
        tokens: steps T that "flatten" is made for, those of all streams together.

    Raises:
        ValueError: unknown name, or an argument that this kind does not have.
    """
    kinds = HeadKind.__args__
    if kind not in kinds:
        raise ValueError(f"forecast head {kind!r} is unknown; choose one of {', '.join(kinds)}.")
    if known is not None:  # TODO: goes when Forecaster makes its StepwiseHead itself
        return StepwiseHead(kind, width=width, horizon=horizon, channels=channels, known=known, quantiles=quantiles)
    if (kind == "flatten") != (tokens is not None):
        raise ValueError(f"forecast head {kind!r} got tokens={tokens}; 'flatten' needs it, and no other head has it.")
    if kind in ("last", "mean") and hidden is not None:
        raise ValueError(f"forecast head {kind!r} got hidden={hidden}, and has no MLP; 'mean_mlp' has one.")
    if kind in ("mean_mlp", "attention"):
        hidden = 2 * width if hidden is None else hidden
    pools = {"attention": lambda: AttentionPool(width, heads=heads), "flatten": lambda: Flatten(tokens)}
    pool = pools.get(kind, lambda: Pool(width, kind.removesuffix("_mlp")))()
    pooled, numbers = width * (tokens or 1), horizon * channels * quantiles
    decode = nn.Linear(pooled, numbers) if hidden is None else mlp(pooled, hidden, numbers)
    return Readout(pool, decode, horizon=horizon, quantiles=quantiles)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A linear map, GELU, and another."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
