"""Tiny notebooks for the engine's tests, and ways to run them in a process of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'epochs: int = 3\nname = "a"\nrate = float("nan")'


def notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    """Write a notebook with a heading, a parameters cell and the given cells under `## Part n`."""
    nb = new_notebook(cells=[new_markdown_cell("# Essay")])
    if parameters is not None:
        nb.cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for number, cell in enumerate(cells, start=1):
        nb.cells += [new_markdown_cell(f"## Part {number}\n\nWords."), new_code_cell(cell)]
    nbformat.write(nb, path)
    return path


def start(path: Path, root: Path, grace_seconds: float = 20.0, **options: object) -> subprocess.Popen:
    """Begin `execute` in another process."""
    code = (
        "from workbench.batch import session; from workbench.batch.execute import execute; "
        f"session.GRACE_SECONDS = {grace_seconds}; "
        f"run = execute({str(path)!r}, {options!r}, root={str(root)!r}); print(run.path)"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=path.parent, stdout=subprocess.DEVNULL)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> object:
    """Wait until `condition()` is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {seconds:g} s")


def is_gone(pid: int) -> bool:
    """Whether no such process runs any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"
