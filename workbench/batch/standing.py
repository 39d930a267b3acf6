"""How a batch stands, read from its run folders alone; and why a job would run."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workbench.batch.ingredients import why
from workbench.batch.jobs import DONE, Job
from workbench.runs.files import read_json
from workbench.runs.folder import Run
from workbench.runs.status import State, Status

GOOD, BAD = "ok", ("failed", "diverged", "oom", "timeout", "interrupted", "killed", "skipped")


@dataclass(frozen=True)
class Row:
    """One job as it stands: its run, where it has begun, and its status."""

    job: Job
    run: Run | None
    status: Status

    @property
    def state(self) -> State:
        """The state of its run; queued before it begins."""
        return self.status.state


def rows(folder: Path, jobs: Iterable[Job]) -> list[Row]:
    """Every job with its run; one that ended ok a moment ago runs until its `done.json` is there."""
    return [_row(Path(folder) / "runs" / job.name, job) for job in jobs]


def _row(place: Path, job: Job) -> Row:
    if not (place / "run.json").is_file():
        return Row(job, None, Status(state="queued"))
    run = Run.open(place)
    status = run.status()
    if status.state == GOOD and not (place / DONE).is_file():
        status = status.model_copy(update={"state": "running"})
    return Row(job, run, status)


def is_done(folder: Path, job: Job) -> bool:
    """Whether a job has nothing left to do."""
    return (Path(folder) / "runs" / job.name / DONE).is_file()


def reasons(folder: Path, jobs: Iterable[Job]) -> dict[str, str]:
    """Name of each job that would run, and why; jobs that are done are not there."""
    found: dict[str, str] = {}
    done = [record for path in Path(folder).glob(f"runs/*/{DONE}") if (record := _record(path))]
    for job in jobs:
        if not is_done(folder, job):
            found[job.name] = _reason(Path(folder), job, done, [need for need in job.needs if need in found])
    return found


def _reason(folder: Path, job: Job, done: list[dict], waits: list[str]) -> str:
    if (folder / "runs" / job.name).exists() or list((folder / "attempts").glob(f"{job.name}.*")):
        row = _row(folder / "runs" / job.name, job)
        return f"{row.state} last time" if row.run else "begun before"
    if waits:
        return f"needs {', '.join(waits)}, which {'runs' if len(waits) == 1 else 'run'}"
    twins = [each for each in done if each.get("group") == job.group and each.get("varied") == job.varied]
    said = min((why(each["ingredients"], job.ingredients) for each in twins), key=len, default=[])
    return "; ".join(said) or "new"


def seconds_each(folder: Path) -> dict[str, float]:
    """Mean seconds of the runs of each group that are done."""
    times: dict[str, list[float]] = {}
    for path in Path(folder).glob(f"runs/*/{DONE}"):
        if (record := _record(path)) and record.get("seconds"):
            times.setdefault(record["group"], []).append(record["seconds"])
    return {group: sum(each) / len(each) for group, each in times.items()}


def seconds_left(standing: list[Row], each: dict[str, float], slots: int) -> float | None:
    """How long the rest will take, `slots` at a time; None while a group's runs have never been timed."""
    left = [row for row in standing if row.state in ("queued", "running")]
    if any(row.job.group not in each for row in left):
        return None
    work = [max(each[row.job.group] - (row.status.seconds or 0), 1.0) for row in left]
    return max([sum(work) / max(slots, 1), *work], default=0.0)


def _record(path: Path) -> dict | None:
    try:
        record = read_json(path)
        return record if isinstance(record.get("ingredients"), dict) else None
    except (OSError, ValueError):
        return None
