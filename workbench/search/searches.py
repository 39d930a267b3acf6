"""A search: a study in its folder, its workers as processes, and the winner run again with fresh seeds."""

import math
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from workbench.experiments.running import profile
from workbench.runs.files import now, read_json, write_bytes, write_json
from workbench.runs.lock import held
from workbench.runs.params import build
from workbench.runs.provenance import environment
from workbench.search.export import export, pareto, ranked, records_of
from workbench.search.layout import points
from workbench.search.methods import PRUNERS, SAMPLERS, choose, settings_of
from workbench.search.objectives import Objective
from workbench.search.settings import STUDY, Method, Settings, Stopping, kept_settings, read_settings, same_search
from workbench.search.space import space_of
from workbench.search.storage import FRESH, open_storage, redacted, report_damage
from workbench.search.trials import Trials
from workbench.search.worker import TIME_IS_UP, in_child, open_trials

STOP, META, WORKERS = "stop", "run_meta.json", "workers"
_EVERY_SECONDS = 0.5


def settings_for(
    experiment: ModuleType,
    *,
    name: str,
    objectives: tuple[Objective, ...] = (Objective(name="valid"),),
    base: Mapping[str, object] | None = None,
    size: str = "default",
    space: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    fresh_seeds: tuple[int, ...] | None = None,
    top: int = 3,
    sampler: tuple[str, Mapping] = ("auto", {}),
    pruner: tuple[str, Mapping] = ("median", {}),
    stopping: Stopping | None = None,
    trials: int = 50,
    seed: int = 0,
    lease_seconds: float = 60.0,
) -> Settings:
    """The settings of a search, every one of them explicit.

    Args:
        experiment, name: what is searched, and the name of the study.
        objectives: what is made small or large.
        base, size: parameters that are not searched, as far as they differ from smoke, default or paper.
        space: see `space_of`.
        seeds, fresh_seeds: of each trial, and of the winner; None takes as many that no trial has seen.
        top: how many trials are run again with fresh seeds.
        sampler, pruner: name and settings; "auto" chooses a sampler for so many trials.
        stopping, seed, lease_seconds: see `Settings`.

    Raises:
        ValueError: an unknown name, or settings that do not go together.
    """
    fresh = tuple(max(seeds) + 1_000 + place for place in range(len(seeds))) if fresh_seeds is None else fresh_seeds
    if len(set(seeds)) < len(seeds) or not seeds or set(seeds) & set(fresh):
        raise ValueError(f"seeds {seeds} and fresh seeds {fresh}: each once, at least one, and none in both.")
    params = build(experiment.Params, profile(experiment, size).model_dump() | dict(base or {}))
    searched = space_of(experiment.Params, space)
    if given := sorted(set(base or ()) & searched.keys()):
        raise ValueError(f"{', '.join(given)}: set and searched; leave one out, or name with --space what is searched.")
    chosen = choose(sampler[0], searched, trials, len(objectives))
    if pruner[0] != "none" and len(objectives) == 1 and not objectives[0].is_error and pruner[0] != "wilcoxon":
        raise ValueError(
            f"the pruner {pruner[0]} looks at validation losses, and {objectives[0].name} is none; take none."
        )
    return Settings(
        name=name,
        experiment=experiment.__name__,
        objectives=objectives,
        base=params.model_dump(mode="json"),
        space=searched,
        seeds=seeds,
        fresh_seeds=fresh,
        top=top,
        sampler=Method(name=chosen, settings=settings_of(SAMPLERS, chosen, sampler[1])),
        pruner=Method(name=pruner[0], settings=settings_of(PRUNERS, pruner[0], pruner[1])),
        stopping=stopping or Stopping(),
        seed=seed,
        lease_seconds=lease_seconds,
    )


