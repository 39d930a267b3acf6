"""What if? Force a gate, mask a head, drop the stabiliser; run again, and compare.

An edit changes what goes into a cell's kernel, never the kernel: the forward pass and the trace both see it, in every
form, with states, lengths and gradients. It is gone when the block ends. What can be forced where is said by each
cell, in `levers()`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import signature
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from workbench.cells.levers import Lever, pull
from workbench.trace.names import ours
from workbench.trace.record import record
from workbench.trace.store import Trace

HEAD, STABILIZER = "head", "stabilizer"  # what mask and drop_stabilizer put in the place of a quantity


@dataclass(frozen=True)
class Edit:
    """One change to one cell; make it with `force`, `mask` or `drop_stabilizer`. As a string, it says what it does.

    Attributes:
        cell: path of the cell, its start may be left out.
        name: the quantity that is forced; "head" for a mask, "stabilizer" for a dropped one.
        value: what it becomes, broadcast to (B, H, T[, D]); NaN leaves a place as the model has it.
        heads, units: which of them; None is all.
    """

    cell: str
    name: str
    value: float | int | Tensor = 0.0
    heads: tuple[int, ...] | None = None
    units: tuple[int, ...] | None = None

    def __str__(self) -> str:
        cell = self.cell or "the cell"
        if self.name == STABILIZER:
            return f"{cell} runs without its stabiliser"
        where = "".join(
            f" in {what} {', '.join(map(str, which))}"
            for what, which in (("head", self.heads), ("unit", self.units))
            if which is not None
        )
        if self.name == HEAD:
            return f"{cell} answers nothing{where}"
        size = np.shape(self.value)
        value = f"values of shape {tuple(size)}" if size else f"{float(self.value):g}"
        return f"{cell}.{self.name} := {value}{where}"


def force(
    path: str,
    value: float | int | Tensor | np.ndarray,
    *,
    heads: Sequence[int] | int | None = None,
    units: Sequence[int] | int | None = None,
) -> Edit:
    """Set a gate, a key or a query to a value: `force("blocks.0.cell.forget", 0.9)`.

    A gate takes the value to the precision of the cell's dtype. Where it depends on the last output (LSTM, GRU,
    sLSTM), its recurrent weights are 0 meanwhile, and it can be forced at every step only.

    Args:
        path: a cell and a quantity of the vocabulary, or of another tool's; the start may be left out.
        value: a number, or an array that broadcasts to (B, H, T), or (B, H, T, D) where each unit has its own, such
            as `trace.read(path)` of another run. NaN leaves a place to the model.
        heads, units: which of them; None is all.
    """
    cell, _, name = path.rpartition(".")
    return Edit(cell, name, torch.from_numpy(value) if isinstance(value, np.ndarray) else value, *several(heads, units))


def mask(cell: str, heads: Sequence[int] | int) -> Edit:
    """Let the memories of some heads answer nothing; what goes around a memory (skip, biases, residual) stays.

    The queries of a matrix memory become 0, or the output gates of an LSTM or sLSTM; a GRU forgets all and writes 0.
    """
    return Edit(cell, HEAD, 0.0, *several(heads, None))


def drop_stabilizer(cell: str) -> Edit:
    """Let an mLSTM or sLSTM run its equations without m: the same answers, until an exponential overflows."""
    return Edit(cell, STABILIZER)


def several(*choices: Sequence[int] | int | None) -> Iterator[tuple[int, ...] | None]:
    """Each choice as a tuple: of one number, of several, or None for all."""
    for which in choices:
        yield (which,) if isinstance(which, int) else None if which is None else tuple(which)


class WhatIf(NamedTuple):
    """The same inputs without and with edits."""

    before: Trace
    after: Trace
    output_before: Tensor | tuple
    output_after: Tensor | tuple


@torch.no_grad()
def what_if(
    model: nn.Module, inputs: Tensor | Sequence[Tensor | None], *edits: Edit, names: Iterable[str] = ("*",)
) -> WhatIf:
    """Run a model twice on the same inputs, without and with edits, and record both; it computes as in evaluation.

    Args:
        model: any module with cells of this package below it.
        inputs: what `model(*inputs)` takes; a tensor is the only one.
        edits: see `edited`. The second trace has them in its notes.
        names: what to record, see `workbench.trace.record.record`.

    Raises:
        ValueError: an edit does not fit the model.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    training, names = {module: module.training for module in model.modules()}, tuple(names)
    model.eval()
    try:
        with edited(model, *edits):  # refused before anything has run
            pass
        with record(model, names=names) as before:
            output_before = model(*inputs)
        with edited(model, *edits), record(model, names=names) as after:
            output_after = model(*inputs)
    finally:
        for module, mode in training.items():
            module.training = mode
    after.about["notes"] = [*after.about["notes"], *(f"edited: {edit}" for edit in edits)]
    return WhatIf(before, after, output_before, output_after)


