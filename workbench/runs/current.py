"""The run of this process: the one that `out` and `show` write to."""

import atexit
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.runs.files import now, plain
from workbench.runs.folder import Run
from workbench.runs.provenance import this_process
from workbench.runs.status import Failure, Status

_PLOTLY = "application/vnd.plotly.v1+json"
_ENDS = {"KeyboardInterrupt": "interrupted", "Diverged": "diverged", "MemoryError": "oom"}  # what errors end a run as
_DISPLAY = {"showSendToCloud": False, "displaylogo": False, "responsive": True}


class _Process:
    """What this process knows: its run, whether another process watches over it, its parameters."""

    run: Run | None = None
    headless: bool = False
    params: object = None
    failure: Failure | None = None  # of the last cell, in a notebook that nobody watches


_process = _Process()


def attach(path: str | Path) -> Run:
    """Make the run in `path` this process's run; another process watches over it and writes its status."""
    detach()
    _process.run = Run.open(path)
    _process.headless = True
    if _process.params is not None:
        note_params(_process.params)
    return _process.run


def detach() -> None:
    """Leave the run of this process; one that was begun here ends as its last cell did."""
    run, headless, failure = _process.run, _process.headless, _process.failure
    _process.run, _process.headless, _process.failure = None, False, None
    if run is not None and not headless and run.path.exists():
        state = "ok" if failure is None else _ENDS.get(failure.name, "failed")
        run.status().model_copy(update={"state": state, "error": failure}).write(run.path)


def note_end_of_cell(result: object) -> None:
    """Remember how a cell of a live notebook ended."""
    error = result.error_before_exec or result.error_in_exec
    _process.failure = None if error is None else Failure(name=type(error).__name__, value=str(error))


def is_headless() -> bool:
    """Whether a process outside watches over this one's run."""
    return _process.headless


def current_run() -> Run:
    """The run of this process; outside of a headless run, one is begun when first asked for.

    It is named after the notebook where Jupyter tells its name, and lies in `runs/` of the nearest folder
    upwards that holds a project.
    """
    if _process.run is None:
        session = os.environ.get("JPY_SESSION_NAME", "")
        run = Run.create(Path(session).stem or "notebook", root=_project() / "runs", params=_process.params)
        Status(state="running", started=now(), **this_process()).write(run.path)
        _process.run = run
        atexit.register(detach)
        if shell := _shell():
            shell.events.register("post_run_cell", note_end_of_cell)
    return _process.run


def note_params(params: object) -> None:
    """Keep the parameters of this process's run, now or when it begins.

    In a live notebook other parameters end the run that was going on: the next result begins another.
    """
    values, run = plain(params), _process.run
    if run is not None and not _process.headless and run.params not in ({}, values):
        detach()
    _process.params = params
    if _process.run is not None:
        _process.run.amend(params=values, seed=values.get("seed"))


def out(name: str, value: object) -> None:
    """Keep a number (or text, list, dict) worth keeping in the run's `outputs.json`; NaN becomes null."""
    current_run().out(name, value)


def show(fig: object, *, name: str, caption: str = "") -> None:
    """Save a plotly figure as a bundle of the run, then display it; it offers no upload to a cloud."""
    current_run().figure(fig, name, caption)
    if _shell() is None:
        return
    from IPython.display import display

    drawing = json.loads(fig.to_json())
    meta = fig.layout.meta if isinstance(fig.layout.meta, dict) else {}
    text = meta.get("alt") or caption or f"Figure {name}"
    display({_PLOTLY: {**drawing, "config": _DISPLAY}, "text/plain": text}, raw=True)


@contextmanager
def expect_error(*kinds: type[BaseException]) -> Iterator[None]:
    """Print the error that the block is meant to raise, as a lesson; fail if it raises none.

    >>> with expect_error(ZeroDivisionError):
    ...     1 / 0
    ZeroDivisionError: division by zero
    """
    wanted = " or ".join(kind.__name__ for kind in kinds)
    try:
        yield
    except kinds as error:
        print(f"{type(error).__name__}: {error}")
    else:
        raise RuntimeError(f"The block was expected to raise {wanted}, and raised nothing.")


def _shell() -> object | None:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _project() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").exists() or (folder / ".git").exists():
            return folder
    return here
