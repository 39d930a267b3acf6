"""Sizes and initial values of the RWKV-7 time mix, as the official training code has them.

References:
    github.com/BlinkDL/RWKV-LM, RWKV-v7/train_temp/src/model.py.
"""

import math
from typing import NamedTuple

import torch

from workbench.cells.token_shift import fresh_blend
from workbench.shapes import Tensor


class Ranks(NamedTuple):
    """Inner widths of the low-rank gates."""

    decay: int
    rate: int  # of the in-context learning rate
    value: int  # of the share of layer 0's values
    gate: int


def official_ranks(width: int) -> Ranks:
    """The ranks that the official training code takes at a width; published models store their own."""
    return Ranks(*(max(32, 32 * round(factor * math.sqrt(width) / 32)) for factor in (2.5, 2.5, 1.7, 5.0)))


def initial(width: int, head_size: int, layer: int, layers: int) -> dict[str, Tensor]:
    """Initial values that depend on the channel and on the position in the stack, as in the official code."""
    depth, left = layer / max(layers - 1, 1), 1 - layer / layers
    place = torch.arange(width) / max(width - 1, 1)
    within = 2 * (torch.arange(width) % head_size) / max(head_size - 1, 1) - 1  # -1 ... 1 inside each head
    zigzag, linear = within * within.abs(), place - 0.5
    return {
        "blend": torch.stack([fresh_blend(width, power * left) for power in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)]),
        "decay": -5.5 + 6 * place ** (1 + depth**0.3) + 2.5 * zigzag,
        "rate": -0.19 + 0.3 * zigzag + 0.4 * linear,
        "share": 0.73 - 0.4 * linear,
        "removal": 0.71 - 0.1 * linear,
    }
