"""Runs an experiment in this process, and leaves a run folder that tells the truth about it."""

import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import ModuleType

from workbench.runs.current import attach
from workbench.runs.files import now
from workbench.runs.folder import Run
from workbench.runs.outcome import Outcome, from_cell_error
from workbench.runs.params import Params
from workbench.runs.provenance import this_process
from workbench.runs.status import Failure, Status
from workbench.training.distributed import Layout, joined

PROFILES = ("smoke", "default", "paper")


def profile(experiment: ModuleType, name: str) -> Params:
    """The parameters of an experiment at one of its three sizes: smoke, default, paper."""
    cls = experiment.Params
    return {"smoke": cls.smoke, "default": cls, "paper": cls.paper}[name]()


def run_experiment(experiment: ModuleType, params: Params, run: Run) -> Status:
    """Run `experiment.run(params, run)` here, put its result out, and return the status that was written.

    What the experiment raises is how the run ended, and is not raised again; SIGTERM ends it like Ctrl-C. Killed, it
    reads as killed.
    """
    run.amend(experiment=experiment.__name__)
    started = time.monotonic()
    status = Status(state="running", started=now(), **this_process()).write(run.path)
    attach(run.path)
    with _terminable():
        outcome = _outcome(experiment, params, run)
    seconds = round(time.monotonic() - started, 3)
    return status.model_copy(update={"state": outcome.state, "error": outcome.error, "seconds": seconds}).write(
        run.path
    )


def run_together(experiment: ModuleType, params: Params, layout: Layout, *, name: str, root: str | Path) -> Run | None:
    """Run an experiment on all processes that torchrun has started; return the run, in the first of them.

    Every process runs the whole experiment, and `fit` shares the training. The first one keeps the run folder; the
    others write into folders that are thrown away.

    Raises:
        ValueError: not started by torchrun.
        SystemExit: the experiment failed in this process, which makes torchrun stop the others.
    """
    with joined(layout) as team:
        if team.first:
            run = Run.create(name, root=root, params=params)
            run.amend(processes=team.size, parallel=layout)
            print(f"{name} → {run.path}, {layout} on {team.size} processes", flush=True)
            run_experiment(experiment, params, run)
            return run
        with tempfile.TemporaryDirectory(prefix="wb-rank-") as folder:
            status = run_experiment(experiment, params, Run.create(name, root=folder, params=params))
        if status.state != "ok":
            raise SystemExit(1)
    return None


@contextmanager
def _terminable() -> Iterator[None]:
    try:
        old = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread: signals go elsewhere
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _outcome(experiment: ModuleType, params: Params, run: Run) -> Outcome:
    """How the experiment ended; its result, where it has one, is put out."""
    try:
        result = experiment.run(params, run)
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
