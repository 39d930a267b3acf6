"""The parameters of an experiment: one frozen model for notebook, command line, search and result."""

import difflib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.runs.current import note_params
from workbench.runs.literals import assigned, is_plain


class Params(BaseModel):
    """Base of every experiment's parameters: frozen, and closed to unknown names.

    The defaults take minutes on two cores; `smoke()` takes seconds; `paper()` is what was published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def smoke(cls) -> Self:
        """Parameters that run in seconds."""
        return cls()

    @classmethod
    def paper(cls) -> Self:
        """Parameters of the published result."""
        return cls()

    def _repr_html_(self) -> str:
        import html

        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(repr(value))}</td></tr>"
            for name, value in self
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


@dataclass(frozen=True)
class Search:
    """Where a search may look: `lr: Annotated[float, Search(1e-4, 1e-2, log=True)] = 1e-3`.

    Either a range `low … high` (a whole number of `step`s from `low`, or even in the logarithm), or `choices`. With
    `when`, only where other parameters have these values: `when={"networks": "xLSTM"}`; a list has to hold the value.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple | None = None
    when: Mapping[str, object] | None = None

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        log: bool = False,
        step: float | None = None,
        choices: Iterable | None = None,
        when: Mapping[str, object] | None = None,
    ):
        if (choices is None) == (low is None or high is None):
            raise ValueError(f"Search(low={low}, high={high}, choices={choices}) needs either low and high or choices.")
        if choices is None and low > high:
            raise ValueError(f"Search(low={low}, high={high}) is empty; give the lower end first.")
        if log and (step is not None or choices is not None or low <= 0):
            raise ValueError("Search(log=True) needs a range above 0, without step or choices.")
        choices = None if choices is None else tuple(choices)
        values = {"low": low, "high": high, "log": log, "step": step, "choices": choices, "when": when}
        for name, value in values.items():
            object.__setattr__(self, name, value)


P = TypeVar("P", bound=Params)
INJECTED = "# Parameters"  # how papermill begins the cell that it injects


def params(namespace: Mapping[str, object], cls: type[P]) -> P:
    """The parameters of a notebook, checked: `params = wb.params(globals(), ThatExperiment.Params)`.

    Each name that the parameters cell (or an injected one) assigns must be a field of `cls`: a mistyped
    parameter fails here and not silently. Values come from `namespace`; the rest are defaults.
    """
    refuse_unknown(_names_to_check(namespace, set(cls.model_fields)), cls.model_fields)
    checked = build(cls, {name: namespace[name] for name in cls.model_fields if name in namespace})
    note_params(checked)
    return checked


def build(cls: type[P], values: Mapping[str, object]) -> P:
    """An instance of `cls`; one ValueError names each field, the value received and the rule it broke."""
    refuse_unknown(values, cls.model_fields)
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(f"{cls.__name__}: " + "; ".join(map(_sentence, error.errors())) + ".") from None


def refuse_unknown(names: Iterable[str], known: Iterable[str], what: str = "parameter") -> None:
    """Raise a ValueError for a name that is not known, with the closest one and the list of all."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"Unknown {what} {name!r}{closest(name, known)} Known: {', '.join(known) or 'none'}.")


def closest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: `; did you mean 'epochs'?`, or a full stop."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def _sentence(error: Mapping) -> str:
    field = ".".join(str(part) for part in error["loc"])
    rule = error["msg"].removeprefix("Input ").removeprefix("Value error, ").rstrip(".")
    if error["type"] == "missing":
        return f"{field}: is required"
    return f"{field}={error['input']!r}: {rule}" if field else rule


def _names_to_check(namespace: Mapping[str, object], known: set[str]) -> list[str]:
    """Names that the parameters cell assigns: the last cell of plain values with a known name among them."""
    history = _history()
    if history is None:
        return [name for name, value in namespace.items() if not name.startswith("_") and is_plain(value)]
    names: list[str] = []
    cells = [(source, [name for name in assigned(source) or [] if not name.startswith("_")]) for source in history]
    for source, found in reversed(cells):
        injected = source.lstrip().startswith(INJECTED)
        if injected or known & set(found):
            names += found
        if known & set(found) and not injected:
            return names  # the parameters cell; behind it there is only what papermill injected
    return names or next((found for _, found in cells if found), [])  # all of its names are mistyped


def _history() -> list[str] | None:
    """Sources of the cells run so far, the current one last; None outside of IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return None if shell is None else list(shell.history_manager.input_hist_parsed)


def differences(saved: dict, wanted: dict, path: str = "") -> list[str]:
    """Where two configurations differ, as sentences."""
    odd = []
    for key in sorted(saved.keys() | wanted.keys()):
        a, b = saved.get(key, "absent"), wanted.get(key, "absent")
        if isinstance(a, dict) and isinstance(b, dict):
            odd += differences(a, b, f"{path}{key}.")
        elif a != b:
            odd.append(f"{path}{key} is {a} there and {b} here")
    return odd
