"""GatedDelta: the Gated DeltaNet layer, a memory that corrects what it got wrong, with convolution and output gate."""

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.levers import Lever, anything, forget_levers, itself, not_too_far
from workbench.cells.parts import CausalConv, RMSNorm, merge_heads, split_heads, zero_padding
from workbench.cells.roles import tag
from workbench.kernels.backends import Choice
from workbench.kernels.checks import compute_dtype, full_width, silence
from workbench.kernels.gated_delta import GatedDeltaState, gated_delta, gated_delta_gates, mask_padding
from workbench.shapes import Float, Int, Tensor


class GatedDeltaCellState(NamedTuple):
    """What a stream must carry."""

    tail: Tensor  # last inputs of the convolution: q, k and v side by side (B, conv - 1, H (2K + V))
    memory: GatedDeltaState


class Inputs(NamedTuple):
    """What the kernel and the way out of the layer need; what the kernel takes is float32 or wider."""

    q: Tensor  # of length K^-1/2 (B, H, T, K)
    k: Tensor  # of length 1 (B, H, T, K)
    v: Tensor  # (B, H, T, V)
    beta: Tensor  # writing strength (B, H, T)
    log_forget: Tensor  # (B, H, T)
    gate: Tensor  # what multiplies the output (B, T, H V)


