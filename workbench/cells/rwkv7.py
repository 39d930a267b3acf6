"""RWKV7: the time mix of RWKV-7, its kernel between token shift, low-rank gates and the gated way out."""

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.levers import Lever, anything, forget_levers, itself, not_too_far
from workbench.cells.parts import merge_heads, split_heads, zero_padding
from workbench.cells.roles import tag
from workbench.cells.rwkv7_initial import Ranks, initial, official_ranks
from workbench.cells.token_shift import check_position, token_shift
from workbench.kernels.backends import Choice
from workbench.kernels.checks import full_width, silence
from workbench.kernels.rwkv7 import RWKV7State, rwkv7, rwkv7_gates
from workbench.shapes import Float, Int, Tensor


class RWKV7CellState(NamedTuple):
    """What a stream must carry. The values of layer 0 are needed within a call only."""

    shift: Tensor  # last input (B, 1, E)
    memory: RWKV7State


class Inputs(NamedTuple):
    """What the kernel and the way out of the layer need; heads (B, H, T, D) are float32 or wider."""

    r: Tensor  # (B, H, T, D)
    log_w: Tensor  # (B, H, T, D)
    k: Tensor  # (B, H, T, D)
    v: Tensor  # (B, H, T, D)
    kappa: Tensor  # (B, H, T, D)
    a: Tensor  # (B, H, T, D)
    gate: Tensor  # what multiplies the output (B, T, E)
    share: Tensor | None  # share of layer 0's values in v (B, T, E); layer 0 has none


