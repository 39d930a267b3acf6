"""Recurrent states of NX-AI's xLSTM package and of transformers' xLSTM as ours, and back.

A state there belongs to the same past as the one here: both sides go on from it alike. Two things differ. The 2024
package keeps keys scaled by D^-1/2. And theirs begin at m = 0 where ours begin at m = -inf, so that c, n and m
differ after the same past, while exp(m) c and exp(m) n do not. Nothing is shared: both packages write into the
state that they are given, and what comes from here or goes there is a copy.
"""

from collections.abc import Mapping

import torch

from workbench.cells.mlstm import MLSTMCellState
from workbench.cells.slstm import SLSTMCellState
from workbench.kernels.mlstm import MLSTMState
from workbench.kernels.slstm import SLSTMState
from workbench.models.layouts import XLSTMStackConfig
from workbench.models.stack import StackState
from workbench.shapes import Tensor

LargeState = tuple[Tensor, Tensor, Tensor]


def from_nxai_state(state: Mapping[str, Mapping[str, object]], config: XLSTMStackConfig) -> StackState:
    """What `xLSTMBlockStack.step` returned, as the state of a stack of this configuration.

    Args:
        state: {"block_0": {"mlstm_state": (c, n, m), "conv_state": (tail,)}, "block_1": {"slstm_state": ...}, ...}.
        config: the stack.

    Raises:
        ValueError: blocks are missing, or are of another kind than the configuration's.
    """
    if wrong := sorted(set(state) ^ {f"block_{at}" for at in range(config.layers)}):
        raise ValueError(f"the state and the stack's {config.layers} blocks differ in {', '.join(wrong)}.")
    blocks = []
    for at in range(config.layers):
        kind, block = "slstm" if at in config.slstm_at else "mlstm", state[f"block_{at}"]
        if wrong := sorted(set(block) ^ {f"{kind}_state", "conv_state"}):
            raise ValueError(f"block_{at} is an {kind} here, and its state differs in {', '.join(wrong)}.")
        memory = block[f"{kind}_state"]
        if kind == "slstm":
            memory = SLSTMState(*(x.unflatten(-1, (config.slstm_heads, -1)).clone() for x in memory.unbind()))
            blocks.append(SLSTMCellState(_tail(block["conv_state"], memory.h), memory))
        else:
            c, n, m = memory
            scale = c.shape[2] ** 0.5
            memory = MLSTMState(c * scale, n[..., 0] * scale, m[..., 0, 0].clone())
            blocks.append(MLSTMCellState(_tail(block["conv_state"], c), memory))
    return StackState(tuple(blocks))


def to_nxai_state(state: StackState) -> dict[str, dict[str, object]]:
    """The state of a stack of the 2024 paper as `xLSTMBlockStack.step` takes it.

    Raises:
        TypeError: a block is neither an sLSTM nor an mLSTM with exponential input gate.
    """
    theirs = {}
    for at, block in enumerate(state.blocks):
        if not isinstance(block, SLSTMCellState | MLSTMCellState):
            raise TypeError(f"block {at} is a {type(block).__name__}, and the official package has no such block.")
        tail = None if block.tail.shape[1] == 0 else (torch.cat([torch.zeros_like(block.tail[:, :1]), block.tail], 1),)
        if isinstance(block.memory, SLSTMState):
            theirs[f"block_{at}"] = {
                "conv_state": tail,
                "slstm_state": torch.stack([x.flatten(1) for x in block.memory]),
            }
        else:
            c, n, m = _begun(_mlstm(block.memory))
            scale = c.shape[2] ** -0.5
            memory = (c * scale, n[..., None] * scale, m[..., None, None])
            theirs[f"block_{at}"] = {"mlstm_state": memory, "conv_state": tail}
    return theirs


def from_large_state(state: Mapping[int, LargeState]) -> StackState:
    """What `xLSTMLarge` returned, or the `rnn_state` of transformers' cache, as the state of a stack.

    Raises:
        ValueError: the blocks are not numbered from 0.
    """
    if sorted(state) != list(range(len(state))):
        raise ValueError(f"the state holds the blocks {sorted(state)}, and must hold all from 0 upwards.")
    blocks = (map(Tensor.clone, state[at]) for at in range(len(state)))
    return StackState(tuple(MLSTMState(c, n, m[..., 0]) for c, n, m in blocks))


def to_large_state(state: StackState) -> dict[int, LargeState]:
    """The state of a stack of xLSTM 7B as `xLSTMLarge` takes it: c (B, H, K, V), n (B, H, K), m (B, H, 1).

    Raises:
        TypeError: a block holds another memory.
    """
    blocks = (map(Tensor.clone, _begun(_mlstm(memory))) for memory in state.blocks)
    return {at: (c, n, m[..., None]) for at, (c, n, m) in enumerate(blocks)}


def _tail(conv: tuple[Tensor] | Tensor | None, like: Tensor) -> Tensor:
    """Their step keeps one input more than it needs, in a tuple; their forward pass of an sLSTM does not."""
    if conv is None:
        return like.new_zeros(like.shape[0], 0, like.shape[1] * like.shape[2])
    return (conv[0][:, 1:] if isinstance(conv, tuple) else conv).clone()


def _mlstm(memory: tuple) -> MLSTMState:
    if not isinstance(memory, MLSTMState):
        raise TypeError(
            f"a block's memory is {type(memory).__name__}, and the official package knows MLSTMState alone."
        )
    return memory


def _begun(memory: MLSTMState) -> MLSTMState:
    """The same memory, where an empty one has m = 0 as theirs does."""
    return memory._replace(m=memory.m.masked_fill(memory.m == -torch.inf, 0))
