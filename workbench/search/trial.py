"""One trial: its parameters, a run for each of its seeds, and whether it is worth going on."""

import errno
import os
import shutil
import statistics
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import optuna
from optuna.trial import TrialState

from workbench.experiments.running import run_experiment
from workbench.runs.folder import Run
from workbench.runs.params import build
from workbench.runs.status import Status
from workbench.search.objectives import value_of
from workbench.search.settings import Settings, Stopping
from workbench.search.space import suggest
from workbench.search.trials import LOST, RETRY_OF, WHY, Trials

SEEDS, SPREAD, RUNS, INFEASIBLE = "seeds", "spread", "runs", "infeasible"


class Pruned(RuntimeError):  # noqa: N818 - the name of the run's status
    """A trial is ended early, because others did better."""


class Lost(RuntimeError):  # noqa: N818
    """A trial was given to another worker, because this one was silent for too long."""


def run_trial(trials: Trials, trial: optuna.Trial, root: Path) -> str:
    """Run a trial to its end, tell the storage, and return what became of it: complete, pruned, failed or given back.

    Args:
        trials: of the study.
        trial: leased to this worker.
        root: folder of the run folders.

    Raises:
        KeyboardInterrupt: it was interrupted; the trial waits again.
    """
    settings, study = trials.settings, trials.study()
    experiment = import_module(settings.experiment)
    try:
        values = suggest(trial, settings.space, settings.base)
        try:
            build(experiment.Params, values)
        except ValueError as error:
            return _tell(trials, trial, TrialState.PRUNED, why=str(error), infeasible=True)
        with trials.beating(trial) as lost:
            judge = Judge(trials, study, trial, lost)
            try:
                found = [_run_seed(judge, experiment, values, place, root) for place in range(len(settings.seeds))]
            except Pruned as error:
                return _tell(trials, trial, TrialState.PRUNED, why=str(error))
        means = [statistics.fmean(each) for each in zip(*found, strict=True)]
        return _tell(trials, trial, TrialState.COMPLETE, means)
    except KeyboardInterrupt:
        trials.give_back(trial, "its worker was told to end")
        raise
    except (Lost, optuna.exceptions.UpdateFinishedTrialError):
        return "given back"
    except OSError:  # a full disk is not the trial's fault
        with suppress(OSError):  # the journal may be on it: then the trial falls silent
            trials.give_back(trial, "its worker cannot write")
        raise
    except RunFailed as error:
        return _tell(trials, trial, TrialState.FAIL, why=str(error))


class RunFailed(RuntimeError):  # noqa: N818
    """The experiment ended with an error."""


class Judge:
    """Hears of a training's losses, tells the pruner, and ends a trial that is not worth going on.

    Losses are reported on one axis over all trainings of a trial: the steps of those before, and those of this one.
    """

    def __init__(self, trials: Trials, study: optuna.Study, trial: optuna.Trial, lost) -> None:
        self.trials, self.study, self.trial, self.lost = trials, study, trial, lost
        self.settings: Settings = trials.settings
        self.before, self.step, self.best, self.label = 0, 0, float("inf"), None
        self.run: Run | None = None
        self.per_seed = self.settings.pruner.name == "wilcoxon"

    def __call__(self, record: Mapping[str, object]) -> None:
        """One look at the validation data.

        Raises:
            Pruned: the trial is not worth going on.
            Lost: it is another worker's now.
        """
        if self.lost.is_set():
            raise Lost
        loss, step = record.get("valid_loss"), record.get("step")
        if not isinstance(loss, (int, float)) or not isinstance(step, int):
            return
        if record.get("label") != self.label or step < self.step:
            self.before, self.label, self.best = self.before + self.step, record.get("label"), float("inf")
        self.step, self.best = step, min(self.best, loss)
        if not self.per_seed and all(one.is_error for one in self.settings.objectives[:1]):
            self.report(self.best, self.before + step)

    def report(self, value: float, at: int) -> None:
        """Tell the pruner, or ours where Optuna's refuse.

        Raises:
            Pruned: it says that the trial is not worth going on.
        """
        if len(self.settings.objectives) == 1:
            self.trial.report(value, at)
            if self.trial.should_prune():
                raise Pruned(f"{self.settings.pruner.name} at step {at}: {value:.4g}")
            return
        self.trials.storage.set_trial_user_attr(self.trial._trial_id, f"at {at}", value)
        if self.settings.pruner.name == "none":
            return
        costs = [self._known(place) for place in range(1, len(self.settings.objectives))]
        if better := dominating(self.trials, value, at, costs, self.settings.stopping):
            raise Pruned(f"at step {at}, trials {', '.join(map(str, better))} are better in every objective")

    def _known(self, place: int) -> float | None:
        """An objective that the run knows already, such as its number of parameters."""
        try:
            return value_of(self.settings.objectives[place], self.run.outputs())
        except ValueError:
            return None


