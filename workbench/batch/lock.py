"""One batch at a time in a folder; jobs of a batch that is gone stop by themselves."""

import json
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.runs.files import now, read_json
from workbench.runs.lock import held
from workbench.runs.provenance import process_start, this_process

LOCK = "lock.json"
_EVERY_SECONDS = 1.0


@contextmanager
def locked(folder: Path, *, local: bool) -> Iterator[None]:
    """Hold the batch folder; `local` says that its jobs are to end with this process.

    The system lets go of the lock when this process ends, however it ends.

    Raises:
        ValueError: another process holds it.
    """
    with held(folder / LOCK) as descriptor:
        if descriptor is None:
            owner = _read(folder / LOCK) or {"pid": "?", "host": "?", "since": "?"}
            raise ValueError(
                f"another batch is running in {folder} (process {owner['pid']} on {owner['host']}, since "
                f"{owner['since']}); wait for its end, or stop it."
            )
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"local": local, "since": now(), **this_process()}).encode(), 0)
        yield


def stop_with_the_batch(folder: Path) -> bool:
    """Interrupt this process when the one that holds the batch is gone, if that runs its jobs here: whether it does.

    Raises:
        ValueError: it is gone already.
    """
    owner = _read(folder / LOCK)
    if owner is not None and (not owner.get("local") or owner.get("host") != platform.node()):
        return False
    if owner is None or not _alive(owner):
        raise ValueError(f"the batch of {folder} has ended; start it again with `workbench batch {folder}`.")
    threading.Thread(target=_watch, args=(owner,), name="watch-batch", daemon=True).start()
    return True


def _watch(owner: dict) -> None:
    over = threading.Event()
    while not over.wait(_EVERY_SECONDS):
        if not _alive(owner):
            os.kill(os.getpid(), signal.SIGINT)
            return


def _alive(owner: dict) -> bool:
    return process_start(owner["pid"]) == owner["process_start"]


def _read(path: Path) -> dict | None:
    """Who held the folder last; None when nobody did, or did not get to say so."""
    try:
        record = read_json(path)
        return record if {"host", "pid", "process_start", "since"} <= record.keys() else None
    except (OSError, ValueError):
        return None
