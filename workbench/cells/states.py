"""States of cells and stacks: nested tuples of tensors, treated as one thing."""

from collections.abc import Callable

from torch import Tensor


def map_state(function: Callable[[Tensor], Tensor], state: tuple | Tensor | None) -> tuple | Tensor | None:
    """Apply a function to every tensor of a state, keeping its structure."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return function(state)
    parts = [map_state(function, part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def detach(state: tuple | None) -> tuple | None:
    """The same memory, cut off from the graph that made it (truncated backpropagation through time)."""
    return map_state(Tensor.detach, state)
