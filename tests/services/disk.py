"""A disk that is small enough to fill."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str = "2m") -> Iterator[Path]:
    """A file system of its own at a new folder; the test is skipped where it may not be mounted."""
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    if subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Write until the disk of a folder is full, and return the file that fills it."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    return path


def forbid_writing(folder: Path) -> None:
    """Mount the small disk at a folder again, for reading only."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
