"""Where trials are kept: a journal in the study's folder, or a database; both survive damaged lines and outages."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage, _CachedStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from workbench.runs.files import read_json

JOURNAL = "journal.log"
OUTAGE_SECONDS = 600.0  # how long a worker waits for a database that is gone
_GRACE_SECONDS = 10  # after which the lock of a killed writer is broken; writing takes milliseconds
_NEW_STUDY, _NEW_TRIAL = 0, 4  # Optuna's codes of operations
_BEGUN = "begun"  # trials of each study before a line
FRESH = "-fresh"  # behind the name of a study: the winner's trials with fresh seeds


class Journal(JournalFileBackend):
    """Optuna's journal file, which damaged lines do not end.

    Trials have no number in a journal: they are counted. Each line therefore says how many trials every study had
    before it, and the first sound line behind damaged ones says which of those began a study or a trial: these begin
    again here, as trials that wait. All else that was lost is done again, because a trial whose end is missing is one
    that nobody works on.
    """

    def __init__(self, path: Path) -> None:
        lock = (JournalFileOpenLock if sys.platform == "win32" else JournalFileSymlinkLock)(str(path), _GRACE_SECONDS)
        super().__init__(str(path), lock)
        self.path, self.lock = Path(path), lock
        self.damaged: dict[int, bytes] = {}  # number of the line, and what it holds
        self._lines, self._offset = 0, 0  # read so far
        self._ready: list[dict] = []
        self._passed, self._unsure = 0, False
        self._begun: list[int] = []  # trials of each study

    def read_logs(self, log_number_from: int) -> Iterator[dict]:
        """The operations from one on, damaged lines replaced; half a line at the end waits for the rest."""
        self._look()
        del self._ready[: log_number_from - self._passed]
        self._passed = log_number_from
        yield from tuple(self._ready)

    def append_logs(self, logs: list[dict]) -> None:
        """Add operations; a line that a killed writer left half is ended first."""
        self.lock.acquire()
        try:
            self._look()
            begun, lines = list(self._begun), []
            for log in logs:
                lines.append(json.dumps({**log, _BEGUN: begun}, separators=(",", ":")) + "\n")
                begun = _count(begun, log)
            with open(self.path, "ab+") as file:
                size = file.seek(0, os.SEEK_END)
                file.write(("\n" if size > self._offset else "").encode() + "".join(lines).encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self.lock.release()

    def _look(self) -> None:
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset, self._lines = self._offset + len(line), self._lines + 1
                operation = _operation(line)
                if operation is None:
                    self.damaged[self._lines], self._unsure = line, True
                    continue
                for one in (*self._lost(operation.get(_BEGUN)), operation):
                    self._begun = _count(self._begun, one)
                    self._ready.append(one)

    def _lost(self, begun: list[int] | None) -> list[dict]:
        """What the damaged lines before a sound one began."""
        if not self._unsure or begun is None:
            return []
        self._unsure, found = False, []
        for study, count in enumerate(begun):
            known = self._begun[study] if study < len(self._begun) else None
            found += [self._study(study)] if known is None else []
            waiting = {"op_code": _NEW_TRIAL, "worker_id": "", "study_id": study, "state": 4, "datetime_start": None}
            found += [waiting] * (count - (known or 0))
        return found

    def _study(self, number: int) -> dict:
        facts = read_json(self.path.parent / "study.json")
        directions = [1 if one["direction"] == "minimize" else 2 for one in facts["objectives"]]
        name = facts["name"] + (FRESH if number else "")
        return {"op_code": _NEW_STUDY, "worker_id": "", "study_name": name, "directions": directions}


def _operation(line: bytes) -> dict | None:
    try:
        operation = json.loads(line)
    except ValueError:
        return None
    return operation if isinstance(operation, dict) and "op_code" in operation else None


def _count(begun: list[int], operation: dict) -> list[int]:
    """Trials of each study after an operation."""
    if operation["op_code"] == _NEW_STUDY and operation["study_name"].endswith(FRESH) == bool(begun):
        return [*begun, 0] if len(begun) < 2 else begun
    if operation["op_code"] == _NEW_TRIAL and operation["study_id"] < len(begun):
        return [count + (study == operation["study_id"]) for study, count in enumerate(begun)]
    return begun


class PatientDatabase(_CachedStorage):
    """Optuna's database storage, with the cache that its trials rely on; it waits for a server that is gone."""

    def __init__(self, url: str) -> None:
        settings = {"pool_pre_ping": True, "hide_parameters": True, "connect_args": {"connect_timeout": 5}}
        super().__init__(RDBStorage(url, engine_kwargs=settings))


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
    setattr(PatientDatabase, _name, _patient(getattr(PatientDatabase, _name)))


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
    return PatientDatabase(url.render_as_string(hide_password=False))


def redacted(place: str | Path) -> str:
    """A place as it may be written down: without a password, also where it stands among the options of the URL."""
    if "://" not in str(place):
        return str(place)
    url = make_url(str(place))
    secret = [name for name in url.query if "pass" in name.lower()]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def without_secrets(text: str, place: str | Path | None) -> str:
    """A text without the password of a place: what libraries say of a failure may hold it."""
    if place is None or "://" not in str(place):
        return text
    url = make_url(str(place))
    secrets = [url.password, *(value for name, value in url.query.items() if "pass" in name.lower())]
    secrets += re.findall(r"(?<=:)[^:/@]+(?=@)|(?<=pass=)[^&]+|(?<=password=)[^&]+", str(place))  # as it was written
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
