"""States of cells and stacks: nested tuples of tensors, treated as one thing."""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
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


def move(state: tuple | None, to: torch.device | torch.dtype | str) -> tuple | None:
    """The same memory on another device or in another floating-point type; whole numbers keep theirs."""
    if not isinstance(to, torch.dtype):
        return map_state(lambda x: x.to(to), state)
    return map_state(lambda x: x.to(to) if x.is_floating_point() else x, state)


def save_state(path: str | Path, state: tuple) -> None:
    """Write a state to one file: its tensors, and the names of the tuples that hold them. No pickle."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _walk(state, "state")}
    save_file(tensors, path, {"format": "workbench state 1", "structure": json.dumps(_structure(state))})


def load_state(path: str | Path, device: torch.device | str = "cpu") -> tuple:
    """Read a state that `save_state` wrote.

    Raises:
        ValueError: the file holds no state, not all of it, or one of a kind that this version does not know.
    """
    try:
        with safe_open(path, "pt", str(device)) as file:
            metadata = file.metadata() or {}
            found = metadata.get("format")
            if found != "workbench state 1":
                raise ValueError(f"{path} holds no state: its format is {found!r}; save_state writes one.")
            return _rebuild(json.loads(metadata["structure"]), "state", file.get_tensor)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}; save the state again with save_state.") from error


def _walk(state: tuple | Tensor | None, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield path, state
    elif state is not None:
        for place, part in enumerate(state):
            yield from _walk(part, f"{path}.{place}")


def _structure(state: tuple | Tensor | None) -> str | list | None:
    """None, "tensor", or the kind of a tuple and what is in it."""
    if state is None or isinstance(state, Tensor):
        return None if state is None else "tensor"
    kind = type(state)
    name = f"{kind.__module__}:{kind.__qualname__}" if hasattr(state, "_fields") else "tuple"
    return [name, *(_structure(part) for part in state)]


def _rebuild(structure: str | list | None, path: str, tensor: Callable[[str], Tensor]) -> tuple | Tensor | None:
    if structure is None or structure == "tensor":
        return structure and tensor(path)
    name, *inner = structure
    parts = [_rebuild(part, f"{path}.{place}", tensor) for place, part in enumerate(inner)]
    if name == "tuple":
        return tuple(parts)
    kind = _kind(name)
    if len(parts) != len(kind._fields):
        raise ValueError(
            f"the file holds a {name!r} of {len(parts)} fields, and this version's has {len(kind._fields)}: "
            f"{', '.join(kind._fields)}; load it with the version that saved it."
        )
    return kind(*parts)


def _kind(name: str) -> type[tuple]:
    """The tuple of that name, which must be one of this package."""
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(import_module(module), attribute) if module.startswith("workbench.") else None
    except (ModuleNotFoundError, AttributeError):
        kind = None
    if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
        raise ValueError(f"the file holds a state of kind {name!r}, which this version does not know.")
    return kind
