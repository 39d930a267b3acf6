"""All runs under one folder: list them, find one, remove old ones."""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from workbench.runs.folder import Run
from workbench.runs.params import closest
from workbench.runs.status import Status


@dataclass(frozen=True)
class Entry:
    """One folder under the root: a run with its status, or a folder with its problem."""

    path: Path
    created: str
    run: Run | None = None
    status: Status | None = None
    problem: str = ""


def entries(root: str | Path = "runs") -> list[Entry]:
    """Every folder under `root`, newest first; a broken one is there too, with its problem said."""
    root = Path(root)
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(map(_entry, folders), key=lambda entry: (entry.created, entry.path.name), reverse=True)


def find(text: str | Path, root: str | Path = "runs") -> Run:
    """The run that `text` names: a path, a folder's name, the beginning of one, or of the six-letter id."""
    path = Path(text)
    if (path / "run.json").is_file():
        return Run.open(path)
    text, folders = str(text), [entry.path for entry in entries(root) if entry.run is not None]
    names = [folder.name for folder in folders]
    exact = [folder for folder in folders if folder.name == text]
    matches = exact or [folder for folder in folders if text and any(part.startswith(text) for part in _parts(folder))]
    if len(matches) == 1:
        return Run.open(matches[0])
    if matches:
        raise ValueError(
            f"{text!r} begins {len(matches)} runs: {', '.join(folder.name for folder in matches[:5])}"
            f"{' …' if len(matches) > 5 else ''}; give more letters."
        )
    if not names:
        raise ValueError(f"No run {text!r}: there are no runs in {Path(root).resolve()}.")
    raise ValueError(f"No run {text!r} in {root}{closest(text, names)} The newest: {', '.join(names[:3])}.")


def prunable(
    root: str | Path = "runs",
    *,
    older_than_days: float | None = None,
    keep: int | None = None,
    states: Iterable[str] | None = None,
) -> list[Run]:
    """Runs that may go, newest first: older than so many days, beyond the newest `keep`, in one of `states`.

    What is given must all hold. A run that may still be going, a link and a folder that is no run stay.
    """
    for name, value in {"older_than_days": older_than_days, "keep": keep}.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name}={value} is not a number from 0 up; give 0 or more, or leave it out.")
    states = None if states is None else set(states)
    oldest = None if older_than_days is None else time.time() - older_than_days * 86_400
    chosen = []
    for place, entry in enumerate(entry for entry in entries(root) if entry.run is not None):
        if entry.status.state == "running" or (entry.status.state == "queued" and "queued" not in (states or ())):
            continue
        too_young = oldest is not None and datetime.fromisoformat(entry.created).timestamp() > oldest
        kept = keep is not None and place < keep
        other_state = states is not None and entry.status.state not in states
        if not (too_young or kept or other_state or entry.path.is_symlink()):
            chosen.append(entry.run)
    return chosen


def remove(run: Run) -> None:
    """Delete the folder of a run that is not running."""
    status = Run.open(run.path).status()
    if status.state == "running":
        raise ValueError(f"{run.name} is still running (process {status.pid} on {status.host}); stop it first.")
    shutil.rmtree(run.path)


def _entry(path: Path) -> Entry:
    try:
        run = Run.open(path)
        created = datetime.fromisoformat(run.record["created"]).isoformat()
        return Entry(path, created, run, run.status())
    except (ValueError, KeyError, TypeError, OSError) as error:
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
        return Entry(
            path, changed, problem=str(error) if not isinstance(error, KeyError) else f"no {error} in run.json"
        )


def _parts(folder: Path) -> tuple[str, str, str]:
    """What a person may begin to type: the whole name, the name without its date, the id."""
    return folder.name, folder.name[len("2026-01-01-") :], folder.name.rpartition("-")[2]
