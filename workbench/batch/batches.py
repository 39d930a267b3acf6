"""A batch: a plan in its folder, run by Snakemake, followed while it runs, and gone on with after any end."""

import ctypes
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workbench.batch import machine
from workbench.batch.attempt import settle
from workbench.batch.compile import jobs_of
from workbench.batch.executors import cancel_leftovers
from workbench.batch.jobs import Job, write_jobs
from workbench.batch.lock import locked
from workbench.batch.page import embedded, write_page
from workbench.batch.plan import Plan, PlanError, read_plan
from workbench.batch.snakefile import SNAKEFILE, command, requests, snakefile
from workbench.batch.standing import GOOD, Row, is_done, reasons, rows, seconds_each, seconds_left
from workbench.runs.files import write_bytes
from workbench.runs.folder import Run
from workbench.runs.status import Failure, Status

PLAN, LOG = "plan.yaml", "snakemake.log"
_EVERY_SECONDS, _PAGE_EVERY_SECONDS = 0.3, 3.0
_PR_SET_PDEATHSIG = 1


class Batch:
    """A plan, compiled: its jobs and its folder. A notebook shows it as a table.

    Args:
        plan: the plan's file, or the folder of a batch.
        root: where batch folders are.

    Raises:
        ValueError: the plan cannot run, and why.
    """

    def __init__(self, plan: str | Path, root: str | Path = "batches") -> None:
        self.source = Path(plan) / PLAN if Path(plan).is_dir() else Path(plan)
        try:
            self.plan: Plan = read_plan(self.source)
            self.jobs: list[Job] = jobs_of(self.plan)
        except PlanError as error:
            raise ValueError("\n".join(f"{self.source}: {line}" for line in str(error).splitlines())) from None
        self.folder = Path(plan) if Path(plan).is_dir() else Path(root) / self.plan.name

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
            ValueError: another batch runs in the folder, the folder cannot be written, or a run asks for more than
                this machine has.
        """
        if executor == "local":
            self._refuse_too_much()
        try:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
            with locked(self.folder, local=executor == "local"):
                cancel_leftovers(self.folder)
                self._prepare()
                try:
                    self._run(command(self.folder, slots, executor, flags), watch)
                finally:
                    with suppress(OSError):
                        write_page(self)
                watch(self, True)
        except BrokenPipeError:  # who watched is gone
            raise
        except OSError as error:
            raise ValueError(
                f"{self.folder} cannot be written ({error.strerror}). What is done stays done: make "
                f"room there or give another --root, and start the same again."
            ) from None
        return self.rows()

    def _refuse_too_much(self) -> None:
        there = machine.resources()
        for job in self.jobs:
            for name, amount in requests(job).items():
                if amount > there.get(name, amount):
                    raise ValueError(
                        f"{self.source}: {self.plan.at('groups', job.group)}: a run asks for {name}={amount}, and this "
                        f"machine has {there[name]}; ask for less, or give an --executor that has more."
                    )

    def _prepare(self) -> None:
        if self.source.resolve() != (self.folder / PLAN).resolve():
            write_bytes(self.folder / PLAN, self.source.read_bytes())
        write_jobs(self.folder, self.plan, self.jobs)
        write_bytes(self.folder / SNAKEFILE, snakefile(self.jobs, self.folder).encode())
        for job in self.jobs:
            if not is_done(self.folder, job):
                settle(self.folder, job)
        write_page(self)

    def _run(self, line: list[str], watch: Callable[["Batch", bool], None]) -> None:
        if all(is_done(self.folder, job) for job in self.jobs):
            return
        with open(self.folder / LOG, "wb") as log:
            child = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        with _stopping(child):
            self._follow(child, watch)
        self._note_lost()
        self._note_skipped()
        if child.returncode and not any(row.run for row in self.rows() if row.state != GOOD):
            said = (self.folder / LOG).read_text(errors="replace").strip().splitlines()[-8:]
            raise ValueError("Snakemake ended with an error:\n" + "\n".join(said))

    def _follow(self, child: subprocess.Popen, watch: Callable[["Batch", bool], None]) -> None:
        drawn = time.monotonic()
        while child.poll() is None:
            watch(self, False)
            if time.monotonic() - drawn > _PAGE_EVERY_SECONDS:
                drawn = time.monotonic()
                with suppress(OSError):  # a full disk is the next page's, or the last one's, to report
                    write_page(self)
            time.sleep(_EVERY_SECONDS)

    def _note_lost(self) -> None:
        """Say of runs on other machines that they were killed: all jobs have ended, and these did not say how."""
        for row in self.rows():
            if row.state == "running" and row.status.host not in (None, platform.node()):
                said = "its machine or its queue ended it without a word"
                failure = Failure(name="Killed", value=f"{said} (on {row.status.host})")
                row.status.model_copy(update={"state": "killed", "error": failure}).write(row.run.path)

    def _note_skipped(self) -> None:
        """Give a run folder with the state "skipped" to each job that waited for one that failed."""
        standing = {row.job.name: row for row in self.rows()}
        for row in standing.values():
            bad = [name for name in row.job.needs if standing[name].state != GOOD]
            if row.run is None and bad:
                settle(self.folder, row.job)
                run = Run.create(row.job.group, folder=self.folder / "runs" / row.job.name, params=row.job.params)
                failure = Failure(name="Skipped", value=f"it needs {', '.join(bad)}, which did not end ok")
                Status(state="skipped", error=failure).write(run.path)
                standing[row.job.name] = Row(row.job, run, run.status())

    def _repr_html_(self) -> str:
        return embedded(self.plan.name, self.rows())


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _stopping(child: subprocess.Popen) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the jobs, a second one kills them; none is left when the block ends."""
    asked: list[int] = []

    def stop(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL if asked else signal.SIGINT)
        asked.append(number)

    main = threading.current_thread() is threading.main_thread()  # elsewhere no signals arrive
    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # what is left of its session, if it was killed itself
            os.killpg(child.pid, signal.SIGINT)
        child.wait()
        for number, handler in old.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
