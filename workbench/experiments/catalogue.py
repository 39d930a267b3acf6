"""Experiments by name: every file of this folder with Params and run(params, run)."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from workbench.runs.params import refuse_unknown


def names() -> list[str]:
    """The experiments of this package, in the order of the alphabet; nothing is imported."""
    folder = Path(__file__).parent
    return sorted(path.stem for path in folder.glob("*.py") if "\ndef run(params: Params" in path.read_text())


def find(name: str) -> ModuleType:
    """The experiment of a name: one of `names()`, or the dotted name of a module of one's own.

    Raises:
        ValueError: there is none, with the nearest; or the module has no Params or no run(params, run).
    """
    if "." not in name:
        refuse_unknown([name], names(), "experiment")
        name = f"{__package__}.{name}"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"No experiment {name!r}: {error}. Of this package: {', '.join(names())}.") from None
    return checked(module)


def checked(module: ModuleType) -> ModuleType:
    """The module, if it is an experiment.

    Raises:
        TypeError: it has no Params, or no run(params, run).
    """
    if not callable(getattr(module, "run", None)) or not hasattr(module, "Params"):
        raise TypeError(f"{module.__name__} is no experiment: it needs Params and run(params, run).")
    return module
