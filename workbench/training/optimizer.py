"""The optimiser, its groups by role, and the schedule of its step size."""

import math

import torch
from torch import nn

from workbench.cells.roles import parameter_roles

DECAYED = ("input", "projection", "head")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: the matrices of input, projection and head, which decay; and all the rest, which do not.

    Recurrent weights, memories, norms and biases decide what is kept over time: pulling them to zero
    would change what the recurrence is.
    """
    roles = parameter_roles(model)
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        group = decayed if roles[name] in DECAYED and parameter.ndim > 1 else free
        group.append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the groups by role.

    References:
        Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=(0.9, 0.95))


def step_size(step: int, steps: int, warmup: int, floor: float = 0.05) -> float:
    """Share of the full step size: rises linearly for `warmup` steps, then falls along a cosine to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
