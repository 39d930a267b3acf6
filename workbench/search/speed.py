"""How many trials a search does in a minute, and how many it loses when its workers are killed."""

import os
import random
import secrets
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated

from workbench.experiments.catalogue import find
from workbench.experiments.result import Result
from workbench.runs.folder import Run
from workbench.runs.params import Params as BaseParams
from workbench.runs.params import Search as Range
from workbench.search.searches import Search, settings_for

_LEASE_SECONDS = 3.0


class Params(BaseParams):
    """Parameters of an experiment that takes no time but what it is told to."""

    x: Annotated[float, Range(-1.0, 1.0)] = 0.0
    pause: float = 0.0
    seed: int = 0


def run(params: Params, run: Run) -> Result:
    """The height of a parabola."""
    time.sleep(params.pause)
    return Result(__name__, params.model_dump(), "1", {}, valid={"parabola": params.x**2})


@dataclass(frozen=True)
class Row:
    """One search: where its trials were kept, how fast it was, how many workers were killed and trials lost."""

    storage: str
    workers: int
    trials: int
    trials_per_minute: float
    kills: int = 0
    lost: int = 0


def measure(trials: int, workers: Iterable[int], kills: int, url: str | None = None) -> Iterator[Row]:
    """Search with so many workers, on a journal and, with a URL, on a database; then kill workers and count.

    Args:
        trials: of each search.
        workers: numbers of workers.
        kills: workers that are killed in the middle of a trial, of the largest number.
        url: of a PostgreSQL database, which keeps the studies; their names are new each time.
    """
    counts = list(workers)
    for place in (None, url) if url else (None,):
        for count in counts:
            yield _row(trials, count, 0, place)
        if kills:
            yield _row(trials, max(counts), kills, place)


def _row(trials: int, workers: int, kills: int, url: str | None) -> Row:
    experiment: ModuleType = find(__name__)
    with tempfile.TemporaryDirectory(prefix="wb-search-") as root:
        name = f"speed-{secrets.token_hex(4)}"
        settings = settings_for(
            experiment, name=name, base={"pause": 0.5 if kills else 0.0}, seeds=(0,), top=0,
            sampler=("random", {}), pruner=("none", {}), lease_seconds=_LEASE_SECONDS if kills else 60.0,
        )  # fmt: skip
        search, killer = Search(settings, Path(root) / name, url), Killer(kills)
        search.run(trials, workers, killer)
        records = search.records()
    done = [one for one in records if one["state"] in ("complete", "pruned")]
    times = [datetime.fromisoformat(one[end]) for one in done for end in ("started", "ended")]
    minutes = (max(times) - min(times)).total_seconds() / 60
    place = "journal" if url is None else "PostgreSQL"
    return Row(place, workers, trials, round(len(done) / minutes, 1), killer.killed, trials - len(done))


class Killer:
    """Kills workers of a search that runs here, each in the middle of a trial that nobody has lost before."""

    def __init__(self, kills: int) -> None:
        self.left, self.killed, self.rng, self.dead = kills, 0, random.Random(0), set()

    def __call__(self, search: Search, over: bool) -> None:
        """Kill one, if there is one to kill."""
        if over or not self.left:
            return
        running = [one for one in search.records() if one["state"] == "running" and one["attempt"] == 1]
        pids = {int(one["worker"].rpartition(":")[2]) for one in running if one["worker"]} - self.dead
        if pids:
            pid = self.rng.choice(sorted(pids))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.left, self.killed, self.dead = self.left - 1, self.killed + 1, self.dead | {pid}
