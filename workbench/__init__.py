"""The research workbench for modern recurrent sequence models.

The names below are the ones a notebook needs; each is loaded when it is first used, so that
`import workbench` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "Params": "workbench.runs.params",
    "Run": "workbench.runs.folder",
    "Search": "workbench.runs.params",
    "current_run": "workbench.runs.current",
    "expect_error": "workbench.runs.current",
    "fit": "workbench.training.fit",
    "out": "workbench.runs.current",
    "params": "workbench.runs.params",
    "progress": "workbench.runs.progress",
    "record": "workbench.trace.record",
    "show": "workbench.runs.current",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"workbench has no {name!r}; it offers {', '.join(sorted(_HOME))}.")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
