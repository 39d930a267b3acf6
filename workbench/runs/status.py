"""The state of a run, true even after a kill: `status.json`."""

import platform
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.runs.files import now, read_json, write_json
from workbench.runs.provenance import process_start

State = Literal[
    "queued", "running", "ok", "failed", "diverged", "oom", "timeout", "interrupted", "killed", "skipped", "pruned"
]


class Failure(BaseModel):
    """What ended a run: the error's class name, its message, the end of its traceback, and what to try."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: str = ""
    traceback: str = ""
    hint: str = ""


class Status(BaseModel):
    """The state of a run, written by the process that watches over it.

    `cell` is the code cell that runs, or that ended the run, as a person counts them: 1 is the first, the
    parameters that were injected and empty cells are not counted. `pid`, `process_start` and `host` name the
    watching process. `peak_memory_bytes` is the largest sampled sum over the kernel and its children.
    """

    model_config = ConfigDict(frozen=True)

    state: State
    cell: int | None = None
    cells: int | None = None
    error: Failure | None = None
    exit_signal: int | None = None
    peak_memory_bytes: int | None = None
    seconds: float | None = None
    pid: int | None = None
    process_start: str | None = None
    host: str | None = None
    started: str | None = None
    updated: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has ended, well or not."""
        return self.state not in ("queued", "running")

    def write(self, folder: Path) -> "Status":
        """Replace `status.json` in the run's folder; returns what was written."""
        written = self.model_copy(update={"updated": now()})
        write_json(Path(folder) / "status.json", written)
        return written


def read(folder: Path) -> Status:
    """The status of the run in `folder`; `running` reads as `killed` when its process is gone from this host."""
    path = Path(folder) / "status.json"
    if not path.exists():
        return Status(state="queued")
    try:
        status = Status.model_validate(read_json(path))
    except ValidationError as error:
        raise ValueError(f"{path} is not a status: {error.errors()[0]['msg']}.") from None
    if status.state == "running" and status.host == platform.node() and _gone(status):
        failure = Failure(
            name="Killed",
            value="The process that watched over this run is gone without a word.",
            hint=f"Start again from its checkpoints with `workbench run --from {Path(folder).resolve().name}`.",
        )
        return status.model_copy(update={"state": "killed", "error": failure})
    return status


def _gone(status: Status) -> bool:
    return status.pid is None or process_start(status.pid) != status.process_start
