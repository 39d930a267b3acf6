"""Where trials are kept: a journal in the study's folder, or a database; both survive damaged lines and outages."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

JOURNAL = "journal.log"
OUTAGE_SECONDS = 600.0  # how long a worker waits for a database that is gone
_GRACE_SECONDS = 10  # after which the lock of a killed writer is broken; writing takes milliseconds
_NOTHING = {"op_code": 2, "worker_id": "", "study_id": -1, "user_attr": {}}  # an attribute of a study that is not there
_UNDATED = {"datetime_start": None}
_NEW_TRIAL = re.compile(rb'"op_code":4\b')


class Journal(JournalFileBackend):
    """Optuna's journal file, which a damaged line does not end.

    A line that is no JSON is read as one that does nothing, and kept in `damaged`; one that began a trial is read as a
    trial that waits, because trials are numbered by their lines. What the line said is done again: a trial whose end
    was lost is one that nobody works on.
    """

    def __init__(self, path: Path) -> None:
        lock = (JournalFileOpenLock if sys.platform == "win32" else JournalFileSymlinkLock)(str(path), _GRACE_SECONDS)
        super().__init__(str(path), lock)
        self.path, self.lock = Path(path), lock
        self.ends = [0]  # where each line begins
        self.damaged: dict[int, bytes] = {}

    def read_logs(self, log_number_from: int) -> Iterator[dict]:
        """The operations from a line on; half a line at the end waits for the rest."""
        with open(self.path, "rb") as file:
            number = min(log_number_from, len(self.ends) - 1)
            file.seek(self.ends[number])
            for line in file:
                if not line.endswith(b"\n"):
                    return
                if number + 1 == len(self.ends):
                    self.ends.append(self.ends[number] + len(line))
                if number >= log_number_from:
                    yield self._operation(number, line)
                number += 1

    def append_logs(self, logs: list[dict]) -> None:
        """Add operations; a line that a killed writer left half is ended first."""
        self.lock.acquire()
        try:
            with open(self.path, "ab+") as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                text = "" if not size or file.read(1) == b"\n" else "\n"
                text += "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self.lock.release()

    def _operation(self, number: int, line: bytes) -> dict:
        try:
            operation = json.loads(line)
            if isinstance(operation, dict) and "op_code" in operation:
                return operation
        except ValueError:
            pass
        self.damaged[number + 1] = line
        if _NEW_TRIAL.search(line):
            study = re.search(rb'"study_id":(\d+)', line)
            return {"op_code": 4, "worker_id": "", "study_id": int(study[1]) if study else 0, "state": 4, **_UNDATED}
        return dict(_NOTHING)


class PatientDatabase(RDBStorage):
    """Optuna's database storage, which waits for a server that is gone instead of failing."""


def _patient(call: Callable) -> Callable:
    @wraps(call)
    def waiting(self: PatientDatabase, *args: object, **named: object) -> object:
        deadline, pause = time.monotonic() + OUTAGE_SECONDS, 0.2
        while True:
            try:
                return call(self, *args, **named)
            except Exception as error:
                if not _is_outage(error) or time.monotonic() > deadline:
                    raise
                if pause == 0.2:
                    print("The database does not answer; waiting for it.", file=sys.stderr, flush=True)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    return waiting


for _name in BaseStorage.__abstractmethods__ | {"__init__"}:
    setattr(PatientDatabase, _name, _patient(getattr(RDBStorage, _name)))


def open_storage(place: str | Path) -> BaseStorage:
    """The storage at a database URL, or in a study folder.

    Raises:
        ValueError: the URL is none, or the server is of a kind that cannot be used.
    """
    if "://" not in str(place):
        return JournalStorage(Journal(Path(place) / JOURNAL))
    try:
        url = make_url(str(place))
    except ArgumentError:
        raise ValueError("the storage is no URL; write postgresql://USER@HOST:PORT/DATABASE.") from None
    if url.get_backend_name() != "postgresql":
        raise ValueError(
            f"{url.get_backend_name()} is not for many workers; give a PostgreSQL URL, or a shared folder."
        )
    url = url.set(drivername="postgresql+psycopg")
    settings = {"pool_pre_ping": True, "hide_parameters": True, "connect_args": {"connect_timeout": 5}}
    return PatientDatabase(url.render_as_string(hide_password=False), engine_kwargs=settings)


def redacted(place: str | Path) -> str:
    """A place as it may be written down: without a password, also where it stands among the options of the URL."""
    if "://" not in str(place):
        return str(place)
    url = make_url(str(place))
    secret = [name for name in url.query if "pass" in name.lower()]
    return url.difference_update_query(secret).set(password="***" if url.password else None).render_as_string(False)


def without_secrets(text: str, place: str | Path | None) -> str:
    """A text without the password of a place: what libraries say of a failure may hold it."""
    if place is None or "://" not in str(place):
        return text
    url = make_url(str(place))
    secrets = [url.password, *(value for name, value in url.query.items() if "pass" in name.lower())]
    secrets += [re.search(r"://[^:/@]*:([^@]*)@", str(place)).group(1)] if url.password else []
    for secret in secrets:
        text = text.replace(str(secret), "***") if secret else text
    return text


def report_damage(storage: BaseStorage, folder: Path) -> list[str]:
    """Keep the damaged lines of a journal beside it, and say which they are."""
    journal = getattr(storage, "_backend", None)
    if not isinstance(journal, Journal) or not journal.damaged:
        return []
    with open(folder / "journal.damaged", "wb") as file:
        for number, line in sorted(journal.damaged.items()):
            file.write(f"line {number}: ".encode() + line)
    return [f"line {number} of {JOURNAL} is damaged and was left out" for number in sorted(journal.damaged)]


def _is_outage(error: BaseException | None) -> bool:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, OperationalError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
            return not _is_refusal(str(error))
        error = error.__cause__ or error.__context__
    return False


def _is_refusal(text: str) -> bool:
    """Whether the server is there and says no: a wrong password will not become right."""
    return any(word in text for word in ("authentication failed", "does not exist", "no password supplied"))
