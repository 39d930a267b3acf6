"""Activation checkpointing over time: keep the state at a few places, compute the steps between them again.

References:
    Chen et al. (2016), Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_segments(form: Callable, size: int, *args: Tensor | int | tuple | None) -> tuple[Tensor, tuple]:
    """Run a chunkwise form segment by segment, keeping only inputs, outputs and the state between segments.

    A segment is about sqrt(N) of the N chunks. What a backward pass then needs, beyond the inputs and outputs
    that everybody keeps, is sqrt(N) states and the inside of one segment: it grows with sqrt(T) instead of T.

    Args:
        form: `form(*inputs, state) -> (y, state)`, exact through any cut.
        size: steps in a chunk.
        args: the inputs, time on axis 2 (B, H, T, ...), numbers among them as they are, and the state.
    """
    *inputs, state = args
    steps = inputs[0].shape[2]
    if not torch.is_grad_enabled():
        return form(*inputs, state)
    segment = size * math.ceil(math.sqrt(steps / size))
    outputs = []
    for start in range(0, steps, segment):
        end = min(start + segment, steps)
        now = [x[:, :, start:end] if isinstance(x, Tensor) else x for x in inputs]
        y, state = checkpoint(form, *now, state, use_reentrant=False)
        outputs.append(y)
    return torch.cat(outputs, 2), state
