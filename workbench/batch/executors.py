"""What each of Snakemake's executors needs to work well, and what a queue still holds of an earlier batch."""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

LOGS = "logs"  # of Slurm's jobs, in the batch folder
_NO_GUESSES = ("mem_mb=0", "disk_mb=0", "runtime=0")  # Snakemake would ask for memory by the size of the inputs
_DEFAULTS = "--default-resources"
_LATENCY_SECONDS = 60  # a network file system may show a file that late
_FIRST_LOOK_SECONDS = 10
_PATIENCE = 120.0  # seconds that a queue may take to end its jobs


def flags(executor: str, slots: int, folder: Path) -> list[str]:
    """Snakemake's flags for an executor; one that is not known here gets what any queue needs.

    Args:
        executor: "local", "slurm" or another that is installed.
        slots: cores of this machine, or jobs in a queue at once.
        folder: of the batch.

    Raises:
        ValueError: it cannot run a batch.
    """
    if executor == "kubernetes":
        raise ValueError(
            "Snakemake shares no files with pods of Kubernetes, and a batch lives in one folder; write manifests "
            "with `workbench kubernetes batch PLAN --to DIR --image IMAGE`."
        )
    chosen = ["--executor", executor]
    if executor == "local":
        return [*chosen, "--cores", str(slots)]
    chosen += ["--jobs", str(slots), "--latency-wait", str(_LATENCY_SECONDS)]
    chosen += [_DEFAULTS, *_NO_GUESSES]
    if executor == "slurm":
        # The plugin takes sacct wherever the program is; without accounting, it knows of no job.
        status = "sacct" if _says("sacct", "--noheader", "--allocations", "--name", "none") is not None else "squeue"
        chosen += ["--slurm-status-command", status, "--slurm-jobname-prefix", job_prefix(folder)]
        chosen += ["--slurm-init-seconds-before-status-checks", str(_FIRST_LOOK_SECONDS)]
        chosen += ["--slurm-logdir", str(folder.resolve() / LOGS), "--slurm-keep-successful-logs"]
    return chosen


def complete(given: Iterable[str]) -> list[str]:
    """A person's flags; default resources of theirs stand beside ours, and win."""
    given = list(given)
    if _DEFAULTS in given:
        after = given.index(_DEFAULTS) + 1
        given[after:after] = _NO_GUESSES
    return given


def job_prefix(folder: Path) -> str:
    """The beginning of the names that a queue gives to the jobs of a batch folder, and to no others."""
    return f"wb-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def cancel_leftovers(folder: Path) -> list[str]:
    """Cancel what the queue still holds of a batch that is gone, see it end, and return the numbers of those jobs.

    Nobody would learn how they end; their runs go on from their checkpoints.

    Raises:
        ValueError: the queue cannot be asked, or does not end them.
    """
    if not (folder / LOGS).is_dir() or shutil.which("squeue") is None:  # it was never in a queue, or was copied here
        return []
    found = left = _in_queue(folder)
    if left:
        _says("scancel", *left)
    deadline = time.monotonic() + _PATIENCE
    while left:
        if time.monotonic() > deadline:
            raise ValueError(
                f"Slurm still holds the jobs {', '.join(left)} of an earlier batch; see squeue and scancel."
            )
        time.sleep(0.5)
        left = _in_queue(folder)
    return found


def _in_queue(folder: Path) -> list[str]:
    listed = _says("squeue", "--me", "--noheader", "--states=pending,running,suspended,completing", "--format=%i %j")
    if listed is None:
        raise ValueError("squeue gives no answer; is this a machine of a Slurm cluster, and is its controller up?")
    lines = [line.split() for line in listed.splitlines()]
    return [number for number, name, *_ in lines if name.startswith(job_prefix(folder))]


def _says(program: str, *arguments: str) -> str | None:
    """What a program says; None when it fails or is missing."""
    if shutil.which(program) is None:
        return None
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else None
