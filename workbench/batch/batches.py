"""A batch: a plan in its folder, run by Snakemake, followed while it runs, and gone on with after any end."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.batch.attempt import set_aside
from workbench.batch.jobs import Job, jobs_of, write_jobs
from workbench.batch.lock import locked
from workbench.batch.page import write_page
from workbench.batch.plan import Plan, read_plan
from workbench.batch.snakefile import SNAKEFILE, command, snakefile
from workbench.batch.standing import GOOD, Row, is_done, reasons, rows, seconds_each, seconds_left
from workbench.runs.files import write_bytes
from workbench.runs.folder import Run
from workbench.runs.status import Failure, Status

PLAN, LOG = "plan.yaml", "snakemake.log"
_EVERY_SECONDS, _PAGE_EVERY_SECONDS = 0.3, 3.0
_PR_SET_PDEATHSIG = 1


class Batch:
    """A plan, compiled: its jobs and its folder.

    Args:
        plan: the plan's file, or the folder of a batch.
        root: where batch folders are.

    Raises:
        ValueError: the plan cannot run, and why.
    """

    def __init__(self, plan: str | Path, root: str | Path = "batches") -> None:
        self.source = Path(plan) / PLAN if Path(plan).is_dir() else Path(plan)
        self.plan: Plan = read_plan(self.source)
        self.folder = Path(plan) if Path(plan).is_dir() else Path(root) / self.plan.name
        try:
            self.jobs: list[Job] = jobs_of(self.plan)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from None

    def rows(self) -> list[Row]:
        """How every job stands."""
        return rows(self.folder, self.jobs)

    def reasons(self) -> dict[str, str]:
        """The jobs that would run, and why."""
        return reasons(self.folder, self.jobs)

    def seconds_left(self, slots: int) -> float | None:
        """How long the rest will take; None while it is not known."""
        return seconds_left(self.rows(), seconds_each(self.folder), slots)

    def run(
        self,
        slots: int = 1,
        *,
        executor: str = "local",
        flags: Iterable[str] = (),
        watch: Callable[["Batch", bool], None] = lambda batch, over: None,
    ) -> list[Row]:
        """Run what is not done, and return how every job stands in the end; one failing run does not stop others.

        Ctrl-C stops it: runs that had begun keep their checkpoints, and the next call goes on from them.

        Args:
            slots: cores, or jobs of an executor with a queue.
            executor: Snakemake's: "local", "slurm", "kubernetes" …
            flags: more of Snakemake's own.
            watch: called a few times a second, and once more when it is over.

        Raises:
            ValueError: another batch runs in the folder, or the folder cannot be written.
        """
        try:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{self.folder} cannot be written ({error.strerror}); give another --root.") from None
        with locked(self.folder, local=executor == "local"):
            self._prepare()
            write_page(self)
            if any(not is_done(self.folder, job) for job in self.jobs):
                self._snakemake(command(self.folder, slots, executor, flags), watch)
            self._note_skipped()
            write_page(self)
            watch(self, True)
        return self.rows()

    def _prepare(self) -> None:
        if self.source.resolve() != (self.folder / PLAN).resolve():
            write_bytes(self.folder / PLAN, self.source.read_bytes())
        write_jobs(self.folder, self.plan, self.jobs)
        write_bytes(self.folder / SNAKEFILE, snakefile(self.jobs, self.folder).encode())
        for job in self.jobs:
            if not is_done(self.folder, job) and (self.folder / "runs" / job.name).exists():
                set_aside(self.folder, job.name)

    def _snakemake(self, line: list[str], watch: Callable[["Batch", bool], None]) -> None:
        with open(self.folder / LOG, "wb") as log:
            child = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        drawn = time.monotonic()
        with _stopping(child):
            while child.poll() is None:
                watch(self, False)
                if time.monotonic() - drawn > _PAGE_EVERY_SECONDS:
                    write_page(self)
                    drawn = time.monotonic()
                time.sleep(_EVERY_SECONDS)
        if child.returncode and not any(row.run for row in self.rows() if row.state != GOOD):
            said = (self.folder / LOG).read_text(errors="replace").strip().splitlines()[-8:]
            raise ValueError("Snakemake ended with an error:\n" + "\n".join(said))

    def _note_skipped(self) -> None:
        """Give a run folder with the state "skipped" to each job that waited for one that failed."""
        standing = {row.job.name: row for row in self.rows()}
        for row in standing.values():
            bad = [name for name in row.job.needs if standing[name].state != GOOD]
            if row.run is None and bad:
                run = Run.create(row.job.group, folder=self.folder / "runs" / row.job.name, params=row.job.params)
                failure = Failure(name="Skipped", value=f"it needs {', '.join(bad)}, which did not end ok")
                Status(state="skipped", error=failure).write(run.path)
                standing[row.job.name] = Row(row.job, run, run.status())


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _stopping(child: subprocess.Popen) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the jobs; a second one kills them."""
    asked: list[int] = []

    def stop(number: int, frame: object) -> None:
        os.killpg(child.pid, signal.SIGKILL if asked else signal.SIGINT)
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():  # signals go elsewhere
        yield
        return
    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
