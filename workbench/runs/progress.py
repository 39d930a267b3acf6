"""Progress of a long loop: into the run's events when headless, a bar where a person looks."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.runs.current import current_run, is_headless

_EVERY_SECONDS = 0.5


class _EventBar:
    """Progress as events of the run, at most twice a second."""

    def __init__(self, total: int, label: str):
        self.run, self.total, self.label = current_run(), total, label
        self.done, self.shown = 0, {}
        self.began = time.monotonic()
        self.written = (-1.0, -1)  # seconds, done

    def update(self, n: int = 1, **shown: object) -> None:
        self.done += n
        self.shown |= shown
        if time.monotonic() - self.began - self.written[0] >= _EVERY_SECONDS:
            self._write()

    def close(self) -> None:
        if self.written[1] != self.done:
            self._write()

    def _write(self) -> None:
        seconds = time.monotonic() - self.began
        left = seconds / self.done * (self.total - self.done) if self.done else None
        self.written = (seconds, self.done)
        fields = {"label": self.label, "done": self.done, "total": self.total}
        times = {"seconds": round(seconds, 1), "seconds_left": None if left is None else round(left, 1)}
        self.run.event("progress", **(self.shown | fields | times))


class _ScreenBar:
    """Progress as a tqdm bar: a widget in a live notebook, a line in a terminal."""

    def __init__(self, bar: object):
        self.bar = bar

    def update(self, n: int = 1, **shown: object) -> None:
        if shown:
            self.bar.set_postfix(shown, refresh=False)
        self.bar.update(n)

    def close(self) -> None:
        self.bar.close()


class _SilentBar:
    """No progress to see: nobody looks."""

    def update(self, n: int = 1, **shown: object) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def progress(total: int, label: str, unit: str = "step") -> Iterator[_EventBar | _ScreenBar | _SilentBar]:
    """A bar for `total` units of work: `with progress(100, "Train") as bar: bar.update(1, loss=0.3)`.

    Headless it writes events, at most two a second; a live notebook shows a widget, a terminal one line on
    standard error; without either it is silent.
    """
    bar = _bar(total, label, unit)
    try:
        yield bar
    finally:
        bar.close()


def _bar(total: int, label: str, unit: str) -> _EventBar | _ScreenBar | _SilentBar:
    if is_headless():
        return _EventBar(total, label)
    if in_live_notebook():
        from tqdm.auto import tqdm

        return _ScreenBar(tqdm(total=total, desc=label, unit=unit))
    if sys.stderr.isatty():
        from tqdm import tqdm

        return _ScreenBar(tqdm(total=total, desc=label, unit=unit, file=sys.stderr))
    return _SilentBar()


def in_live_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"
