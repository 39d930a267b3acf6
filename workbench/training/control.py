"""What a person asks of a training that runs in another process: lines of `control.jsonl` in its run folder.

One line is one request: `{"time": …, "id": "3f9a0c1e", "action": "stop"}`. The training answers in `events.jsonl`,
with the request's id: "seen" when it has read it, then "done" or "refused". All state is in the two files, so that
whoever asks may leave and come back.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from workbench.runs.files import append_line, now, read_lines_from
from workbench.runs.folder import Run
from workbench.runs.params import refuse_unknown

FILE = "control.jsonl"
KIND = "control"  # of the events that answer
EVERY_SECONDS = 0.2  # between two looks at the file

Action = Literal["stop", "probe"]
Answer = Literal["seen", "done", "refused"]
ACTIONS = get_args(Action)


class Request(NamedTuple):
    """One request: its id, and what is asked for."""

    id: str
    action: Action


class Control:
    """Requests that reach one training; give it to `fit(..., control=Control(run))`.

    A line that is damaged or asks for something unknown is refused, with an event that says why; no content of the
    file ends a training. What was answered stays answered, also by an earlier process; a request without an answer
    is served by the next training in the same folder.

    Args:
        run: the run, or its folder.
    """

    def __init__(self, run: Run | str | Path) -> None:
        self.run = run if isinstance(run, Run) else Run.open(run)
        self.file = self.run.path / FILE
        answers = (event for event in self.run.events() if event.get("kind") == KIND)
        self._answered = {str(event.get("id")) for event in answers if event.get("answer") in ("done", "refused")}
        self._offset, self._looked = 0, -EVERY_SECONDS
        self._failed = False

    def requests(self) -> list[Request]:
        """What was asked since the last call; at most every 0.2 s it looks at the size of the file."""
        if time.monotonic() - self._looked < EVERY_SECONDS:
            return []
        self._looked = time.monotonic()
        try:
            size = os.stat(self.file).st_size
            if size < self._offset:  # replaced by a shorter file; the answered ids still hold
                self._offset = 0
            lines = list(self._gained()) if size != self._offset else []
        except FileNotFoundError:
            return []
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._say(f"file {self._offset}", None, "refused", why=f"{FILE} cannot be read: {error}")
            return []
        return [request for at, line in lines if (request := self._understood(at, line)) is not None]

    def answer(self, request: Request, answer: Answer, **more: object) -> None:
        """Log what became of a request; `more` says how: step, why, the name of a probe."""
        self._say(request.id, request.action, answer, **more)

    def _gained(self) -> Iterator[tuple[int, bytes]]:
        """Place and text of each line that was ended since the last look; half a line waits for its end."""
        with open(self.file, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                at, self._offset = self._offset, self._offset + len(line)
                if line.strip():
                    yield at, line

    def _understood(self, at: int, line: bytes) -> Request | None:
        """The request in a line; None, and a refusal in the log, where there is none."""
        try:
            asked = json.loads(line)
        except (ValueError, RecursionError):
            asked = None
        readable = isinstance(asked, dict) and isinstance(asked.get("id"), str)
        identity, action = (asked["id"], asked.get("action")) if readable else (f"byte {at}", None)
        if identity in self._answered:
            return None
        self._answered.add(identity)
        if action in ACTIONS:
            self._say(identity, action, "seen")
            return Request(identity, action)
        text = line[:80].decode(errors="replace").strip()
        cannot = f"a training cannot {action!r}; it can {' or '.join(ACTIONS)}"
        self._say(identity, action, "refused", why=cannot if readable else f"{text!r} in {FILE} is not a request")
        return None

    def _say(self, identity: str, action: object, answer: Answer, **more: object) -> None:
        with suppress(OSError):  # a full disk ends the training where it must write, not here
            self.run.event(KIND, id=identity, action=action, answer=answer, **more)


def ask(run: Run | str | Path, action: Action) -> str:
    """Ask the training of a run to "stop" or to "probe" now, and return the request's id.

    It stops after the update it is at, with the best weights so far, and its progress is kept.

    Raises:
        ValueError: it is asked for something else, or the folder is no run.
    """
    refuse_unknown([action], ACTIONS, "request")
    run = run if isinstance(run, Run) else Run.open(run)
    identity = secrets.token_hex(4)
    append_line(run.path / FILE, {"time": now(), "id": identity, "action": action})
    return identity


def requests(run: Run) -> list[dict]:
    """Every readable request of a run, oldest first, as {id, action, time, answer, ...}; unanswered ones are "asked".

    What a training refused because it could not read it has no time.
    """
    asked, _ = read_lines_from(run.path / FILE, 0)
    return answered(asked, run.events())


def answered(asked: list[dict], events: list[Mapping]) -> list[dict]:
    """Each request joined with its newest answer among the events of a run."""
    found = {str(line.get("id")): {"answer": "asked", **line} for line in asked if isinstance(line.get("id"), str)}
    for event in events:
        if event.get("kind") == KIND:
            answer = {name: value for name, value in event.items() if name not in ("kind", "time")}
            known = found.setdefault(str(event.get("id")), {"time": None})
            known.update({"answered": event.get("time"), **answer})
    return list(found.values())