@contextmanager
def edited(model: nn.Module, *edits: Edit) -> Iterator[nn.Module]:
    """A block in which a model runs with the edits, the later ones on top; afterwards it is as it was.

    A backward pass that computes parts of the forward pass again (recompute=True) belongs into the block.

    Raises:
        ValueError: no such cell, nothing of that name to force, a value out of range; and when the model runs,
            heads, units or a shape that it does not have.
    """
    with ExitStack() as stack:
        for edit in edits:
            path, cell = find(model, edit.cell)
            stack.enter_context(swapped(cell, **changes(path, cell, edit)))
        yield model


def find(model: nn.Module, path: str) -> tuple[str, nn.Module]:
    """The full path of a cell, and the cell.

    Raises:
        ValueError: none or several.
    """
    modules = dict(model.named_modules())
    cells = {name: module for name, module in modules.items() if hasattr(module, "levers")}
    fitting = [name for name in cells if name == path or name.endswith("." + path)]
    if path in cells or len(fitting) == 1:
        found = path if path in cells else fitting[0]
        return found, cells[found]
    if fitting:
        raise ValueError(f"{path!r} could be any of {', '.join(fitting)}.")
    have = ", ".join(cells) or "none"
    others = [module for name, module in modules.items() if name == path or name.endswith("." + path)]
    if others:
        raise ValueError(
            f"{path!r} is a {type(others[0]).__name__}, in which nothing can be forced: edits are for the cells of "
            f"workbench.cells. This model has {have}."
        )
    near = ", ".join(get_close_matches(path, cells, 3, 0.3)) or have
    raise ValueError(f"the model has no cell {path!r} that can be edited; the nearest are {near}.")


def changes(path: str, cell: nn.Module, edit: Edit) -> dict[str, object]:
    """What an edit puts in the place of a cell's attributes.

    Raises:
        ValueError: the cell has no such quantity, or not such a value of it.
    """
    kind, levers = type(cell).__name__, cell.levers()
    if edit.name == STABILIZER:
        if (plain := getattr(cell, "without_stabilizer", lambda: None)()) is None:
            raise ValueError(f"{path or 'the cell'} is a {kind} without a stabiliser; mLSTM and sLSTM have one.")
        return {"recurrence": plain}
    if edit.name == HEAD:
        wanted = {levers[name]: torch.tensor(value) for name, value in cell.SILENT.items()}
    else:
        name = ours(edit.name, levers)
        if name not in levers:
            raise ValueError(
                f"{edit.name!r} of {path or 'the cell'} cannot be forced; in a {kind} these can: {', '.join(levers)}."
            )
        wanted = {levers[name]: within(edit, levers[name])}
    targets = [(lever, lever.inverse(value.to("cpu", torch.float64))) for lever, value in wanted.items()]
    return {"project": projecting(path, cell, edit, targets)}


def within(edit: Edit, lever: Lever) -> Tensor:
    """The value of an edit, refused where the quantity cannot have it."""
    value = torch.as_tensor(edit.value, dtype=None if isinstance(edit.value, Tensor) else torch.float64)
    if value.ndim == 0 and bool(value.isnan()):
        raise ValueError(f"{edit.cell}.{edit.name} cannot be NaN; in an array, NaN leaves a place to the model.")
    outside = value[(value < lever.low) | (value > lever.high)]
    if outside.numel():
        found = f"{float(outside.flatten()[0]):g}"
        raise ValueError(f"{edit.cell}.{edit.name} cannot be {found}; it lies in {lever.low:g} ... {lever.high:g}.")
    return value


def projecting(path: str, cell: nn.Module, edit: Edit, targets: list[tuple[Lever, Tensor]]) -> Callable:
    """A cell's `project`, with other inputs for its kernel."""
    project, which = cell.project, (edit.heads, edit.units)
    arguments = signature(type(cell).project)

    def projected(*inputs: Tensor | tuple | None) -> tuple:
        lengths = arguments.bind(cell, *inputs).arguments["lengths"]
        found = project(*inputs)
        at, rest = (found, None) if hasattr(found, "_fields") else (found[0], found[1:])
        for lever, target in targets:
            try:
                at = pull(lever, at, target, which, cell.heads, lengths)
            except ValueError as error:
                raise ValueError(f"{path}: {edit.name} cannot be set so: {error}") from None
        return at if rest is None else (at, *rest)

    return projected


@contextmanager
def swapped(cell: nn.Module, **parts: object) -> Iterator[None]:
    """Give a cell other attributes for a while."""
    before = {name: cell.__dict__[name] for name in parts if name in cell.__dict__}
    cell.__dict__.update(parts)
    try:
        yield
    finally:
        for name in parts:
            del cell.__dict__[name]
        cell.__dict__.update(before)
