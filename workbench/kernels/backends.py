"""The table of forms of one recurrence: choose one, or refuse with the reason.

A form is a function that computes the recurrence in its own way: step by step, all steps at once,
chunk by chunk. Every form gives the same values, states and gradients (tests/contract.py).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from workbench.kernels.recompute import in_segments

EXACT = "inputs, first and carried state"


@dataclass(frozen=True)
class Choice:
    """A form by name, with its settings.

    Attributes:
        name: "auto", or a row of the kernel's table.
        chunk_size: steps in a chunk of the chunkwise form; None is that form's own choice.
        recompute: keep few states on the way and compute the chunks again in the backward pass, see
            `workbench.kernels.recompute`; chunkwise form only.
    """

    name: str = "auto"
    chunk_size: int | None = None
    recompute: bool = False


@dataclass(frozen=True)
class Backend:
    """One row of the table: where the form lives, when it cannot run, and what it promises."""

    path: str  # "package.module:function", imported when it is used
    refuse: Callable[..., str | None] = lambda *inputs, **options: None  # the reason, or None
    auto: bool = True  # whether "auto" may take it
    devices: str = "any"  # where it runs
    widest: str = "float64"  # the widest type it computes in
    needs: str = "torch"  # what must be installed
    limits: str = ""  # what it cannot take, in words
    gradients: str = EXACT  # towards what its gradients are exact


class Backends:
    """The forms of one recurrence, fastest first."""

    def __init__(self, recurrence: str, /, **rows: Backend) -> None:
        self.recurrence = recurrence
        self.rows = rows

    def choose(self, backend: str | Choice, *inputs: Tensor, **options: object) -> Callable:
        """Return the form to call.

        Args:
            backend: "auto", the name of a row, a `Choice`, or a kernel string of the official package.
            inputs: the tensors that the form is to take; a row may refuse them.
            options: what else the form must handle, such as `lengths`.

        Raises:
            ValueError: the name is not in the table, or a setting does not belong to the form.
            RuntimeError: the form cannot take these inputs.
        """
        choice = backend if isinstance(backend, Choice) else Choice(backend)
        name = self.name(choice.name, inputs, options)
        form, size = load(self.rows[name].path), choice.chunk_size
        if size is None and not choice.recompute:
            return form
        if name != "chunkwise":
            setting = f"chunk_size={size}" if size is not None else "recompute=True"
            raise ValueError(f"{setting} belongs to the chunkwise form, not to {name!r}.")
        if size is not None and size < 1:
            raise ValueError(f"chunk_size={size} holds no step; take 1 or more.")
        form = form if size is None else partial(form, chunk_size=size)
        return partial(in_segments, form, size or 64) if choice.recompute else form

    def name(self, asked: str, inputs: tuple, options: dict) -> str:
        """The row that a name stands for, refused where it cannot run."""
        if asked == "auto":
            return next(n for n, row in self.rows.items() if row.auto and row.refuse(*inputs, **options) is None)
        name = asked if asked in self.rows else self.ours(asked)
        if reason := self.rows[name].refuse(*inputs, **options):
            running = ", ".join(self.running(*inputs, **options))
            raise RuntimeError(f"{self.recurrence} backend {name!r} {reason}.\nChoose one of {running}.")
        return name

    def ours(self, official: str) -> str:
        """The row that stands for a kernel string of the official package, such as "chunkwise--native_autograd".

        The strings pick a form there, some of them with gradients that are not exact; all of ours are.
        """
        form, separator, _ = official.partition("--")
        form = {"native_sequence__native": "reference", "native_sequence__triton": "reference"}.get(official, form)
        sigmoid = self.recurrence == "mlstm_sigmoid"
        known = self.recurrence.startswith("mlstm") and (separator or form == "reference")
        if not known or form not in ("chunkwise", "parallel", "reference"):
            raise ValueError(
                f"{self.recurrence} has no backend {official!r}; choose one of auto, {', '.join(self.rows)}."
            )
        if ("siging" in official) != sigmoid and form != "reference":
            other = "mlstm" if sigmoid else "mlstm_sigmoid"
            raise ValueError(f"{official!r} names a kernel of another recurrence; call {other}, not {self.recurrence}.")
        name = form if form in self.rows else "chunkwise"
        if not torch.compiler.is_compiling():  # a graph cannot warn
            warnings.warn(f"{official!r} stands for our exact form {name!r} of {self.recurrence}.", stacklevel=5)
        return name

    def running(self, *inputs: Tensor, **options: object) -> list[str]:
        """Names of the forms that can take these inputs, fastest first."""
        return [name for name, row in self.rows.items() if row.refuse(*inputs, **options) is None]


class Forms:
    """The forms that were imported, each an attribute: torch.compile finds those that came while it was looking."""


FORMS = Forms()


def load(path: str) -> Callable:
    """The form at a path, imported on its first use."""
    return getattr(FORMS, imported(path))


@torch.compiler.assume_constant_result
def imported(path: str) -> str:
    """Import a form on its first use; its name in `FORMS`. torch.compile calls this and does not look inside."""
    name = path.replace(".", "_").replace(":", "_")
    if not hasattr(FORMS, name):
        module, function = path.split(":")
        setattr(FORMS, name, getattr(import_module(module), function))
    return name
