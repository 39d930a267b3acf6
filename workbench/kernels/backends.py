"""The table of forms of one recurrence: choose one, or refuse with the reason.

A form is a function that computes the recurrence in its own way: step by step, all steps at once,
chunk by chunk. Every form gives the same values, states and gradients (tests/contract.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """A form by name, with its settings."""

    name: str
    chunk_size: int | None = None


@dataclass(frozen=True)
class Backend:
    """One row of the table: where the form lives, and when it cannot run."""

    path: str  # "package.module:function", imported when it is used
    refuse: Callable[..., str | None] = lambda *inputs, **options: None  # the reason, or None
    auto: bool = True  # whether "auto" may take it

    def load(self) -> Callable:
        """Import the form."""
        module, function = self.path.split(":")
        return getattr(import_module(module), function)


class Backends:
    """The forms of one recurrence, fastest first."""

    def __init__(self, recurrence: str, /, **rows: Backend) -> None:
        self.recurrence = recurrence
        self.rows = rows

    def choose(self, backend: str | Choice, *inputs: Tensor, **options: object) -> Callable:
        """Return the form to call.

        Args:
            backend: "auto", the name of a row, or a `Choice`.
            inputs: the tensors that the form is to take; a row may refuse them.
            options: what else the form must handle, such as `lengths`.

        Raises:
            ValueError: the name is not in the table.
            RuntimeError: the form cannot take these inputs.
        """
        choice = backend if isinstance(backend, Choice) else Choice(backend)
        if choice.name == "auto":
            name = next(n for n, row in self.rows.items() if row.auto and row.refuse(*inputs, **options) is None)
        elif choice.name in self.rows:
            name = choice.name
            if reason := self.rows[name].refuse(*inputs, **options):
                raise RuntimeError(
                    f"{self.recurrence} backend {name!r} {reason}.\n"
                    f"Choose one of {', '.join(self.running(*inputs, **options))}."
                )
        else:
            raise ValueError(
                f"{self.recurrence} has no backend {choice.name!r}; choose one of auto, {', '.join(self.rows)}."
            )
        form = self.rows[name].load()
        if choice.chunk_size is None:
            return form
        if choice.chunk_size < 1:
            raise ValueError(f"chunk_size={choice.chunk_size} holds no step; take 1 or more.")
        if name != "chunkwise":
            raise ValueError(f"chunk_size={choice.chunk_size} belongs to the chunkwise form, not to {name!r}.")
        return lambda *args: form(*args, chunk_size=choice.chunk_size)

    def running(self, *inputs: Tensor, **options: object) -> list[str]:
        """Names of the forms that can take these inputs, fastest first."""
        return [name for name, row in self.rows.items() if row.refuse(*inputs, **options) is None]