class LowRank(nn.Module):
    """bias + act(x down) up; at first it is the bias alone, because `down` is zero."""

    def __init__(
        self, width: int, rank: int, act: Callable[[Tensor], Tensor] | None = None, bias: Tensor | None = None
    ) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(width, rank))
        self.up = nn.Parameter(torch.empty(rank, width))
        self.bias = None if bias is None else nn.Parameter(bias)
        self.act = act
        nn.init.orthogonal_(self.up, gain=0.1 * math.sqrt(max(rank / width, 1)))

    def forward(self, x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T E"]:
        """Project each step down and up."""
        inner = x @ self.down
        y = (inner if self.act is None else self.act(inner)) @ self.up
        return y if self.bias is None else y + self.bias


class RWKV7(nn.Module):
    """Time mix: generalised delta rule with decay, learning rate, value residual and gate from low-rank projections.

    Layers above the first blend their values with those of layer 0, so a stack runs `mix`, which takes and
    returns them. Layer 0 holds the parameters of that blend without using them, as in the official code and
    its parameter counts; they get no gradient.

    Args:
        width: model width E, a multiple of head_size.
        head_size: width of a head N; the official models take 64.
        layer: position in the stack, from 0.
        layers: layers of the stack; with the position it sets the initial values.
        ranks: inner widths of the gates; None is `official_ranks(width)`.
        norm_eps: added to the variance in the norm of each head; None is 1e-5 N.
        output_bias: add a constant to the output, as weights of the authors' demonstrations need.
        backend: form of the kernel, by name or as a `Choice`.

    References:
        Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456.
        Initial values: github.com/BlinkDL/RWKV-LM, RWKV-v7/train_temp/src/model.py; a single layer, which that
        code cannot build, starts as the first of many.
    """

    role = "core"
    SILENT: ClassVar = {"query": 0.0}  # what makes a head answer nothing, see workbench.cells.levers

    def __init__(
        self,
        width: int,
        *,
        head_size: int = 64,
        layer: int = 0,
        layers: int = 1,
        ranks: Ranks | None = None,
        norm_eps: float | None = None,
        output_bias: bool = False,
        backend: str | Choice = "auto",
    ) -> None:
        super().__init__()
        if width % head_size:
            raise ValueError(
                f"width={width} is not a multiple of head_size={head_size}; "
                f"try head_size={math.gcd(width, head_size)} or width={-(-width // head_size) * head_size}."
            )
        check_position(layer, layers)
        self.width, self.heads, self.layer, self.backend = width, width // head_size, layer, backend
        rank = Ranks(*(ranks or official_ranks(width)))
        start = initial(width, head_size, layer, layers)
        self.blend = nn.Parameter(start["blend"])  # for r, w, k, v, a, g
        self.receptance, self.key, self.value = (tag("input", nn.Linear(width, width, bias=False)) for _ in range(3))
        self.decay = LowRank(width, rank.decay, torch.tanh, start["decay"])
        self.rate = LowRank(width, rank.rate, None, start["rate"])
        self.share = LowRank(width, rank.value, None, start["share"])
        self.gate = LowRank(width, rank.gate, torch.sigmoid)
        self.removal = nn.Parameter(start["removal"])
        self.replacement = nn.Parameter(torch.full((width,), 1.02))
        self.bonus = nn.Parameter(torch.full((self.heads, head_size), -0.04))
        self.norm = tag("norm", nn.GroupNorm(self.heads, width, 1e-5 * head_size if norm_eps is None else norm_eps))
        self.output = tag("projection", nn.Linear(width, width, bias=output_bias))
        for linear, gain in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0)):
            nn.init.orthogonal_(linear.weight, gain=gain)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)
        nn.init.constant_(self.norm.weight, ((layer + 1) / layers) ** 0.7)

    def project(
        self,
        x: Float[Tensor, "B T E"],
        state: RWKV7CellState | None,
        lengths: Int[Tensor, " B"] | None,
        v_first: Float[Tensor, "B T E"] | None,
    ) -> tuple[Inputs, Tensor, RWKV7State | None]:
        """Return what the kernel needs, the last input, and the kernel's state."""
        shift, memory = (None, None) if state is None else state
        x = zero_padding(x, lengths)
        delta, shift = token_shift(x, shift, lengths)
        x_r, x_w, x_k, x_v, x_a, x_g = (x + delta * blend for blend in self.blend.unbind())
        k, a = self.key(x_k), torch.sigmoid(self.rate(x_a))
        v, share = self.blend_values(x_v, v_first, lengths)

        def heads(y: Tensor) -> Tensor:
            return split_heads(y.to(torch.promote_types(x.dtype, torch.float32)), self.heads)

        inputs = Inputs(
            r=heads(self.receptance(x_r)),
            log_w=-math.exp(-0.5) * torch.sigmoid(heads(self.decay(x_w))),
            k=heads(k * (1 + (a - 1) * self.replacement)),
            v=heads(v),
            kappa=F.normalize(heads(k * self.removal), dim=-1, eps=1e-12),
            a=heads(a),
            gate=self.gate(x_g),
            share=share,
        )
        return inputs, shift, memory

    def blend_values(
        self, x: Float[Tensor, "B T E"], v_first: Float[Tensor, "B T E"] | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B T E"] | None]:
        """Return v with its share of the values of layer 0, and that share; layer 0 has no share."""
        if v_first is None and self.layer > 0:
            raise ValueError(
                f"layer {self.layer} of RWKV7 blends its values with those of layer 0, and got v_first=None; "
                f"pass the third result of layer 0's mix(), as a stack does."
            )
        if v_first is not None and v_first.shape != x.shape:
            raise ValueError(
                f"v_first is {tuple(v_first.shape)}, and must be (B, T, E) = {tuple(x.shape)}: the values that "
                f"layer 0 made of these same steps."
            )
        if v_first is not None and v_first.device != x.device:
            raise ValueError(f"v_first is on {v_first.device}, and x on {x.device}; move both to one device.")
        v_first = v_first if v_first is None else zero_padding(v_first, lengths)
        if self.layer == 0:
            return self.value(x) if v_first is None else v_first, None
        v, share = self.value(x), torch.sigmoid(self.share(x))
        return v + (v_first - v) * share, share

    def leave(self, y: Float[Tensor, "B H T D"], at: Inputs) -> Float[Tensor, "B T E"]:
        """The way from the memory's answer to the output of the layer."""
        weight, bias = self.norm.weight.to(y.dtype), self.norm.bias.to(y.dtype)
        steps = merge_heads(y).flatten(0, 1)
        y = F.group_norm(steps, self.heads, weight, bias, self.norm.eps).unflatten(0, (y.shape[0], y.shape[2]))
        now = (at.r * at.k * self.bonus[:, None]).sum(-1, keepdim=True) * at.v
        return self.output((y + merge_heads(now)).to(at.gate.dtype) * at.gate)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: RWKV7CellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
        v_first: Float[Tensor, "B T E"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], RWKV7CellState]:
        """Return y (B, T, E) and the state after the last step.

        Args:
            x: inputs (B, T, E), behind a layer norm.
            state: what the last call returned; None is an empty past.
            lengths: steps of each sequence (B,).
            v_first: values of layer 0 for the same steps (B, T, E); layer 0 itself makes them where None.

        Raises:
            ValueError: a layer above the first got no v_first, or one of another shape.
        """
        check_input(self, x, state, RWKV7CellState, lengths)
        at, shift, memory = self.project(x, state, lengths, v_first)
        y, memory = rwkv7(*at[:6], memory, lengths=lengths, backend=self.backend)
        return zero_padding(self.leave(y, at), lengths), RWKV7CellState(shift, memory)

    def mix(
        self,
        x: Float[Tensor, "B T E"],
        state: RWKV7CellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
        v_first: Float[Tensor, "B T E"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], RWKV7CellState, Float[Tensor, "B T E"]]:
        """Return y and the state as `forward` does, and the v_first for the layers above (B, T, E)."""
        check_input(self, x, state, RWKV7CellState, lengths)
        if self.layer == 0 and v_first is None:
            quiet = zero_padding(x, lengths)
            delta, _ = token_shift(quiet, None if state is None else state.shift, lengths)
            v_first = self.value(quiet + delta * self.blend[3])
        y, state = self(x, state, lengths=lengths, v_first=v_first)
        return y, state, v_first

    def trace(
        self,
        x: Float[Tensor, "B T E"],
        state: RWKV7CellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
        v_first: Float[Tensor, "B T E"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        check_input(self, x, state, RWKV7CellState, lengths)
        at, _, memory = self.project(x, state, lengths, v_first)
        quiet = [silence(part, lengths) for part in at[:6]]
        with full_width(at.r):
            y, _, gates = rwkv7_gates(*quiet, memory)
        quantities = {
            "forget": quiet[1].exp(),
            "log_forget": quiet[1],
            "input": at.a,
            "output": split_heads(at.gate, self.heads),
            "write_norm": gates.write,
            "state_norm": gates.size,
            "state_rank": gates.rank,
            "query": at.r,
            "key": at.k,
            "value": at.v,
            "removal_key": at.kappa,
            "removed": gates.removed,
            "hidden": y,
        }
        if at.share is not None:
            quantities["value_residual"] = split_heads(at.share, self.heads)
        return zero_padding(self.leave(y, at), lengths), quantities

    def levers(self) -> dict[str, Lever]:
        """What can be forced, by name (see workbench.cells.levers)."""
        return {
            "input": Lever("a", itself),
            **forget_levers("log_w", not_too_far),
            "query": anything("r"),
            "key": anything("k"),
            "value": anything("v"),
            "removal_key": anything("kappa"),
            "output": anything("gate", merged=True),
        }