class Search:
    """A study and its folder.

    Args:
        settings: of the search; None reads those of the folder, or of the study of its name in the database.
        folder: of the study.
        url: of a database; None keeps the trials in the folder.

    Raises:
        ValueError: the folder, or the database, holds a study with other settings.
    """

    def __init__(self, settings: Settings | None, folder: Path, url: str | None = None) -> None:
        self.folder, self.url = Path(folder), url
        self.storage: BaseStorage | None = None
        if (self.folder / STUDY).is_file():
            before = read_settings(self.folder)
            if settings is not None:
                same_search(before, settings)
            settings = before
        if settings is None and url is not None:
            self.storage = open_storage(url)
            settings = kept_settings(self.storage, self.folder.name)
        if settings is None:
            there = "" if url is None else f", and the database has no study {self.folder.name}"
            raise ValueError(f"{folder} is no study: it has no {STUDY}{there}.")
        self.settings = settings

    def open(self) -> Trials:
        """The study in its storage, made where it is not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "runs").mkdir(exist_ok=True)
        self.storage = self.storage or open_storage(self.url or self.folder)
        identity = self._create(self.settings.name)
        if (kept := kept_settings(self.storage, self.settings.name)) is None:
            self.storage.set_study_user_attr(identity, "settings", self.settings.plain())
        else:
            same_search(kept, self.settings)
        if not (self.folder / STUDY).is_file():
            place = "journal.log" if self.url is None else redacted(self.url)
            facts = {"format": 1, **self.settings.plain(), "storage": place, "created": now()}
            made = environment()
            versions = {**made["versions"], "optuna": optuna.__version__}
            write_json(self.folder / STUDY, {**facts, **made, "versions": versions})
        return open_trials(self.storage, self.settings, self.settings.name)

    def run(
        self,
        trials: int,
        workers: int = 1,
        watch: Callable[["Search", bool], None] = lambda search, over: None,
        timeout_seconds: float = math.inf,
    ) -> dict:
        """Run trials until so many are done, and the best again with fresh seeds; return what `best.json` says.

        Ctrl-C stops the workers; the same call goes on. When this process is killed, its workers go on by themselves.

        Args:
            trials: how many the study is to have in the end; a grid that is smaller ends with its last point.
            workers: processes on this machine; others may join with `workbench search worker`.
            watch: called twice a second, and once more when it is over.
            timeout_seconds: after which no trial is begun; the best are run again nevertheless.

        Raises:
            ValueError: another process runs this search, or every trial failed.
        """
        study = self.open()
        (self.folder / STOP).unlink(missing_ok=True)
        with held(self.folder / "search.lock") as free:
            if free is None:
                raise ValueError(
                    f"this search is running already; join it with `workbench search worker {self.folder}`."
                )
            begun = time.monotonic()
            state = "interrupted"
            self._add(study, trials)
            self._note(trials, workers, begun, "running")
            try:
                self._work(workers, watch, begun + timeout_seconds)
                if not (self.folder / STOP).exists() or (self.folder / STOP).read_text() == TIME_IS_UP:
                    self._again(workers, watch)
                state = "stopped" if (self.folder / STOP).exists() else "finished"
            finally:
                export(self.storage, self.folder)
                self._note(trials, workers, begun, state)
            watch(self, True)
        if not (self.folder / "best.json").is_file():
            why = next((f", trial {one['number']} because of {one['why']}" for one in self.records() if one["why"]), "")
            raise ValueError(f"no trial was complete{why}; all are in {self.folder / 'trials.jsonl'}.")
        return read_json(self.folder / "best.json")

    def records(self, *, fresh: bool = False) -> list[dict]:
        """Every trial, as in `trials.jsonl`; or those of the best with fresh seeds."""
        storage = self.storage or open_storage(self.url or self.folder)
        return records_of(storage, self.settings.name + (FRESH if fresh else ""))

    def damage(self) -> list[str]:
        """Damaged lines of the journal, which were left out and are kept in `journal.damaged`."""
        return report_damage(self.storage, self.folder)

    def _add(self, study: Trials, trials: int) -> None:
        """Let trials wait until there are so many, and say so in `study.json`."""
        known, laid_out = len(study.all()), points(self.settings, trials)
        if laid_out is None:
            study.add(max(trials - known, 0))
        else:
            study.add(len(laid_out[known:]), laid_out[known:])
        write_json(self.folder / STUDY, {**read_json(self.folder / STUDY), "trials": trials})

    def _create(self, name: str) -> int:
        directions = [one.direction for one in self.settings.objectives]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        made = optuna.create_study(storage=self.storage, study_name=name, directions=directions, load_if_exists=True)
        return made._study_id

    def _again(self, workers: int, watch: Callable[["Search", bool], None]) -> None:
        """Run the best with fresh seeds."""
        records = records_of(self.storage, self.settings.name)
        best = ranked(records, self.settings)
        best = pareto(best, self.settings) if len(self.settings.objectives) > 1 else best
        chosen, seen = [], []
        for one in best:
            if one["params"] not in seen and len(chosen) < self.settings.top:
                seen.append(one["params"])
                chosen.append(one["params"])
        self._create(self.settings.name + FRESH)
        again = open_trials(self.storage, self.settings, self.settings.name + FRESH)
        known = [one.system_attrs.get("fixed_params") or one.params for one in again.all()]
        new = [params for params in chosen if params not in known]
        again.add(len(new), new)
        if any(one.state in (TrialState.WAITING, TrialState.RUNNING) for one in again.all()):
            self._work(workers, watch)

    def _work(self, workers: int, watch: Callable[["Search", bool], None], until: float = math.inf) -> None:
        (self.folder / WORKERS).mkdir(exist_ok=True)
        children: list[subprocess.Popen] = []
        with _stopping(children):
            children += [self._worker(number) for number in range(workers)]
            while any(child.poll() is None for child in children):
                watch(self, False)
                time.sleep(_EVERY_SECONDS)
                for number, child in enumerate(children):  # killed, perhaps for want of memory: another takes its place
                    if child.poll() is not None and child.returncode < 0:
                        children[number] = self._worker(number)
                if time.monotonic() > until and not (self.folder / STOP).exists():
                    write_bytes(self.folder / STOP, TIME_IS_UP.encode())
        if all(child.returncode for child in children):
            said = (self.folder / WORKERS / "0.log").read_text(errors="replace").strip().splitlines()[-6:]
            raise ValueError("every worker ended with an error:\n" + "\n".join(said))

    def _worker(self, number: int) -> subprocess.Popen:
        command, surroundings = in_child(self.folder, number, self.url)
        with open(self.folder / WORKERS / f"{number}.log", "ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=surroundings, start_new_session=True,
            )  # fmt: skip

    def _note(self, trials: int, workers: int, begun: float, state: str) -> None:
        seconds = round(time.monotonic() - begun, 1)
        facts = {"state": state, "trials": trials, "workers": workers, "seconds": seconds, "damaged": self.damage()}
        write_json(self.folder / META, {**facts, "updated": now(), **environment()})


@contextmanager
def _stopping(children: list[subprocess.Popen]) -> Iterator[None]:
    """However the block ends, the workers end: asked first, killed when they do not answer."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    old = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    finally:
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30.0
        for child in children:
            try:
                child.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if main:
            signal.signal(signal.SIGTERM, old)