class GatedDelta(nn.Module):
    """Gated DeltaNet with short convolutions, normalised keys and a gated norm on the way out.

    q, k, v = SiLU(conv(W x)), q and k divided by sqrt(sum of squares + 1e-6) in each head, q by sqrt(K);
    beta = sigmoid(W_b x);   log decay = -exp(A_log) softplus(W_a x + dt_bias);
    y = W_o (RMSNorm(o) SiLU(W_g x)), the norm within each head, its weight shared by the heads.

    One projection and one convolution serve q, k and v, in this order: each of their units has its own weights,
    so that this is the same as three. There is no bias but dt_bias, here `forget_bias` (A_log is `log_rate`).

    Fresh weights are those of the layer of the official implementation: exp(A_log) from U(0, 16), softplus(dt_bias)
    log-uniform from 0.001 to 0.1, norm 1, all others torch's own for linear maps and convolutions, +-1 / sqrt(inputs).
    (Its language model fills linear maps and convolutions anew, from N(0, 0.02^2).) A_log, dt_bias and the norm are
    vectors and take no weight decay, there as here.

    Args:
        width: model width E.
        heads: heads H.
        head_size: size K of queries and keys in a head; None is 0.75 E / H, for about 6 E^2 parameters in all.
        expand_v: size V of values in a head, in sizes of a key.
        conv: steps that the convolution sees.
        negative_eigenvalues: let beta reach 2, so that a memory can turn its sign along a key (Grazzi et al.).
        backend: the kernel's form by name, or a `Choice`.

    References:
        Yang et al. (2024), Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464, Sec. 3.4, Fig. 1.
        Grazzi et al. (2024), Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues, arXiv:2411.12537.
        The details that the paper leaves open are those of the layer in flash-linear-attention.
    """

    role = "core"
    SILENT: ClassVar = {"query": 0.0}  # what makes a head answer nothing, see workbench.cells.levers

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        head_size: int | None = None,
        expand_v: float = 2.0,
        conv: int = 4,
        negative_eigenvalues: bool = False,
        backend: str | Choice = "auto",
    ) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"heads={heads} leaves no memory; take 1 or more.")
        K = default_head_size(width, heads) if head_size is None else head_size
        if K < 1:
            raise ValueError(f"head_size={K} leaves no room for a key; take 1 or more.")
        V = round(K * expand_v)
        if V < 1 or not math.isclose(V, K * expand_v, rel_tol=1e-5):
            raise ValueError(
                f"expand_v={expand_v} with head_size={K} makes values of {K * expand_v:g} units, which must be a whole "
                f"number from 1; try expand_v={max(1, round(expand_v))}."
            )
        self.width, self.heads, self.backend = width, heads, backend
        self.sizes = (heads * K, heads * K, heads * V)
        self.strongest = 2 if negative_eigenvalues else 1
        self.qkv = tag("projection", nn.Linear(width, sum(self.sizes), bias=False))
        self.conv = tag("input", CausalConv(sum(self.sizes), conv, bias=False))
        self.write = tag("input", nn.Linear(width, heads, bias=False))
        self.forget = tag("input", nn.Linear(width, heads, bias=False))
        self.log_rate = nn.Parameter(torch.empty(heads).uniform_(1e-6, 16).log())
        pace = torch.exp(torch.empty(heads).uniform_(math.log(0.001), math.log(0.1)))
        self.forget_bias = nn.Parameter(pace + torch.log(-torch.expm1(-pace)))  # softplus(forget_bias) = pace
        self.gate = tag("projection", nn.Linear(width, heads * V, bias=False))
        self.norm = RMSNorm(V, eps=1e-5)
        self.down = tag("projection", nn.Linear(heads * V, width, bias=False))

    def project(
        self, x: Float[Tensor, "B T E"], state: GatedDeltaCellState | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Inputs, Tensor, GatedDeltaState | None]:
        """Return what the kernel needs, the new tail of the convolution, and the kernel's state."""
        tail, memory = (None, None) if state is None else state
        x = zero_padding(x, lengths)
        smooth, tail = self.conv(self.qkv(x), tail, lengths)
        write, forget = (linear(x).transpose(1, 2) for linear in (self.write, self.forget))  # (B, H, T)
        wide = compute_dtype(smooth)
        q, k, v = (split_heads(part, self.heads) for part in F.silu(smooth.to(wide)).split(self.sizes, -1))
        beta = self.strongest * torch.sigmoid(write.to(wide))
        # softplus(z) = -log sigmoid(-z); F.softplus's gradient breaks compiled graphs when layouts differ (torch 2.13)
        pace = -F.logsigmoid(-(forget.to(wide) + self.forget_bias.to(wide)[:, None]))
        log_forget = -torch.exp(self.log_rate.to(wide))[:, None] * pace
        q, k = normalize(q) * q.shape[-1] ** -0.5, normalize(k)
        return Inputs(q, k, v, beta, log_forget, F.silu(self.gate(x))), tail, memory

    def leave(self, o: Float[Tensor, "B H T V"], at: Inputs) -> Float[Tensor, "B T E"]:
        """The way from the memory's answer to the output of the layer."""
        return self.down(merge_heads(self.norm(o)).to(at.gate.dtype) * at.gate)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: GatedDeltaCellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], GatedDeltaCellState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, GatedDeltaCellState, lengths)
        at, tail, memory = self.project(x, state, lengths)
        o, memory = gated_delta(at.q, at.k, at.v, at.beta, at.log_forget, memory, lengths=lengths, backend=self.backend)
        return self.leave(o, at), GatedDeltaCellState(tail, memory)

    def trace(
        self,
        x: Float[Tensor, "B T E"],
        state: GatedDeltaCellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        check_input(self, x, state, GatedDeltaCellState, lengths)
        at, _, memory = self.project(x, state, lengths)
        beta, log_forget = mask_padding(at.beta, at.log_forget, lengths)
        q, k, v = (silence(part, lengths) for part in at[:3])
        with full_width(q):
            o, _, gates = gated_delta_gates(q, k, v, beta, log_forget, memory)
        o = silence(o, lengths)
        return self.leave(o, at), {
            "input": beta / self.strongest,
            "write_strength": beta,
            "forget": log_forget.exp(),
            "log_forget": log_forget,
            "output": split_heads(at.gate, self.heads),
            "error": gates.error,
            "write_norm": gates.write,
            "state_norm": gates.size,
            "state_rank": gates.rank,
            "query": q,
            "key": k,
            "value": v,
            "hidden": o,
        }

    def levers(self) -> dict[str, Lever]:
        """What can be forced, by name (see workbench.cells.levers)."""
        return {
            "input": Lever("beta", lambda x: self.strongest * x),
            "write_strength": Lever("beta", itself, 0.0, float(self.strongest)),
            **forget_levers("log_forget", not_too_far),
            "query": anything("q"),
            "key": anything("k"),
            "value": anything("v"),
            "output": anything("gate", merged=True),
        }


def normalize(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Divide by the length of the last axis; the 1e-6 under its root keeps an empty vector empty."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def default_head_size(width: int, heads: int) -> int:
    """The official rule for the size of a key: heads x head_size = 0.75 width.

    Raises:
        ValueError: it gives no whole number.
    """
    if 3 * width % (4 * heads):
        step = 4 * heads // math.gcd(3, 4 * heads)
        raise ValueError(
            f"width={width} with heads={heads} makes head_size = 0.75 x {width} / {heads} = {0.75 * width / heads:g}, "
            f"not a whole number; pass head_size, or try width={-(-width // step) * step}."
        )
    return 3 * width // (4 * heads)
