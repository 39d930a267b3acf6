"""Titans: the memory as a layer, a small network that learns while it reads, between convolution and output gate."""

import math
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.gated_delta import normalize
from workbench.cells.levers import Lever, anything, forget_levers, itself
from workbench.cells.parts import CausalConv, RMSNorm, merge_heads, split_heads, zero_padding
from workbench.cells.roles import tag
from workbench.kernels.backends import Choice
from workbench.kernels.checks import compute_dtype, full_width, inside, silence
from workbench.kernels.neural_memory import (
    NeuralMemoryMLPState,
    NeuralMemoryState,
    first_state,
    neural_memory,
    neural_memory_gates,
    neural_memory_mlp,
    neural_memory_mlp_gates,
)
from workbench.shapes import Float, Int, Tensor

Memory = Literal["linear", "mlp"]
KERNELS = {
    "linear": (neural_memory, neural_memory_gates),
    "mlp": (neural_memory_mlp, neural_memory_mlp_gates),
}
LARGEST_STEP = {"linear": 0.5, "mlp": 0.05}  # of all steps of a span together
FRESH = {"linear": (0.01, 0.9, 0.01), "mlp": (0.001, 0.9, 0.1)}  # alpha, eta, and theta in largest steps


class TitansCellState(NamedTuple):
    """What a stream must carry. The memory knows how far it is in its span, so that any cut is exact."""

    tail: Tensor  # last inputs of the convolution: q, k and v side by side (B, conv - 1, 3E)
    memory: NeuralMemoryState | NeuralMemoryMLPState


class Inputs(NamedTuple):
    """What the kernel and the way out of the layer need; what the kernel takes is float32 or wider."""

    q: Tensor  # of length 1 (B, H, T, D)
    k: Tensor  # of length 1 (B, H, T, D)
    v: Tensor  # (B, H, T, D)
    alpha: Tensor  # share of the memory that is forgotten (B, H, T)
    eta: Tensor  # share of the surprise that is carried on (B, H, T)
    theta: Tensor  # step size (B, H, T)
    gate: Tensor  # what multiplies the output (B, T, E)


