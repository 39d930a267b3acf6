"""`with record(model) as trace:` gates and states by name, without touching the forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.kernels.checks import inside
from workbench.trace.names import derive, dimensions

if TYPE_CHECKING:
    import xarray


@dataclass
class Trace:
    """Named quantities of every cell that ran, and how exact they are.

    `trace["blocks.0.cell.forget"]` is an xarray.DataArray with dims (batch, head, time[, unit]). The start of
    a path may be left out as long as the rest is unique.

    Attributes:
        arrays: path and name to tensor, on the CPU.
        exactness: path of each cell to the largest difference between the output that the model computed and
            the one that belongs to the traced quantities.
    """

    arrays: dict[str, Tensor] = field(default_factory=dict)
    exactness: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> "xarray.DataArray":
        import xarray

        path = self.find(name)
        tensor = self.arrays[path]
        return xarray.DataArray(tensor.numpy(), dims=dimensions(tensor), name=path)

    def find(self, name: str) -> str:
        """The full path that a name stands for.

        Raises:
            KeyError: none or several; the message lists the nearest, or all that fit.
        """
        if name in self.arrays:
            return name
        fitting = [path for path in self.arrays if path.endswith("." + name)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise KeyError(f"{name!r} could be any of {', '.join(fitting)}.")
        near = get_close_matches(name, self.arrays, 3, 0.3) or list(self.arrays)[:3]
        raise KeyError(f"the trace holds no {name!r}; the nearest are {', '.join(near) or 'none: no cell has run'}.")

    def __contains__(self, name: str) -> bool:
        return name in self.arrays or any(path.endswith("." + name) for path in self.arrays)

    def names(self) -> list[str]:
        """All full paths."""
        return list(self.arrays)

    @property
    def error(self) -> float:
        """The largest difference from the real forward pass, over all cells."""
        return float(torch.tensor([0.0, *self.exactness.values()]).max())  # NaN if any is

    def __repr__(self) -> str:
        cells = ", ".join(f"{path} ({error:.1e})" for path, error in self.exactness.items())
        return f"Trace of {len(self.arrays)} quantities; largest difference from the forward pass: {cells or 'none'}"


@contextmanager
def record(model: nn.Module) -> Iterator[Trace]:
    """Record what happens in every cell of a model while it runs.

    The model computes as always: its output does not change by a bit, and nothing is left behind afterwards.
    After each cell has run, the cell computes the same step again by its reference, keeps every quantity by
    name, and compares the two outputs. A cell that runs several times keeps its last run.

    Args:
        model: any module with cells below it (modules that have a `trace` method).

    Yields:
        The trace, filled as the model runs.

    Raises:
        ValueError: there is no cell in the model.
    """
    trace, handles = Trace(), []
    for path, module in model.named_modules():
        if callable(getattr(module, "trace", None)):
            handles.append(module.register_forward_hook(_listener(path, trace), with_kwargs=True))
    if not handles:
        name = type(model).__name__
        raise ValueError(f"{name} holds no cell that can be traced; record a model built from workbench.cells.")
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()


def _listener(path: str, trace: Trace):
    @torch.no_grad()
    def listen(cell: nn.Module, inputs: tuple, options: dict, output: tuple) -> None:
        x, *rest = inputs
        state = rest[0] if rest else options.get("state")
        lengths = options.get("lengths")
        more = {name: value for name, value in options.items() if name not in ("state", "lengths")}
        y, quantities = cell.trace(x, state, lengths, **more)
        trace.exactness[path] = float((y - output[0]).abs().max())
        prefix = f"{path}." if path else ""
        for name, tensor in derive(quantities).items():
            trace.arrays[prefix + name] = blank(tensor.detach(), lengths).to("cpu", copy=True)

    return listen


def blank(x: Tensor, lengths: Tensor | None) -> Tensor:
    """NaN behind the end of each sequence (B, H, T, ...): nothing happened there."""
    if lengths is None:
        return x
    here = inside(lengths, x.shape[2])[:, None].reshape(len(x), 1, x.shape[2], *[1] * (x.ndim - 3))
    return torch.where(here, x, torch.nan)
