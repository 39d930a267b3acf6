"""Trials as work to be done: a trial waits, is leased to a worker, and is done once, whatever happens to workers.

Every trial that was asked for is in the storage from the beginning, waiting, so that workers never have to agree on how
many are left. A worker that takes one moves its beat while it works. What no longer beats is failed, and waits again as
a retry; clocks of different machines are never compared.
"""

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from workbench.search.settings import Settings

MAX_RETRIES = 2
WORKER, SEED, BEAT = "worker", "sampler_seed", "beat"
ATTEMPT, RETRY_OF, LOST, WHY = "attempt", "retry_of", "lost", "why"
GONE = "its worker fell silent"


def worker_name() -> str:
    """Host and process of this worker."""
    return f"{platform.node()}:{os.getpid()}"


class Trials:
    """The trials of one study.

    Args:
        storage: where they are kept.
        name: of the study.
        settings: of the search.
        sampler, pruner, seed: of this worker, and the seed of its sampler.
    """

    def __init__(self, storage: BaseStorage, name: str, settings: Settings, sampler, pruner, seed: int) -> None:
        self.storage, self.name, self.settings = storage, name, settings
        self.sampler, self.pruner, self.seed = sampler, pruner, seed
        self.id = storage.get_study_id_from_name(name)
        self._seen: dict[int, tuple[object, float]] = {}  # trial: its beat, and for how long it has not moved
        self._looked: float | None = None

    def study(self) -> optuna.Study:
        """The study, as it is now."""
        return optuna.load_study(study_name=self.name, storage=self.storage, sampler=self.sampler, pruner=self.pruner)

    def all(self) -> list[FrozenTrial]:
        """Every trial that counts: failed attempts that have a retry, and retries that came twice, are left out."""
        trials = self.storage.get_all_trials(self.id, deepcopy=False)
        first = first_retries(trials)
        return [one for one in trials if one.number not in first and is_first(one, first)]

    def add(self, count: int, params: list[dict] | None = None) -> None:
        """Let so many more trials wait; with params, these."""
        for place in range(count):
            self._add_waiting({"fixed_params": params[place]} if params else {}, {})

    def take(self) -> optuna.Trial | None:
        """A trial that waited, now leased to this worker; None when none waits."""
        trials = self.storage.get_all_trials(self.id, deepcopy=False)
        first = first_retries(trials)
        for trial in trials:
            if trial.state != TrialState.WAITING:
                continue
            try:
                if not self.storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                    continue
                if not is_first(trial, first):  # two workers saw the same one fall silent
                    self.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
                    continue
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            try:
                self.storage.set_trial_user_attr(trial._trial_id, WORKER, worker_name())
                self.storage.set_trial_user_attr(trial._trial_id, SEED, self.seed)
                return optuna.trial.Trial(self.study(), trial._trial_id)
            except BaseException:
                self._retry(trial._trial_id, "its worker was told to end", counts=False)
                raise
        return None

    @contextmanager
    def beating(self, trial: optuna.Trial) -> Iterator[threading.Event]:
        """Move the beat of a trial while the block runs; the event is set when the trial was given to another."""
        over, lost = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._beat, args=(trial._trial_id, over, lost), name="lease", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            over.set()
            thread.join(5.0)

    def give_back(self, trial: optuna.Trial, why: str) -> None:
        """Let a trial of this worker wait again, at once; it does not count as an attempt."""
        self._retry(trial._trial_id, why, counts=False)

    def reclaim(self) -> list[str]:
        """Let trials wait again whose worker has fallen silent, or died while it handed one back; say which.

        A trial is silent when its beat has not moved for `lease_seconds` of the time during which this worker looked.
        One that has silenced worker after worker may be to blame, and fails.
        """
        trials = self.storage.get_all_trials(self.id, deepcopy=False)
        now, said = time.monotonic(), []
        looked = min(now - self._looked, self.settings.lease_seconds / 3) if self._looked is not None else 0.0
        self._looked = now
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        before, self._seen = self._seen, {}
        for trial in running:
            beat, still = before.get(trial.number, (None, 0.0))
            current = (trial.user_attrs.get(WORKER), trial.user_attrs.get(BEAT))
            self._seen[trial.number] = (current, still + looked if current == beat else 0.0)
            if self._seen[trial.number][1] > self.settings.lease_seconds:
                said += self._retry(trial._trial_id, GONE)
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        for trial in trials:
            if trial.state == TrialState.FAIL and trial.user_attrs.get(LOST) and trial.number not in retried:
                self._add_retry(trial)
                said.append(f"trial {trial.number} waits again: {trial.user_attrs.get(WHY)}")
        return said

    def _retry(self, identity: int, why: str, *, counts: bool = True) -> list[str]:
        trial = self.storage.get_trial(identity)
        attempt = trial.user_attrs.get(ATTEMPT, 1)
        try:
            if counts and attempt > MAX_RETRIES:
                why = f"{why} in each of {attempt} attempts"
                self.storage.set_trial_user_attr(identity, WHY, why)
                self.storage.set_trial_state_values(identity, state=TrialState.FAIL)
                return [f"TRIAL {trial.number} FAILED: {why}"]
            self.storage.set_trial_user_attr(identity, WHY, why)
            self.storage.set_trial_user_attr(identity, LOST, "silent" if counts else "given back")
            self.storage.set_trial_state_values(identity, state=TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:  # another was faster
            return []
        self._add_retry(self.storage.get_trial(identity))
        return [f"trial {trial.number} waits again: {why}"]

    def _add_retry(self, trial: FrozenTrial) -> None:
        attempt = trial.user_attrs.get(ATTEMPT, 1) + (trial.user_attrs.get(LOST) == "silent")
        fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        self._add_waiting({"fixed_params": fixed} if fixed else {}, {RETRY_OF: trial.number, ATTEMPT: attempt})

    def _add_waiting(self, system: dict, user: dict) -> None:
        template = create_trial(state=TrialState.WAITING, system_attrs=system, user_attrs=user)
        self.storage.create_new_trial(self.id, template_trial=template)

    def _beat(self, identity: int, over: threading.Event, lost: threading.Event) -> None:
        count = 0
        while not over.is_set():
            count += 1
            try:
                self.storage.set_trial_user_attr(identity, BEAT, count)
            except optuna.exceptions.UpdateFinishedTrialError:
                lost.set()
                return
            except Exception:  # a full disk or a broken database ends the trial where it reports, not here
                with suppress(Exception):
                    time.sleep(1.0)
            over.wait(self.settings.lease_seconds / 6)


def first_retries(trials: list[FrozenTrial]) -> dict[int, int]:
    """Number of each trial that has retries, and of the first of them."""
    first: dict[int, int] = {}
    for trial in trials:
        if (of := trial.user_attrs.get(RETRY_OF)) is not None:
            first.setdefault(of, trial.number)
    return first


def is_first(trial: FrozenTrial, first: dict[int, int]) -> bool:
    """Whether a trial is no retry, or the first retry of its trial."""
    of = trial.user_attrs.get(RETRY_OF)
    return of is None or first[of] == trial.number
