"""Runs a notebook headless, and leaves a run folder that tells the truth about it."""

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import papermill
from papermill.engines import papermill_engines

from workbench.batch.engine import WorkbenchEngine
from workbench.batch.pictures import Painter
from workbench.batch.progress_view import duration, following
from workbench.batch.report import write_report
from workbench.batch.session import Session
from workbench.batch.source import Source, checked_parameters, read_source
from workbench.runs import store
from workbench.runs.files import now
from workbench.runs.folder import Run
from workbench.runs.outcome import Outcome
from workbench.runs.provenance import this_process
from workbench.runs.status import Failure, Status

_RUNS_LOOKED_AT = 200
_STOPPING = "Stopping; what was learned is kept. Ctrl-C again kills."


def execute(
    notebook: str | Path | None,
    parameters: Mapping[str, object] | None = None,
    *,
    root: str | Path = "runs",
    name: str | None = None,
    resume_from: str | Path | Run | None = None,
    cell_timeout: float | None = None,
    memory_limit: int | None = None,
    out: TextIO | None = None,
    offline: bool = False,
    folder: str | Path | None = None,
) -> Run:
    """Execute a notebook in a kernel child and return its run, however it ended: see `run.status()`.

    The kernel works in the caller's current folder. What cannot start raises ValueError, before anything is
    created.

    Args:
        notebook: path; None with `resume_from`, for the notebook of that run.
        parameters: values for names of the parameters cell.
        root: folder of the run folders.
        name: name of the run; by default the old run's, or the notebook's.
        resume_from: a run to start from: its parameters hold unless given again, and its checkpoints are
            copied when no parameter changed and it did not end ok.
        cell_timeout: seconds that one cell may take.
        memory_limit: bytes of data that the kernel may hold (held by Linux).
        out: where progress is shown; standard output by default.
        offline: tell the kernel to download nothing.
        folder: of this run, in the place of a new one under `root`.
    """
    out = sys.stdout if out is None else out
    old = None if resume_from is None else _old_run(resume_from, root)
    source = read_source(_notebook_of(old) if notebook is None else notebook)
    _check_limits(source, old, cell_timeout, memory_limit)
    given = checked_parameters(source, {**(old.record.get("parameters") or {} if old else {}), **(parameters or {})})
    started, expected = time.monotonic(), _expected(source, given, root)
    run, begins = _create(source, given, root, name, old, folder)
    print(f"{source.path.name} → {run.path}{expected}{begins}", file=out, flush=True)
    session = Session(run.path, cell_timeout, memory_limit, offline)
    try:
        _execute(run, source, given, session, out, started)
    except BaseException as error:
        if not run.status().finished:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            _write_status(run, session, started, Outcome(state, Failure(name=type(error).__name__, value=str(error))))
        raise
    return run


def read_run_source(notebook: str | Path | None, resume_from: str | Path | None, root: str | Path = "runs") -> Source:
    """The notebook that `execute` would run when called with these arguments."""
    return read_source(notebook or _notebook_of(None if resume_from is None else _old_run(resume_from, root)))


def _execute(run: Run, source: Source, given: dict[str, object], session: Session, out: TextIO, started: float) -> None:
    _write_status(run, session, started)

    def on_event(kind: str, **fields: object) -> None:
        run.event(kind, **fields)
        if kind == "cell_start":
            _write_status(run, session, started)

    session.on_event = on_event
    with Painter(run.figures) as painter:
        with following(run.path / "events.jsonl", out), _stopping(session, out):
            _papermill(source, run, given, session)
        assert session.outcome is not None
        status = _write_status(run, session, started, session.outcome)
        _say_end(run, status, out)
    if painter.problem:
        print(painter.problem, file=out, flush=True)
    _report(run, out)


def _papermill(source: Source, run: Run, given: dict[str, object], session: Session) -> None:
    papermill_engines.register("workbench", WorkbenchEngine)  # also where the package is not installed
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    with suppress(papermill.PapermillExecutionError):  # the session knows of it already
        papermill.execute_notebook(
            str(source.path).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
            None,  # the engine saves
            given,
            engine_name="workbench",
            kernel_name="python3",
            language="python",
            session=session,
        )