def dominating(trials: Trials, value: float, at: int, costs: list[float | None], rule: Stopping) -> list[int]:
    """Numbers of complete trials that are better in every objective, if they are enough to stop a trial; else none.

    Optuna stops no trial of several objectives early. This rule compares the error at the same step, and the other
    objectives as far as the trial knows them: one that it does not know yet keeps it alive.

    Args:
        trials: of the study.
        value, at: error of the trial at a step.
        costs: its other objectives, None where not known yet.
        rule: how many it takes.
    """
    complete = [one for one in trials.all() if one.state == TrialState.COMPLETE]
    if len(complete) < rule.after or None in costs:
        return []
    signs = [1 if one.direction == "minimize" else -1 for one in trials.settings.objectives[1:]]
    better = [
        one.number
        for one in complete
        if one.user_attrs.get(f"at {at}", float("inf")) < value
        and all(sign * own <= sign * mine for sign, own, mine in zip(signs, one.values[1:], costs, strict=True))
    ]
    return better if len(better) >= rule.dominated_by else []


def _run_seed(judge: Judge, experiment: object, values: dict, place: int, root: Path) -> list[float]:
    """Run one seed, and return the objectives; a retry takes over what an earlier attempt has finished.

    Raises:
        RunFailed: the experiment ended with an error.
        Pruned, KeyboardInterrupt: the trial ended early.
    """
    settings, trial = judge.settings, judge.trial
    seed = settings.seeds[place]
    params = build(experiment.Params, values | ({"seed": seed} if "seed" in experiment.Params.model_fields else {}))
    name = run_name(judge.trials.name, settings.name, trial.number, seed)
    old = _earlier(judge.trials, trial, root, seed)
    run = judge.run = Run.create(name, folder=root / name, params=params)
    run.amend(study=settings.name, trial=trial.number)
    if old is not None:
        unfinished = shutil.ignore_patterns("*.part", ".*")  # a worker that only seemed gone may still write
        shutil.copytree(old.checkpoints, run.checkpoints, ignore=unfinished, dirs_exist_ok=True)
        run.amend(resumed_from=old.name)
    run.listeners.append(judge)
    status = run_experiment(experiment, params, run)
    found = _ended(judge, run, status)
    attrs = trials_attrs(judge.trials, trial)
    seeds = {**attrs.get(SEEDS, {}), str(seed): found[0]}
    judge.trials.storage.set_trial_user_attr(trial._trial_id, SEEDS, seeds)
    judge.trials.storage.set_trial_user_attr(trial._trial_id, RUNS, [*attrs.get(RUNS, []), name])
    if judge.per_seed:
        judge.report(found[0], place)
    return found


def _ended(judge: Judge, run: Run, status: Status) -> list[float]:
    """The objectives of a run that ended ok; else what its end means for the trial."""
    if status.state == "ok":
        try:
            return [value_of(objective, run.outputs()) for objective in judge.settings.objectives]
        except ValueError as error:
            raise RunFailed(str(error)) from None
    if judge.lost.is_set():
        raise Lost
    if status.state == "interrupted":
        raise KeyboardInterrupt
    said = f"{status.error.name}: {status.error.value}" if status.error else status.state
    if status.state in ("pruned", "diverged"):
        raise Pruned(said.removeprefix("Pruned: "))
    if any(os.strerror(number) in said for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)):
        raise OSError(f"{run.path}: {said}")
    raise RunFailed(said)


def run_name(study: str, name: str, number: int, seed: int) -> str:
    """The name of a run folder; those of the winner's fresh seeds are told apart."""
    return f"{'fresh' if study != name else 'trial'}-{number:05d}-seed-{seed}"


def trials_attrs(trials: Trials, trial: optuna.Trial) -> dict[str, object]:
    """The attributes of a trial, as the storage has them."""
    return trials.storage.get_trial(trial._trial_id).user_attrs


def _earlier(trials: Trials, trial: optuna.Trial, root: Path, seed: int) -> Run | None:
    """The newest earlier attempt at the same seed that left checkpoints where this worker can read them."""
    number = trials_attrs(trials, trial).get(RETRY_OF)
    while number is not None:
        place = root / run_name(trials.name, trials.settings.name, number, seed)
        if (place / "run.json").is_file() and any(place.glob("checkpoints/*")):
            return Run.open(place)
        one = trials.storage.get_trial(trials.storage.get_trial_id_from_study_id_trial_number(trials.id, number))
        number = one.user_attrs.get(RETRY_OF)
    return None


def _tell(
    trials: Trials,
    trial: optuna.Trial,
    state: TrialState,
    values: list[float] | None = None,
    *,
    why: str = "",
    infeasible: bool = False,
) -> str:
    """Write down what became of a trial."""
    storage, identity = trials.storage, trial._trial_id
    if why:
        storage.set_trial_user_attr(identity, WHY, why)
    if infeasible:
        storage.set_trial_user_attr(identity, INFEASIBLE, True)
    seeds = list(trials_attrs(trials, trial).get(SEEDS, {}).values())
    if len(seeds) > 1:
        storage.set_trial_user_attr(identity, SPREAD, statistics.stdev(seeds))
    try:
        trials.study().tell(trial, values, state=state)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        now = storage.get_trial(identity)
        if not now.state.is_finished():
            raise
        if now.user_attrs.get(LOST):
            return "given back"
    return {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}[state]
