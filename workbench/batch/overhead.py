"""What a run of a batch costs beyond the notebook or the experiment itself, beside papermill alone."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from workbench.batch.batches import Batch
from workbench.experiments.result import Result
from workbench.runs.folder import Run
from workbench.runs.params import Params as BaseParams

_OWN_SECONDS = 0.5


class Params(BaseParams):
    """Parameters of an experiment that takes as long as it is told to."""

    pause: float = _OWN_SECONDS
    seed: int = 0


def run(params: Params, run: Run) -> Result:
    """Wait."""
    begin = time.monotonic()
    time.sleep(params.pause)
    run.out("own_seconds", time.monotonic() - begin)
    return Result(__name__, params.model_dump(), "1", {})


@dataclass(frozen=True)
class Row:
    """Runs of one kind.

    Attributes:
        kind: "notebook" or "experiment", run by a batch; "papermill" runs the same notebook by its command.
        runs: how many.
        jobs: at once.
        wall_seconds: from the command's start to its end.
        own_seconds: in the cells of the notebooks, or the experiments' own code, all together.
        overhead_seconds: of each run: the time of every slot less that of the cells, divided by the runs.
    """

    kind: str
    runs: int
    jobs: int
    wall_seconds: float
    own_seconds: float
    overhead_seconds: float


def measure(runs: int = 8, jobs: int = 1) -> Iterator[Row]:
    """Papermill alone, a batch of the same notebook, and a batch of experiments.

    Args:
        runs: of each kind.
        jobs: of a batch at once; papermill runs one after the other.
    """
    with tempfile.TemporaryDirectory(prefix="wb-batch-") as root:
        notebook = Path(root) / "waits.ipynb"
        first = new_code_cell(f"pause = {_OWN_SECONDS}\nseed = 0", metadata={"tags": ["parameters"]})
        cells = [first, new_code_cell("import time\ntime.sleep(pause)")]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=kernel), notebook)
        yield _papermill(notebook, runs)
        yield _batch("notebook", {"notebook": str(notebook)}, runs, jobs)
        yield _batch("experiment", {"experiment": __name__}, runs, jobs)


def _papermill(notebook: Path, runs: int) -> Row:
    begin, own = time.monotonic(), 0.0
    for number in range(runs):
        out = notebook.with_name(f"out-{number}.ipynb")
        line = [sys.executable, "-m", "papermill", str(notebook), str(out), "-p", "seed", str(number)]
        subprocess.run(line, check=True, capture_output=True)
        own += sum(cell.metadata.papermill.duration or 0.0 for cell in nbformat.read(out, as_version=4).cells)
    return _row("papermill", runs, 1, time.monotonic() - begin, own)


def _batch(kind: str, what: dict[str, str], runs: int, jobs: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="wb-batch-") as root:
        plan = Path(root) / "plan.yaml"
        plan.write_text(yaml.safe_dump({"seeds": list(range(runs)), "groups": {kind: what}}))
        line = [sys.executable, "-m", "workbench", "batch", str(plan), "--root", root, "--jobs", str(jobs)]
        begin = time.monotonic()
        subprocess.run(line, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        wall = time.monotonic() - begin
        own = sum(_own_seconds(row.run) for row in Batch(plan, root).rows())
    return _row(kind, runs, jobs, wall, own)


def _own_seconds(run: Run) -> float:
    cells = [event["seconds"] for event in run.events() if event["kind"] == "cell_end"]
    return sum(cells) if cells else run.outputs()["own_seconds"]


def _row(kind: str, runs: int, jobs: int, wall: float, own: float) -> Row:
    return Row(kind, runs, jobs, round(wall, 2), round(own, 2), round((wall * jobs - own) / runs, 2))