@contextmanager
def _stopping(session: Session, out: TextIO) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the notebook instead of this process."""

    def stop(number: int, frame: object) -> None:
        first = session.ready and session.stopped is None
        session.stop("interrupted")
        if first:
            _say_stopping(out)

    old = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, stop)
    except ValueError:  # not in the main thread: signals go elsewhere
        pass
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _say_stopping(out: TextIO) -> None:
    line = f"\r\x1b[2K{_STOPPING}\n" if out.isatty() else f"{_STOPPING}\n"
    try:
        os.write(out.fileno(), line.encode())  # a signal may come while `out` is in the middle of another line
    except OSError:  # no file behind it, or nobody reads any more
        with suppress(OSError):
            out.write(line)


def _write_status(run: Run, session: Session, started: float, outcome: Outcome | None = None) -> Status:
    outcome = outcome or Outcome("running")
    begun = run.record["created"]
    status = Status(
        state=outcome.state,
        cell=session.cell or None,
        cells=session.cells or None,
        error=outcome.error,
        exit_signal=outcome.exit_signal,
        peak_memory_bytes=session.peak_memory_bytes or None,
        seconds=round(time.monotonic() - started, 3),
        started=begun,
        updated=now(),
        **this_process(),
    )
    return status.write(run.path)


def _say_end(run: Run, status: Status, out: TextIO) -> None:
    where = f" in cell {status.cell}" if status.state != "ok" and status.cell else ""
    print(f"{status.state}{where} after {duration(status.seconds)}: {run.path}", file=out, flush=True)
    if status.error:
        print(f"{status.error.name}: {status.error.value}\n{status.error.hint}".rstrip(), file=out, flush=True)


def _report(run: Run, out: TextIO) -> None:
    try:
        write_report(run)
    except Exception as error:  # any fault of the report leaves the run as it is
        run.event("report_failed", error=f"{type(error).__name__}: {error}")
        print(
            f"The report could not be written ({type(error).__name__}: {error}); the run stands.", file=out, flush=True
        )


def _create(
    source: Source,
    given: dict[str, object],
    root: str | Path,
    name: str | None,
    old: Run | None,
    folder: str | Path | None,
) -> tuple[Run, str]:
    """The new run, and a line that says whether it goes on from the old one's checkpoints."""
    notebook = source.describe()
    values = {**source.defaults, **given}
    name = name or (old.record.get("name") if old else None) or source.path.stem
    run = Run.create(name, root=root, params=values, notebook=notebook, folder=folder)
    anew = "" if old is None else _why_anew(old, given, source.defaults)
    resumed = None if old is None or anew else old.name
    if resumed:
        shutil.copytree(old.checkpoints, run.checkpoints, dirs_exist_ok=True)
    run.amend(parameters=given, resumed_from=resumed)
    if old is None:
        return run, ""
    return run, f"\nstarts anew: {anew}" if anew else f"\ngoes on from the checkpoints of {resumed}"


def _why_anew(old: Run, given: dict[str, object], defaults: dict[str, object]) -> str:
    """Why the checkpoints of `old` are of no use with these parameters; empty when they are."""
    before = old.record.get("parameters")
    if before is None:
        return f"{old.name} does not say with which parameters it began"
    if changed := [name for name, value in given.items() if before.get(name, defaults[name]) != value]:
        return f"{', '.join(changed)} changed"
    if old.status().state == "ok":
        return f"{old.name} ended ok"
    return "" if any(old.checkpoints.iterdir()) else f"{old.name} has no checkpoints"


def _check_limits(source: Source, old: Run | None, cell_timeout: float | None, memory_limit: int | None) -> None:
    for name, value in {"cell_timeout": cell_timeout, "memory_limit": memory_limit}.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value} leaves nothing; give a positive number, or leave it out.")
    before = (old.record.get("notebook") or {}).get("name") if old else None
    if before not in (None, source.path.name):
        raise ValueError(f"{old.name} ran {before}, not {source.path.name}; leave the notebook out to run it again.")


def _old_run(resume_from: str | Path | Run, root: str | Path) -> Run:
    old = resume_from if isinstance(resume_from, Run) else store.find(resume_from, root)
    if old.status().state == "running":
        raise ValueError(f"{old.name} is still running; stop it first, or wait for its end.")
    return old


def _notebook_of(old: Run | None) -> str:
    if old is None:
        raise ValueError("No notebook was named; give its path, or a run to start from.")
    notebook = old.record.get("notebook") or {}
    if "path" not in notebook:
        raise ValueError(f"{old.name} does not say which notebook it ran; name the notebook.")
    return notebook["path"]


def _expected(source: Source, given: dict[str, object], root: str | Path) -> str:
    """How long it will take: as the newest good run of the same, or as the notebook says of its own parameters."""
    for entry in store.entries(root)[:_RUNS_LOOKED_AT]:
        if entry.run is None or entry.status.state != "ok" or not entry.status.seconds:
            continue
        record = entry.run.record
        if (record.get("notebook") or {}).get("name") == source.path.name and record.get("parameters") == given:
            return f" (took {duration(entry.status.seconds)} last time)"
    return "" if given or source.minutes is None else f" (about {duration(source.minutes * 60)})"
