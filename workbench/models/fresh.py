"""Fresh weights from a seed, and whether a model still has them."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)
LOOK = 64  # numbers of each parameter that are looked at


def fresh(make: Callable[[], Model], seed: int) -> Model:
    """Make a model whose weights are drawn from the seed, and let it remember them; nobody else's draws change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
    model.fresh = fingerprint(model)
    return model


def fingerprint(model: nn.Module) -> tuple[float, ...]:
    """One number for each parameter, which any training changes."""
    with torch.no_grad():
        return tuple(float(x.flatten()[:LOOK].double().cpu().sum()) for x in model.parameters() if not x.is_meta)


def is_fresh(model: nn.Module) -> bool | None:
    """Whether a model has the weights that it was made with; None where it does not remember them."""
    start = getattr(model, "fresh", None)
    return None if start is None else fingerprint(model) == start
