"""A worker: takes trials that wait, one after the other, until none is left; any number of them, on any machine."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.trial import TrialState

from workbench.search.export import export
from workbench.search.methods import PRUNERS, SAMPLERS, make_pruner, make_sampler, settings_of
from workbench.search.settings import Method, Settings
from workbench.search.storage import FRESH
from workbench.search.trial import run_trial
from workbench.search.trials import Trials

TIME_IS_UP = "time is up"
_EVERY_SECONDS = 1.0
BEGUN = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def work(
    storage: BaseStorage,
    settings: Settings,
    folder: Path,
    *,
    number: int = 0,
    say: Callable[[str], None] = print,
    stop: Path | None = None,
) -> int:
    """Run trials until all are done, also those that other workers leave behind; return how many this one ran.

    Args:
        storage: of the study.
        settings: of the search.
        folder: of the study; run folders are in `runs/`, and checkpoints of other workers where the folder is shared.
        number: of this worker, for its own stream of random numbers.
        say: told of each trial.
        stop: once this file is there, no other trial is taken; says it that time is up, those of fresh seeds are.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the trial waits again.
    """
    done = 0
    for name in (settings.name, settings.name + FRESH):
        unless = TIME_IS_UP if name != settings.name else None
        if (trials := open_trials(storage, settings, name, number)) is not None:
            done += _work(trials, folder, say, lambda unless=unless: _is_over(stop, unless))
    return done


def open_trials(storage: BaseStorage, settings: Settings, name: str, number: int = 0) -> Trials | None:
    """The trials of a study, or of its fresh seeds; None where the study has none yet."""
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return None
    if name != settings.name:  # these parameters, other seeds, to the end
        methods = {
            "sampler": Method(name="random", settings=settings_of(SAMPLERS, "random", {})),
            "pruner": Method(name="none", settings=settings_of(PRUNERS, "none", {})),
        }
        settings = settings.model_copy(update={"seeds": settings.fresh_seeds, **methods})
    begun = len(storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False, states=BEGUN))
    seed = (settings.seed * 1_000_003 + number * 7_919 + begun) % 2**31  # a stream for each worker, and each beginning
    sampler = make_sampler(settings.sampler.name, settings.sampler.settings, seed)
    pruner = make_pruner(settings.pruner.name, settings.pruner.settings)
    return Trials(storage, name, settings, sampler, pruner, seed)


def _is_over(stop: Path | None, unless: str | None) -> bool:
    return stop is not None and stop.exists() and stop.read_text().strip() != unless


def _work(trials: Trials, folder: Path, say: Callable[[str], None], over: Callable[[], bool]) -> int:
    done = 0
    while not over():
        for sentence in trials.reclaim():
            say(sentence)
        trial = trials.take()
        if trial is None:
            if not any(one.state == TrialState.RUNNING for one in trials.all()):
                return done
            time.sleep(_EVERY_SECONDS)
            continue
        begin = time.monotonic()
        end = run_trial(trials, trial, folder / "runs")
        done += end in ("complete", "pruned", "failed")
        say(f"trial {trial.number}: {end} after {time.monotonic() - begin:.1f} s")
        export(trials.storage, folder)
    return done


def in_child(folder: Path, number: int, storage: str | None) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a worker process; the URL, which may hold a password, is no argument."""
    command = [sys.executable, "-m", "workbench", "search", "worker", str(folder), "--number", str(number)]
    inherited = {name: value for name, value in os.environ.items() if name != "WORKBENCH_STORAGE"}
    return command, inherited | ({"WORKBENCH_STORAGE": storage} if storage else {})
