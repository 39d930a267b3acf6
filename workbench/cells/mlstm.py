"""MLSTM: the mLSTM layer of the 2024 block, matrix memory between an up- and a down-projection."""

import math
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.levers import (
    Lever,
    anything,
    before_log_sigmoid,
    before_sigmoid,
    forget_levers,
    log_input_lever,
    not_too_far,
)
from workbench.cells.parts import CausalConv, HeadNorm, HeadwiseLinear, small_init, split_heads, wang_init, zero_padding
from workbench.cells.roles import tag
from workbench.kernels.backends import Choice
from workbench.kernels.checks import compute_dtype, full_width, silence
from workbench.kernels.chunks import finite
from workbench.kernels.mlstm import (
    MLSTMSigmoidGates,
    MLSTMSigmoidState,
    MLSTMState,
    mask_padding,
    mlstm,
    mlstm_expforget,
    mlstm_gates,
    mlstm_sigmoid,
    mlstm_sigmoid_gates,
    widen,
)
from workbench.kernels.mlstm.unstabilized import (
    mlstm_expforget_unstabilized,
    mlstm_unstabilized,
    mlstm_unstabilized_gates,
)
from workbench.kernels.slstm import exponential
from workbench.shapes import Float, Int, Tensor


class MLSTMCellState(NamedTuple):
    """What a stream must carry."""

    tail: Tensor  # last inputs of the convolution (B, conv - 1, inner width, 2E as a rule)
    memory: MLSTMState | MLSTMSigmoidState


class Inputs(NamedTuple):
    """What the kernel and the way out of the layer need."""

    q: Tensor  # (B, H, T, D)
    k: Tensor  # (B, H, T, D)
    v: Tensor  # (B, H, T, D)
    i: Tensor  # preactivation (B, H, T)
    f: Tensor  # preactivation (B, H, T)
    smooth: Tensor  # output of the convolution, for the skip (B, T, inner width)
    gate: Tensor  # what multiplies the output (B, T, inner width)


class Recurrence(NamedTuple):
    """The kernel, the reference that says what happens in it, and its forget gate."""

    kernel: Callable
    watch: Callable
    log_forget: Callable[[Tensor], Tensor]
    keep: float  # preactivation of a forget gate of 1


Gates = Literal["exponential", "expforget", "sigmoid"]
KERNELS = {
    "exponential": Recurrence(mlstm, mlstm_gates, F.logsigmoid, math.inf),
    "expforget": Recurrence(mlstm_expforget, mlstm_gates, exponential, 0.0),
    "sigmoid": Recurrence(mlstm_sigmoid, mlstm_sigmoid_gates, F.logsigmoid, math.inf),
}
UNSTABILIZED = {
    "exponential": Recurrence(mlstm_unstabilized, mlstm_unstabilized_gates, F.logsigmoid, math.inf),
    "expforget": Recurrence(mlstm_expforget_unstabilized, mlstm_unstabilized_gates, exponential, 0.0),
}


