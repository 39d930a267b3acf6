"""One job of a batch, run in its folder: earlier attempts are moved aside, and their checkpoints are gone on from."""

import os
import platform
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

from workbench.batch.jobs import DONE, Job, arguments, read_jobs
from workbench.batch.lock import stop_with_the_batch
from workbench.batch.machine import lent_gpus
from workbench.batch.memory import size
from workbench.runs.files import write_json
from workbench.runs.folder import Run

_PATIENCE = 40.0  # seconds for an attempt that is being stopped


def run_job(folder: str | Path, name: str, *, slurm_job: str | None = None, visible_gpus: str | None = None) -> Run:
    """Run a job of a batch to its end, and return its run; `done.json` is written when it ended ok.

    Args:
        folder: of the batch.
        name: of the job.
        slurm_job: its number in Slurm's queue, for `run.json`.
        visible_gpus: CUDA_VISIBLE_DEVICES as it is; a queue gives GPUs itself, and here they are lent.

    Raises:
        ValueError: no such job, it is running elsewhere, or it asks for more than there is.
    """
    folder = Path(folder)
    job = next((job for job in read_jobs(folder) if job.name == name), None)
    if job is None:
        raise ValueError(f"{folder} has no job {name!r}.")
    wanted = job.resources["gpus"] if stop_with_the_batch(folder) else 0
    with lent_gpus(wanted, visible_gpus) if wanted else nullcontext() as gpus:
        if gpus is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus
        run = settle(folder, job) or _run(job, folder)
    if slurm_job:
        run.amend(slurm_job=slurm_job)
    _note_done(job, run)
    return run


def settle(folder: Path, job: Job) -> Run | None:
    """Make room for a run of a job: its run folder is moved to `attempts/`; or its run, if that had ended ok.

    Raises:
        ValueError: it is still running.
    """
    place, attempts = folder / "runs" / job.name, folder / "attempts"
    if not (place / "run.json").is_file():
        shutil.rmtree(place, ignore_errors=True)  # Snakemake makes it before the run does
        return None
    run = Run.open(place)
    _await_end(run)
    if run.status().state == "ok":  # and killed before it could say so
        _note_done(job, run)
        return run
    if run.status().state == "skipped":
        shutil.rmtree(place)
        return None
    attempts.mkdir(exist_ok=True)
    number = 1 + max(map(_number, attempts.glob(f"{job.name}.*")), default=0)
    place.rename(attempts / f"{job.name}.{number}")
    return None


def _note_done(job: Job, run: Run) -> None:
    if (status := run.status()).state == "ok" and not (run.path / DONE).exists():
        facts = {"group": job.group, "varied": job.varied, "key": job.key, "seconds": status.seconds}
        write_json(run.path / DONE, {**facts, "target": job.target, "ingredients": job.ingredients})


def _await_end(run: Run) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (status := run.status()).state == "running":
        if status.host != platform.node():  # nobody else is at this batch, and no queue holds its jobs: they are gone
            return
        if time.monotonic() > deadline:
            raise ValueError(f"{run.name} is running (process {status.pid} on {status.host}); stop it first.")
        time.sleep(0.2)


def _number(attempt: Path) -> int:
    return int(attempt.name.rpartition(".")[2])


def _run(job: Job, folder: Path) -> Run:
    attempts = sorted((folder / "attempts").glob(f"{job.name}.*"), key=_number, reverse=True)
    old = next((Run.open(path) for path in attempts if any(path.glob("checkpoints/*"))), None)
    limit = None if job.resources["memory"] is None else size(job.resources["memory"])
    how = _run_notebook if job.target.endswith(".ipynb") else _run_experiment
    return how(job, folder, old, limit)


def _run_notebook(job: Job, folder: Path, old: Run | None, limit: int | None) -> Run:
    from workbench.batch.execute import execute

    return execute(
        job.target,
        arguments(job, folder),
        name=job.group,
        folder=folder / "runs" / job.name,
        resume_from=old,
        memory_limit=limit,
    )


def _run_experiment(job: Job, folder: Path, old: Run | None, limit: int | None) -> Run:
    from workbench.batch.kernel import hold_memory
    from workbench.experiments.catalogue import find
    from workbench.experiments.running import run_experiment
    from workbench.runs.params import build

    experiment = find(job.target)
    params = build(experiment.Params, arguments(job, folder))
    run = Run.create(job.group, params=params, folder=folder / "runs" / job.name)
    if old is not None:
        shutil.copytree(old.checkpoints, run.checkpoints, dirs_exist_ok=True)
        run.amend(resumed_from=old.name)
    hold_memory(limit)
    run_experiment(experiment, params, run)
    return run
