"""A run's events as lines in a terminal: one per cell, and how far the long ones are."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from workbench.runs.files import read_lines_from

_EVERY_SECONDS = 0.2
_LINE_EVERY_SECONDS = 10.0  # where a line cannot be rewritten
_WIDTH = 100


class ProgressView:
    """Prints events: in a terminal the last line is rewritten, elsewhere a line comes every ten seconds."""

    def __init__(self, out: TextIO):
        self.out = out
        self.rewrites = bool(getattr(out, "isatty", lambda: False)())
        self.head = ""
        self.last_line = 0.0

    def event(self, record: dict) -> None:
        """Show one record of `events.jsonl`."""
        when = datetime.fromisoformat(record["time"]).timestamp()
        if record["kind"] == "cell_start":
            width = len(str(record["cells"]))
            self.head = f"[{record['cell']:{width}}/{record['cells']}] {record['title']}"
            self.last_line = when
            self._rewrite(f"{self.head} …")
        elif record["kind"] == "cell_end":
            self._line(f"{self.head}  {duration(record['seconds'])}" + ("" if record["ok"] else "  stopped here"))
        elif record["kind"] == "progress":
            text = f"{self.head} · {progress_text(record)}"
            if self.rewrites:
                self._rewrite(text)
            elif when - self.last_line >= _LINE_EVERY_SECONDS:
                self.last_line = when
                self._line(text)

    def _line(self, text: str) -> None:
        self._write(f"\r\x1b[2K{text}\n" if self.rewrites else f"{text}\n")

    def _rewrite(self, text: str) -> None:
        if self.rewrites:
            self._write(f"\r\x1b[2K{text[:_WIDTH]}")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


@contextmanager
def following(events: Path, out: TextIO) -> Iterator[ProgressView]:
    """Show the events of a run while the block lasts, from a thread."""
    view, over = ProgressView(out), threading.Event()
    thread = threading.Thread(target=_follow, args=(events, view, over), name="progress-view", daemon=True)
    thread.start()
    try:
        yield view
    finally:
        over.set()
        thread.join()


def _follow(events: Path, view: ProgressView, over: threading.Event) -> None:
    offset, last = 0, False
    while True:
        records, offset = read_lines_from(events, offset)
        for record in records:
            view.event(record)
        if last:
            return
        last = over.wait(_EVERY_SECONDS)


def progress_text(record: dict) -> str:
    """A progress event in words: `Train xLSTM 30/200  loss=0.41  1 min 4 s left`."""
    known = {"time", "kind", "label", "done", "total", "seconds", "seconds_left"}
    shown = [
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in record.items()
        if key not in known
    ]
    left = record.get("seconds_left")
    times = [f"{duration(left)} left"] if left is not None and record["done"] < record["total"] else []
    return "  ".join([f"{record['label']} {record['done']}/{record['total']}", *shown, *times])


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 31 s, 2 min 5 s, 1 h 2 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