def watch(
    recurrence: Recurrence,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    memory: MLSTMState | MLSTMSigmoidState | None,
    lengths: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the memory answers, by the reference (B, H, T, V), and what happens in it by name (see workbench.trace)."""
    narrow = q.dtype
    i, f = mask_padding(i, f, lengths, keep=recurrence.keep)
    with full_width(q):
        log_f = recurrence.log_forget(f.to(compute_dtype(q)))
        q, k, v, i = widen(q, k, v, i, lengths=lengths)
        h, _, seen = recurrence.watch(q, k, v, i, log_f, memory)
    h = silence(h, lengths).to(narrow)
    if isinstance(seen, MLSTMSigmoidGates):
        inside = {"input": torch.sigmoid(i)}
    else:
        inside = {
            "log_input": i,
            "input": torch.exp(i - finite(seen.m)),
            "normalizer": seen.norm,
            "stabilizer": seen.m,
            "normalizer_state": seen.n,
        }
    return h, inside | {
        "forget": log_f.exp(),
        "log_forget": log_f,
        "state_norm": seen.size,
        "state_rank": seen.rank,
        "query": q,
        "key": k,
        "value": v,
        "hidden": h,
    }


def mlstm_levers(gates: Gates) -> dict[str, Lever]:
    """What can be forced in the memory, by name (see workbench.cells.levers)."""
    grows = gates == "expforget"
    write = {"input": Lever("i", before_sigmoid)} if gates == "sigmoid" else {"log_input": log_input_lever("i")}
    return {
        **write,
        **forget_levers("f", not_too_far if grows else before_log_sigmoid, grows=grows),
        "query": anything("q"),
        "key": anything("k"),
        "value": anything("v"),
    }


class MLSTM(nn.Module):
    """mLSTM with convolution, learnable skip and a gated way out (pre-up-projection).

    x is projected to two parts, each twice as wide. One passes the convolution and becomes q and k (v
    skips the convolution); the other gates the output through SiLU, in the place of the paper's sigmoid
    output gate, as in the official implementation.

    Args:
        width: model width E.
        heads: heads H of the inner width.
        conv: steps that the convolution sees.
        block: width of the blocks in the projections to q, k and v.
        inner: width of each part; None is 2E.
        layers: layers of the stack, for the scale of the last projection.
        gates: "exponential" is the paper's input gate with a sigmoid forget gate; "expforget" makes both
            exponential; "sigmoid" makes both sigmoid, without normaliser (Beck et al. 2025, arXiv:2503.14376).
        backend: form of the kernel, by name or as a `Choice`.

    References:
        Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Fig. 11 (Appendix A.4).
    """

    role = "core"
    SILENT: ClassVar = {"query": 0.0}  # what makes a head answer nothing, see workbench.cells.levers

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        conv: int = 4,
        block: int = 4,
        inner: int | None = None,
        layers: int = 1,
        gates: Gates = "exponential",
        backend: str | Choice = "auto",
    ) -> None:
        super().__init__()
        inner = 2 * width if inner is None else inner
        if inner % heads or inner % block:
            raise ValueError(f"the inner width {inner} must be a multiple of heads={heads} and of block={block}.")
        self.width, self.heads, self.gates, self.backend = width, heads, gates, backend
        self.recurrence = KERNELS[gates]
        self.up = tag("projection", nn.Linear(width, 2 * inner, bias=False))
        self.conv = tag("input", CausalConv(inner, conv))
        self.qkv = tag("input", nn.ModuleDict({name: HeadwiseLinear(inner, inner // block) for name in "qkv"}))
        self.input_gate = nn.Linear(3 * inner, heads)
        self.forget_gate = nn.Linear(3 * inner, heads)
        self.norm = HeadNorm(inner, heads)
        self.skip = nn.Parameter(torch.ones(inner))
        self.down = tag("projection", nn.Linear(inner, width, bias=False))
        small_init(self.up.weight, width)
        for project in self.qkv.values():
            small_init(project.weight, width)
        nn.init.zeros_(self.input_gate.weight)
        nn.init.normal_(self.input_gate.bias, std=0.1)
        nn.init.zeros_(self.forget_gate.weight)
        bias = torch.linspace(3, 6, heads)
        self.forget_gate.bias.data = F.logsigmoid(bias) if gates == "expforget" else bias
        wang_init(self.down.weight, width, layers)

    def project(
        self, x: Float[Tensor, "B T E"], state: MLSTMCellState | None, lengths: Int[Tensor, " B"] | None
    ) -> tuple[Inputs, Tensor, MLSTMState | MLSTMSigmoidState | None]:
        """Return what the kernel needs, the new tail of the convolution, and the kernel's state."""
        tail, memory = (None, None) if state is None else state
        inner, gate = self.up(zero_padding(x, lengths)).chunk(2, -1)
        smooth, tail = self.conv(inner, tail, lengths)
        smooth = F.silu(smooth)
        q, k, v = self.qkv["q"](smooth), self.qkv["k"](smooth), self.qkv["v"](inner)
        joint = torch.cat([q, k, v], -1)
        i, f = (linear(joint).transpose(1, 2) for linear in (self.input_gate, self.forget_gate))
        heads = (split_heads(part, self.heads) for part in (q, k, v))
        return Inputs(*heads, i, f, smooth, F.silu(gate)), tail, memory

    def leave(self, h: Float[Tensor, "B H T D"], at: Inputs) -> Float[Tensor, "B T E"]:
        """The way from the memory's answer to the output of the layer."""
        return self.down((self.norm(h) + self.skip * at.smooth) * at.gate)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: MLSTMCellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], MLSTMCellState]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, MLSTMCellState, lengths)
        at, tail, memory = self.project(x, state, lengths)
        h, memory = self.recurrence.kernel(*at[:5], memory, lengths=lengths, backend=self.backend)
        return zero_padding(self.leave(h, at), lengths), MLSTMCellState(tail, memory)

    def trace(
        self,
        x: Float[Tensor, "B T E"],
        state: MLSTMCellState | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        check_input(self, x, state, MLSTMCellState, lengths)
        at, _, memory = self.project(x, state, lengths)
        h, quantities = watch(self.recurrence, *at[:5], memory, lengths)
        return zero_padding(self.leave(h, at), lengths), quantities | {"output": split_heads(at.gate, self.heads)}

    def levers(self) -> dict[str, Lever]:
        """What can be forced, by name (see workbench.cells.levers)."""
        return mlstm_levers(self.gates) | {"output": anything("gate", merged=True)}

    def without_stabilizer(self) -> Recurrence | None:
        """The same equations without m; None where there is none."""
        return UNSTABILIZED.get(self.gates)
