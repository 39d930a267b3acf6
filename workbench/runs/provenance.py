"""Where a result comes from: commit, versions, machine, and the identity of a process."""

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "workbench",
    "torch",
    "numpy",
    "pydantic",
    "safetensors",
    "plotly",
    "polars",
    "xlstm",
    "papermill",
    "nbclient",
    "ipykernel",
)


def commit() -> dict[str, object]:
    """The commit of the package's own repository and whether files differ from it; both None outside of one."""
    package = Path(__file__).resolve().parents[1]
    root = _git(package, "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() / package.name != package:  # installed inside a stranger's repository
        return {"commit": None, "dirty": None}
    head = _git(package, "rev-parse", "--verify", "HEAD")
    changes = _git(Path(root), "--no-optional-locks", "status", "--porcelain")
    return {"commit": head, "dirty": None if changes is None else bool(changes)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result, as installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, object]:
    """Commit, versions and host of this process."""
    return {**commit(), "versions": versions(), "host": platform.node(), "platform": platform.platform()}


def process_start(pid: int) -> str | None:
    """When process `pid` started, as an opaque text to compare; None if no such process is alive.

    A pid alone is no identity: the system gives it to another process later.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _process_start_ps(pid)
    state, *fields = stat.rpartition(")")[2].split()  # the command, in parentheses, may hold spaces
    return None if state in "ZX" else fields[18]


def this_process() -> dict[str, object]:
    """Host, pid and start time of this process: its identity in a status file."""
    return {"host": platform.node(), "pid": os.getpid(), "process_start": process_start(os.getpid())}


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _process_start_ps(pid: int) -> str | None:
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=20
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
