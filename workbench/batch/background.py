"""Runs an experiment in a process of its own that outlives the notebook, and leaves a run folder that tells the truth.

`python -m workbench.batch.background FOLDER` is that process; `background` starts it.
"""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

from workbench.experiments.catalogue import checked, find
from workbench.experiments.running import run_experiment
from workbench.runs.files import now
from workbench.runs.folder import Run
from workbench.runs.params import Params
from workbench.runs.provenance import process_start, this_process
from workbench.runs.status import Status

LOG = "output.log"  # what the process prints
_children: list[subprocess.Popen] = []  # held, so that each is known to be someone's until this process ends


def background(
    experiment: ModuleType, params: Params | None = None, *, name: str = "", root: str | Path = "runs"
) -> Run:
    """Start `experiment.run(params, run)` in another process, and return its run at once.

    It goes on when the notebook's kernel is restarted or shut down. Follow it with `Live(run)`, or with
    `run.status()`; what it prints is in `output.log`. Killed by whatever, its status is "killed".

    Args:
        experiment: a module with `Params` and `run(params, run)`, such as workbench.experiments.forecast.
        params: its parameters; None takes the defaults.
        name: of the run folder; empty takes the module's.
        root: folder of the run folders.

    Raises:
        TypeError: the module is no experiment, or the parameters are another one's.
    """
    params = checked(experiment).Params() if params is None else params
    if not isinstance(params, experiment.Params):
        raise TypeError(f"params is a {type(params).__qualname__}; give a {experiment.__name__}.Params.")
    run = Run.create(name or experiment.__name__.rpartition(".")[2], root=root, params=params)
    run.amend(experiment=experiment.__name__)
    command = [sys.executable, "-m", "workbench.batch.background", str(run.path)]
    with open(run.path / LOG, "wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    _children.append(child)
    identity = {**this_process(), "pid": child.pid, "process_start": process_start(child.pid)}
    Status(state="running", started=now(), **identity).write(run.path)
    child.stdin.close()  # it waits for this: from here on the status is its own
    return run


def main(folder: str) -> int:
    """Run the experiment of a run folder in this process; return the exit code."""
    sys.stdin.read()
    run = Run.open(folder)
    experiment = find(run.record["experiment"])
    status = run_experiment(experiment, experiment.Params.model_validate(run.params), run)
    return 0 if status.state == "ok" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