class Titans(nn.Module):
    """LMM, the long-term memory alone as a layer of a sequence model.

    q, k, v = SiLU(conv(W x)), q and k of length 1 in each head;   alpha, eta = sigmoid(W x + b);
    theta = step_max sigmoid(W x + b);   y = W_o (RMSNorm(o) SiLU(W_g x)), o being the memory's answer to q.

    What the paper leaves open is chosen here. Gates depend on x alone, one number for each head and step, and are the
    same for all x at first. The norm is within each head, its weight shared by the heads.

    A memory that learns grows without bound where its steps are too long, and steps add up: those of a span, which
    all correct the same error, and those that momentum repeats. The largest step is therefore 0.5 / refresh for one
    matrix, so that a span corrects a repeated error once with keys of length 1 and no momentum; two layers, whose
    gradients grow with their weights, take a tenth of it. Fresh gates of one matrix forget 0.01, carry on 0.9 of the
    surprise and take 0.01 of the largest step; with 0.1 of it and refresh=1, a sine in, the memory diverges: the
    largest step is a scale, and no promise for gates that training has moved. Forgetting draws weights to zero, and
    two layers of zeros never learn again: fresh ones forget 0.001, and take 0.1. First weights of two layers are drawn
    from N(0, 1 / inputs), persistent inputs from N(0, 1).

    Args:
        width: model width E, a multiple of heads.
        heads: heads H, each with a memory of its own.
        memory: "linear" is one matrix, empty at first; "mlp" has two layers, whose first weights are learned.
        factor: hidden width of the two layers, in sizes of a head.
        refresh: steps that share the weights at which gradients are taken, the paper's mini-batch.
        conv: steps that the convolution sees.
        persistent: learned inputs that every sequence begins with (Sec. 3.3); their outputs are dropped.
        step_max: largest step size; None is 0.5 / refresh for "linear" and 0.05 / refresh for "mlp".
        backend: form of the kernel, by name or as a `Choice`.

    References:
        Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Secs. 3 and 4.3-4.4.
    """

    role = "core"
    SILENT: ClassVar = {"query": 0.0}  # what makes a head answer nothing, see workbench.cells.levers

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        memory: str = "linear",
        factor: int = 4,
        refresh: int = 1,
        conv: int = 4,
        persistent: int = 0,
        step_max: int | float | None = None,
        backend: str | Choice = "auto",
    ) -> None:
        super().__init__()
        if memory not in LARGEST_STEP:
            raise ValueError(f"memory={memory!r} is unknown; choose one of {', '.join(LARGEST_STEP)}.")
        if heads < 1 or width % heads:
            raise ValueError(
                f"width={width} is not a multiple of heads={heads}; try heads={math.gcd(width, max(heads, 1))}."
            )
        if refresh < 1 or persistent < 0 or factor < 1:
            raise ValueError(f"{refresh=} and {factor=} must be 1 or more, and {persistent=} 0 or more.")
        step_max = LARGEST_STEP[memory] / refresh if step_max is None else step_max
        if not 0 < step_max < math.inf:
            raise ValueError(f"step_max={step_max} is not a step size; take a number above 0.")
        self.width, self.heads, self.refresh, self.backend = width, heads, refresh, backend
        self.memory = memory
        self.kernel, self.watch = KERNELS[memory]
        self.memory, self.step_max = memory, step_max
        size = width // heads
        self.qkv = tag("projection", nn.Linear(width, 3 * width, bias=False))
        self.conv = tag("input", CausalConv(3 * width, conv, bias=False))
        self.gates = tag("input", nn.Linear(width, 3 * heads))  # alpha, eta, theta
        nn.init.zeros_(self.gates.weight)
        shares = torch.tensor(FRESH[memory]).repeat_interleave(heads)
        self.gates.bias.data = torch.logit(shares)
        first = {}
        if memory == "mlp":
            hidden = factor * size
            first["w1"] = nn.Parameter(torch.randn(heads, hidden, size) / math.sqrt(size))
            first["w2"] = nn.Parameter(torch.randn(heads, size, hidden) / math.sqrt(hidden))
        self.first = tag("memory", nn.ParameterDict(first))
        tokens = {"tokens": nn.Parameter(torch.randn(persistent, width))} if persistent else {}
        self.persistent = tag("persistent", nn.ParameterDict(tokens))
        self.gate = tag("projection", nn.Linear(width, width, bias=False))
        self.norm = RMSNorm(size, eps=1e-5)
        self.down = tag("projection", nn.Linear(width, width, bias=False))

    def project(
        self, x: Float[Tensor, "B T E"], state: TitansCellState | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Inputs, Tensor, tuple | None]:
        """Return what the kernel needs, the new tail of the convolution, and the kernel's state."""
        return self.read(x, self.begin(x, state), lengths)

    def read(
        self, x: Float[Tensor, "B T E"], state: TitansCellState | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Inputs, Tensor, tuple | None]:
        """The same, with nothing before the first step."""
        tail, memory = (None, None) if state is None else state
        x = zero_padding(x, lengths)
        smooth, tail = self.conv(self.qkv(x), tail, lengths)
        wide = compute_dtype(smooth)
        q, k, v = (split_heads(part, self.heads) for part in F.silu(smooth.to(wide)).chunk(3, -1))
        alpha, eta, theta = torch.sigmoid(self.gates(x).to(wide)).transpose(1, 2).chunk(3, 1)
        gate = F.silu(self.gate(x))
        return Inputs(normalize(q), normalize(k), v, alpha, eta, self.step_max * theta, gate), tail, memory

    def learn(
        self, at: Inputs, memory: tuple | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Float[Tensor, "B H T D"], tuple]:
        """Run the memory: its answers, and what it has become."""
        weights = self.first_weights(at)
        return self.kernel(*at[:6], *weights, memory, refresh=self.refresh, lengths=lengths, backend=self.backend)

    def first_weights(self, at: Inputs) -> list[Tensor]:
        """Weights of the memory before the first step, in the type of the inputs; none for one matrix."""
        return [w.to(at.q.dtype) for w in self.first.values()]

    def leave(self, o: Float[Tensor, "B H T D"], at: Inputs) -> Float[Tensor, "B T E"]:
        """The way from the memory's answer to the output of the layer."""
        return self.down(merge_heads(self.norm(o)).to(at.gate.dtype) * at.gate)

    def begin(self, x: Float[Tensor, "B T E"], state: TitansCellState | None) -> TitansCellState | None:
        """The state before the first step: where none is given, the one that the persistent inputs leave."""
        if state is not None or not self.persistent:
            return state
        tokens = self.persistent["tokens"].to(x.dtype).expand(x.shape[0], -1, -1)
        at, tail, _ = self.read(tokens, None, None)
        return TitansCellState(tail, self.learn(at, None, None)[1])

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: TitansCellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], TitansCellState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, TitansCellState, lengths)
        at, tail, memory = self.project(x, state, lengths)
        o, memory = self.learn(at, memory, lengths)
        return self.leave(o, at), TitansCellState(tail, memory)

    def trace(
        self,
        x: Float[Tensor, "B T E"],
        state: TitansCellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        check_input(self, x, state, TitansCellState, lengths)
        at, _, memory = self.project(x, state, lengths)
        if memory is None and len(self.first):
            memory = first_state(*self.first_weights(at), len(x))
        with full_width(at.q):
            o, _, seen = self.watch(*at[:6], memory, refresh=self.refresh, lengths=lengths)
        if lengths is None:
            alive = torch.ones_like(at.alpha, dtype=torch.bool)
        else:
            alive = inside(lengths, x.shape[1])[:, None].expand_as(at.alpha)
            o = silence(o, lengths)
        quantities = {
            "input": torch.where(alive, at.theta / self.step_max, 0),
            "forget": torch.where(alive, 1 - at.alpha, 1),
            "log_forget": torch.where(alive, torch.log1p(-at.alpha), 0),
            "step_size": torch.where(alive, at.theta, 0),
            "momentum": torch.where(alive, at.eta, 1),
            "surprise": torch.where(alive, seen.error, 0),
            "surprise_norm": seen.momentum,
            "state_norm": seen.size,
            "state_rank": seen.rank,
            "output": split_heads(at.gate, self.heads),
            "query": at.q,
            "key": at.k,
            "value": at.v,
            "hidden": o,
        }
        if self.memory == "linear":  # theta times the gradient of its loss is 2 theta k error^T
            strength = 2 * quantities["step_size"]
            write = strength * at.k.norm(dim=-1) * quantities["surprise"]
            quantities |= {"write_strength": strength, "write_norm": write}
        return self.leave(o, at), quantities

    def levers(self) -> dict[str, Lever]:
        """What can be forced, by name (see workbench.cells.levers); never in the persistent inputs."""
        linear = {"write_strength": Lever("theta", lambda x: x / 2, 0.0, 2.0)} if self.memory == "linear" else {}
        return linear | {
            **forget_levers("alpha", lambda log_forget: -torch.expm1(log_forget)),
            "momentum": Lever("eta", itself),
            "step_size": Lever("theta", itself, 0.0, math.inf),
            "input": Lever("theta", lambda x: self.step_max * x),
            "query": anything("q"),
            "key": anything("k"),
            "value": anything("v"),
            "output": anything("gate", merged=True),
        }
