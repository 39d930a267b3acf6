"""One job of a batch, run in its folder: earlier attempts are moved aside, and their checkpoints are gone on from."""

import shutil
import time
from pathlib import Path

from workbench.batch.jobs import DONE, Job, arguments, read_jobs
from workbench.batch.lock import stop_with_the_batch
from workbench.batch.memory import size
from workbench.runs.files import write_json
from workbench.runs.folder import Run

_PATIENCE = 40.0  # seconds for an attempt that is being stopped


def run_job(folder: str | Path, name: str) -> Run:
    """Run a job of a batch to its end, and return its run; `done.json` is written when it ended ok.

    Raises:
        ValueError: no such job, or it is running elsewhere.
    """
    folder = Path(folder)
    job = next((job for job in read_jobs(folder) if job.name == name), None)
    if job is None:
        raise ValueError(f"{folder} has no job {name!r}.")
    stop_with_the_batch(folder)
    place, old = folder / "runs" / name, set_aside(folder, name)
    run = (
        _run_notebook(job, folder, place, old)
        if job.target.endswith(".ipynb")
        else _run_experiment(job, folder, place, old)
    )
    if (status := run.status()).state == "ok":
        facts = {"group": job.group, "varied": job.varied, "key": job.key, "seconds": status.seconds}
        write_json(place / DONE, {**facts, "ingredients": job.ingredients})
    return run


def set_aside(folder: Path, name: str) -> Run | None:
    """Move the run folder of a job to `attempts/`, and return its newest attempt that can be gone on from.

    Raises:
        ValueError: it is still running.
    """
    place, attempts = folder / "runs" / name, folder / "attempts"
    if place.exists() and not any(place.iterdir()):  # Snakemake makes it before the run does
        place.rmdir()
    elif place.exists():
        _await_end(place)
        attempts.mkdir(exist_ok=True)
        number = 1 + max((int(path.name.rpartition(".")[2]) for path in attempts.glob(f"{name}.*")), default=0)
        place.rename(attempts / f"{name}.{number}")
    found = sorted(attempts.glob(f"{name}.*"), key=lambda path: -int(path.name.rpartition(".")[2]))
    usable = (path for path in found if (path / "run.json").is_file() and any(path.glob("checkpoints/*")))
    return next((Run.open(path) for path in usable), None)


def _await_end(place: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (place / "run.json").is_file() and (status := Run.open(place).status()).state == "running":
        if time.monotonic() > deadline:
            raise ValueError(f"{place.name} is running (process {status.pid} on {status.host}); stop it first.")
        time.sleep(0.2)


def _run_notebook(job: Job, folder: Path, place: Path, old: Run | None) -> Run:
    from workbench.batch.execute import execute

    limit = None if job.resources["memory"] is None else size(job.resources["memory"])
    return execute(
        job.target, arguments(job, folder), name=job.group, folder=place, resume_from=old, memory_limit=limit
    )


def _run_experiment(job: Job, folder: Path, place: Path, old: Run | None) -> Run:
    from workbench.experiments.catalogue import find
    from workbench.experiments.running import run_experiment
    from workbench.runs.params import build

    experiment = find(job.target)
    params = build(experiment.Params, arguments(job, folder))
    run = Run.create(job.group, params=params, folder=place)
    if old is not None:
        shutil.copytree(old.checkpoints, run.checkpoints, dirs_exist_ok=True)
        run.amend(resumed_from=old.name)
    run_experiment(experiment, params, run)
    return run
