"""Runs an experiment in a process of its own that outlives the notebook, and leaves a run folder that tells the truth.

`python -m workbench.batch.background FOLDER` is that process; `background` starts it.
"""

import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from workbench.batch.outcome import Outcome, from_cell_error
from workbench.runs.current import attach
from workbench.runs.files import now
from workbench.runs.folder import Run
from workbench.runs.params import Params
from workbench.runs.provenance import process_start, this_process
from workbench.runs.status import Failure, Status

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
    if not callable(getattr(experiment, "run", None)) or not hasattr(experiment, "Params"):
        raise TypeError(f"{experiment.__name__} is no experiment: it needs Params and run(params, run).")
    params = experiment.Params() if params is None else params
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
    run, started = attach(folder), time.monotonic()
    status = Status(state="running", started=now(), **this_process()).write(run.path)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcome = _outcome(run)
    seconds = round(time.monotonic() - started, 3)
    status.model_copy(update={"state": outcome.state, "error": outcome.error, "seconds": seconds}).write(run.path)
    return 0 if outcome.state == "ok" else 1


def _outcome(run: Run) -> Outcome:
    """How the experiment ended; its result, where it has one, is put out."""
    try:
        experiment = import_module(run.record["experiment"])
        result = experiment.run(experiment.Params.model_validate(run.params), run)
        for field, value in asdict(result).items() if is_dataclass(result) else ():
            run.out(field, value)
    except KeyboardInterrupt:
        traceback.print_exc()
        hint = "What it had saved is in its checkpoints."
        return Outcome("interrupted", Failure(name="KeyboardInterrupt", value="it was told to end", hint=hint))
    except Exception as error:  # whatever an experiment raises is how it ended
        traceback.print_exc()
        return from_cell_error(type(error).__name__, str(error), traceback.format_exc().splitlines(), 0)
    return Outcome("ok")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
