"""One execution of a notebook as its parent sees it: how far it is, how to stop it, how it ended."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.batch.memory import resident_bytes
from workbench.runs.outcome import Outcome
from workbench.runs.status import State

GRACE_SECONDS = 20.0  # between asking a kernel to stop and killing it
_EVERY_SECONDS = 0.2


def _nothing(kind: str, **fields: object) -> None:
    pass


@dataclass
class Session:
    """What the engine is told, and what it found out.

    `cell_timeout` in seconds, `memory_limit` in bytes; `on_event(kind, **fields)` hears of the start and the
    end of cells; `outcome` is set once the notebook has ended.
    """

    run_path: Path | None = None
    cell_timeout: float | None = None
    memory_limit: int | None = None
    offline: bool = False
    on_event: Callable[..., None] = _nothing
    outcome: Outcome | None = None
    cell: int = 0
    cells: int = 0
    peak_memory_bytes: int = 0
    stopped: State | None = None
    ready: bool = False
    kernel_pid: int | None = None
    cell_ends: float | None = None
    patience_ends: float | None = None

    def stop(self, reason: State) -> None:
        """Stop the notebook, as `interrupted` or `timeout`; safe to call from a signal handler.

        The cell that runs is interrupted, so that it can keep what it has; a kernel that has not answered
        after a while, or whose end is asked for twice, is killed.
        """
        again, self.stopped = self.stopped is not None, self.stopped or reason
        if again or not self.ready:
            self._signal(signal.SIGKILL)
        else:
            self.patience_ends = time.monotonic() + GRACE_SECONDS
            self._signal(signal.SIGINT)

    @contextmanager
    def cell_limit(self) -> Iterator[None]:
        """The time within which one cell must end."""
        self.cell_ends = time.monotonic() + self.cell_timeout if self.cell_timeout else None
        try:
            yield
        finally:
            self.cell_ends = None

    @contextmanager
    def watch(self, kernel_pid: int) -> Iterator[None]:
        """Watch over a kernel from a thread: its memory, the time limits."""
        self.kernel_pid = kernel_pid
        if self.stopped:
            self._signal(signal.SIGKILL)
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), name="watch-kernel", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.kernel_pid, self.ready = None, False

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(_EVERY_SECONDS):
            self.peak_memory_bytes = max(self.peak_memory_bytes, resident_bytes(self.kernel_pid))
            if self.cell_ends and time.monotonic() > self.cell_ends and not self.stopped:
                self.stop("timeout")
            if self.patience_ends and time.monotonic() > self.patience_ends:
                self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.kernel_pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.kernel_pid, number)  # the kernel leads a session of its own
