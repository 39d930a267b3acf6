"""`with record(model) as trace:` gates and states by name, without touching the forward pass."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import workbench
from workbench.kernels.checks import inside
from workbench.models.fresh import fingerprint, is_fresh
from workbench.runs.progress import progress
from workbench.trace.foreign import tracer
from workbench.trace.names import derive, dimensions
from workbench.trace.retold import Retold
from workbench.trace.store import Trace, as_json, matches

Tracer = Callable[..., tuple[Tensor, dict[str, Tensor]]]


@contextmanager
def record(
    model: nn.Module, *, names: Iterable[str] = ("*",), folder: str | Path | None = None, join: bool = False
) -> Iterator[Trace]:
    """Record what happens in every cell of a model while it runs.

    The model computes as always: its output does not change by a bit, and nothing is left behind afterwards.
    After each cell has run, the cell computes the same steps again by its reference, keeps every quantity by
    name, and compares the two outputs. A cell is a module with a method `trace` that takes what its `forward`
    takes and returns `(y, {name: tensor})`, or a layer of another package that workbench.trace.foreign knows.

    Args:
        model: any module with cells below it, in training or not.
        names: what to keep, as patterns: "*.forget", "blocks.0.*". What is not kept takes no memory.
        folder: write every run of a cell to this folder at once, for traces that do not fit in memory.
        join: put the steps of several runs behind each other in time, as when a stream goes on from its state;
            otherwise a cell that runs several times keeps its last run.

    Yields:
        The trace, filled as the model runs.

    Raises:
        ValueError: there is no cell in the model, or the folder holds a trace already.
    """
    cells = {path: found for path, module in model.named_modules() if (found := tracer_of(module)) is not None}
    if not cells:
        name = type(model).__name__
        raise ValueError(
            f"{name} holds no cell that can be traced; record a model built from workbench.cells, or one "
            f"of the packages xlstm, transformers (xLSTM) or titans-pytorch."
        )
    if folder is not None and (Path(folder) / "trace.json").exists():
        raise ValueError(f"{folder} holds a trace already; name another folder, or remove it.")
    trace = Trace(about=describe(model), folder=folder)
    handles = []
    for path, module in model.named_modules():
        if path in cells:
            listen = _listener(path, cells[path], trace, tuple(names), join)
            handles.append(module.register_forward_hook(listen, with_kwargs=True))
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()
        if folder is not None:
            trace.save()


def stream(
    model: nn.Module,
    pieces: Iterable[Tensor],
    folder: str | Path,
    *,
    names: Iterable[str] = ("*",),
    steps: int | None = None,
) -> Trace:
    """Trace a sequence of any length within the memory of one piece, its quantities on disk.

    Args:
        model: `model(x, state) -> (y, state)`, such as a stack or a cell.
        pieces: the sequence, cut in time (B, T, E) each; a generator need not hold it.
        folder: where the trace goes.
        names: what to keep, see `record`.
        steps: length of the whole, for the time left in the progress bar.
    """
    state = None
    with (
        torch.no_grad(),
        record(model, names=names, folder=folder, join=True) as trace,
        progress(steps or 0, "Trace") as bar,
    ):
        for piece in pieces:
            _, state = model(piece, state)
            bar.update(piece.shape[1])
    return trace


def tracer_of(module: nn.Module) -> Tracer | None:
    """What computes a module's quantities: its own `trace`, or ours for a layer of another package."""
    own = getattr(module, "trace", None)
    return own if callable(own) else tracer(module)


def describe(model: nn.Module) -> dict:
    """What a trace says of its model: class, configuration, weights, versions, and whether it learned anything."""
    config = getattr(model, "config", None)
    config = as_json(config.model_dump(mode="json")) if hasattr(config, "model_dump") else None
    spoilt = [name for name, x in model.named_parameters() if not x.is_meta and not bool(torch.isfinite(x).all())]
    notes = ["untrained: the model has its fresh weights"] if is_fresh(model) else []
    if spoilt:
        notes = [f"diverged: {len(spoilt)} of its parameters hold values that are not finite, {spoilt[0]} first"]
    return {
        "model": type(model).__name__,
        "config": config,
        "weights": [x if math.isfinite(x) else None for x in fingerprint(model)],
        "versions": {"workbench": workbench.__version__, "torch": torch.__version__},
        "notes": notes,
    }


def _listener(path: str, trace_again: Tracer, trace: Trace, names: tuple[str, ...], join: bool):
    @torch.no_grad()
    def listen(cell: nn.Module, inputs: tuple, options: dict, output: tuple | Tensor) -> None:
        given = inspect.signature(cell.forward).bind(*inputs, **options).arguments
        y, quantities = trace_again(*inputs, **options)
        real = output[0] if isinstance(output, tuple) else output
        found = float((y - real).abs().max()) if y.numel() else 0.0
        before = trace.exactness.get(path, 0.0) if join else 0.0
        trace.exactness[path] = found if math.isnan(found) else max(before, found)
        if isinstance(trace_again, Retold):
            carried = trace_again.carried(*inputs, **options)
        else:
            carried = given.get("state") is not None or bool(getattr(cell, "persistent", None))
        first = not (join and path in trace.cells)
        carried = carried if first else trace.cells[path]["carried"]
        trace.cells[path] = {**kind_of_cell(cell, trace_again), "carried": carried}
        prefix, kept = f"{path}." if path else "", {}
        for name, tensor in derive(quantities).items():
            if matches(prefix + name, names):
                lost = int(torch.isnan(tensor).sum())
                if lost:
                    trace.about["missing"][prefix + name] = trace.about["missing"].get(prefix + name, 0) + lost
                kept[prefix + name] = on_cpu(blank(prefix + name, tensor.detach(), given.get("lengths")))
        trace.add(kept, join=join)

    return listen


def kind_of_cell(cell: nn.Module, trace_again: Tracer) -> dict:
    """What a cell is: its class, or ours for a foreign layer, and the settings that its equations depend on."""
    settings = {name: getattr(cell, name, None) for name in ("heads", "gates", "forget", "memory", "refresh")}
    plain = {name: value for name, value in settings.items() if isinstance(value, (int, str))}
    plain |= getattr(trace_again, "settings", {})
    kind = getattr(trace_again, "kind", type(cell).__name__)
    return {"kind": kind, "class": f"{type(cell).__module__}.{type(cell).__qualname__}", **plain}


def on_cpu(x: Tensor) -> Tensor:
    """A copy on the CPU, in a type that numpy has."""
    return x.to("cpu", torch.float32 if x.dtype == torch.bfloat16 else x.dtype, copy=True)


def blank(name: str, x: Tensor, lengths: Tensor | None) -> Tensor:
    """NaN behind the end of each sequence: nothing happened there."""
    dims = dimensions(name, x.ndim)
    if lengths is None or "time" not in dims:
        return x
    at = dims.index("time")
    here = inside(lengths, x.shape[at])
    return torch.where(here.reshape(len(x), *[1] * (at - 1), x.shape[at], *[1] * (x.ndim - at - 1)), x, torch.nan)
