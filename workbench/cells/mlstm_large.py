"""MLSTMLarge: the mLSTM layer of xLSTM 7B, matrix memory at the model's own width."""

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from workbench.cells.checks import check_input
from workbench.cells.levers import Lever, itself
from workbench.cells.mlstm import KERNELS, UNSTABILIZED, Gates, Recurrence, mlstm_levers, watch
from workbench.cells.parts import HeadNorm, small_init, soft_cap, split_heads, wang_init, zero_padding
from workbench.cells.roles import tag
from workbench.kernels.backends import Choice
from workbench.kernels.mlstm import MLSTMSigmoidState, MLSTMState
from workbench.shapes import Float, Int, Tensor

State = MLSTMState | MLSTMSigmoidState  # all that a stream must carry


class Inputs(NamedTuple):
    """What the kernel and the way out of the layer need."""

    q: Tensor  # (B, H, T, K)
    k: Tensor  # (B, H, T, K)
    v: Tensor  # (B, H, T, V)
    i: Tensor  # preactivation (B, H, T)
    f: Tensor  # preactivation (B, H, T)
    gate: Tensor  # what multiplies the output (B, T, E)


class MLSTMLarge(nn.Module):
    """y = W_out (sigmoid(o~) * norm(h~)): the mLSTM without convolution, up-projection and skip.

    One matrix makes q, k, v and o~, one makes i~ and f~, which are softly capped. Queries and keys are narrower
    than values, which have the width of the model. Nothing is added to the denominator of h~: the official
    kernels add 1e-6, which the norm behind it takes out again, up to the norm's own eps.

    Args:
        width: model width E, a multiple of heads.
        heads: heads H.
        qk_factor: width of q and of k, in widths.
        gate_cap: i~ and f~ are softly held within plus and minus this; None for no cap.
        layers: layers of the stack, for the scale of the last projection.
        gates: kind of the gates, as in `workbench.cells.mlstm.MLSTM`.
        backend: form of the kernel, by name or as a `Choice`.

    References:
        Beck et al. (2025), xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference, arXiv:2503.13427, Sec. 3.
    """

    role = "core"
    SILENT: ClassVar = {"query": 0.0}  # what makes a head answer nothing, see workbench.cells.levers

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        qk_factor: int | float = 0.5,
        gate_cap: int | float | None = 15.0,
        layers: int = 1,
        gates: Gates = "exponential",
        backend: str | Choice = "auto",
    ) -> None:
        super().__init__()
        keys = int(qk_factor * width)
        if keys < 1 or heads < 1:
            raise ValueError(f"heads={heads} and keys of width {qk_factor} x {width} = {keys} leave no memory.")
        if width % heads or keys % heads:
            raise ValueError(
                f"width={width} and the width of the keys, {qk_factor} x {width} = {keys}, must be multiples of "
                f"heads={heads}; try heads={math.gcd(width, keys)}."
            )
        if gate_cap is not None and gate_cap <= 0:
            raise ValueError(
                f"gate_cap={gate_cap} leaves the gates no room; take a number above 0, or None for no cap."
            )
        self.width, self.heads, self.gate_cap = width, heads, gate_cap
        self.gates, self.backend = gates, backend
        self.sizes = (keys, keys, width, width)
        self.recurrence = KERNELS[gates]
        self.qkvo = tag("projection", nn.Linear(width, sum(self.sizes), bias=False))
        self.input_forget = nn.Linear(width, 2 * heads)
        self.norm = HeadNorm(width, heads, eps=1e-6)
        self.out = tag("projection", nn.Linear(width, width, bias=False))
        small_init(self.qkvo.weight, width)
        nn.init.zeros_(self.qkvo.weight.data[-width:])  # all output gates half open
        nn.init.zeros_(self.input_forget.weight)
        forget = torch.linspace(3, 6, heads)
        forget = F.logsigmoid(forget) if gates == "expforget" else forget
        self.input_forget.bias.data = torch.cat([torch.full((heads,), -10.0), forget])
        wang_init(self.out.weight, width, layers)

    def project(self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"] | None) -> Inputs:
        """Return what the kernel and the way out need."""
        x = zero_padding(x, lengths)
        q, k, v, gate = self.qkvo(x).split(self.sizes, -1)
        i, f = soft_cap(self.input_forget(x), self.gate_cap).transpose(1, 2).chunk(2, 1)
        return Inputs(*(split_heads(part, self.heads) for part in (q, k, v)), i, f, torch.sigmoid(gate))

    def leave(self, h: Float[Tensor, "B H T D"], at: Inputs) -> Float[Tensor, "B T E"]:
        """The way from the memory's answer to the output of the layer."""
        return self.out(at.gate * self.norm(h))

    def forward(
        self, x: Float[Tensor, "B T E"], state: State | None = None, *, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T E"], State]:
        """Return y (B, T, E) and the state after the last step."""
        check_input(self, x, state, MLSTMSigmoidState if self.gates == "sigmoid" else MLSTMState, lengths)
        at = self.project(x, lengths)
        h, state = self.recurrence.kernel(*at[:5], state, lengths=lengths, backend=self.backend)
        return zero_padding(self.leave(h, at), lengths), state

    def trace(
        self, x: Float[Tensor, "B T E"], state: State | None = None, *, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T E"], dict[str, Tensor]]:
        """Compute the output again, by the reference, with every quantity by name (see workbench.trace)."""
        check_input(self, x, state, MLSTMSigmoidState if self.gates == "sigmoid" else MLSTMState, lengths)
        at = self.project(x, lengths)
        h, quantities = watch(self.recurrence, *at[:5], state, lengths)
        y = zero_padding(self.leave(h, at), lengths)
        return y, quantities | {"output": split_heads(at.gate, self.heads)}

    def levers(self) -> dict[str, Lever]:
        """What can be forced, by name (see workbench.cells.levers)."""
        return mlstm_levers(self.gates) | {"output": Lever("gate", itself, merged=True)}

    def without_stabilizer(self) -> Recurrence | None:
        """The same equations without m; None where there is none."""
        return UNSTABILIZED.get(self.gates)
