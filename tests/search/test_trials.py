"""What becomes of one trial: its seeds, early stopping for one objective and for several, and retries."""

import errno
import os
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.search import toy
from workbench.search.export import pareto
from workbench.search.objectives import parse
from workbench.search.searches import Search, settings_for
from workbench.search.settings import Stopping
from workbench.search.trial import dominating, run_trial
from workbench.search.trials import MAX_RETRIES, Trials


def a_study(folder: Path, params: list[dict] | None = None, **changes: object) -> tuple[Search, Trials]:
    base = {"space": ("lr",), "seeds": (0, 1), "pruner": ("none", {}), "sampler": ("random", {})} | changes
    search = Search(settings_for(toy, name="study", **base), folder / "study")
    study = search.open()
    study.add(len(params or []), params)
    return search, study


def run_all(study: Trials, search: Search) -> list[dict]:
    while (trial := study.take()) is not None:
        run_trial(study, trial, search.folder / "runs")
    return search.records()


def test_a_trial_is_the_mean_over_its_seeds_each_with_a_run_of_its_own(tmp_path):
    search, study = a_study(tmp_path, [{"lr": 0.1}])
    (one,) = run_all(study, search)
    assert one["state"] == "complete"
    assert one["runs"] == ["trial-00000-seed-0", "trial-00000-seed-1"]
    low, high = sorted(one["seeds"].values())
    assert one["values"] == [pytest.approx((low + high) / 2)]
    assert one["spread"] == pytest.approx((high - low) / 2**0.5)
    assert list(one["intermediate"]) == ["10", "20", "30", "40", "50", "60", "70", "80"], "one axis over both seeds"


def test_parameters_that_do_not_go_together_are_infeasible_and_nothing_else(tmp_path):
    search, study = a_study(tmp_path, [{"batch": 13}, {"batch": 8}], space=("batch",))
    bad, good = run_all(study, search)
    assert (bad["state"], bad["constraints"], bad["runs"]) == ("pruned", {"feasible": 1.0}, [])
    assert "batch=13 brings bad luck" in bad["why"]
    assert (good["state"], good["constraints"]) == ("complete", {})


def test_an_experiment_that_fails_fails_its_trial_with_the_reason(tmp_path):
    search, study = a_study(tmp_path, [{"fail": "no luck"}], space=("fail=no luck|worse",))
    (one,) = run_all(study, search)
    assert (one["state"], one["why"]) == ("failed", "RuntimeError: no luck")
    assert len(study.all()) == 1, "it is not tried again"


def test_the_median_pruner_ends_a_hopeless_trial_at_its_first_look(tmp_path):
    good, bad = {"lr": 0.3}, {"lr": 1e-4}
    pruner = ("median", {"n_startup_trials": 3})
    search, study = a_study(tmp_path, [good, good, good, bad], pruner=pruner)
    *_, last = run_all(study, search)
    assert (last["state"], list(last["intermediate"])) == ("pruned", ["10"])
    assert last["why"].startswith("median at step 10: ")
    status = (search.folder / "runs" / "trial-00003-seed-0" / "status.json").read_text()
    assert '"state": "pruned"' in status


def test_the_wilcoxon_pruner_compares_seed_by_seed(tmp_path):
    good, bad = {"lr": 0.3}, {"lr": 1e-4}
    search, study = a_study(tmp_path, [good, bad], seeds=tuple(range(8)), pruner=("wilcoxon", {}))
    first, last = run_all(study, search)
    assert list(first["intermediate"]) == [str(seed) for seed in range(8)]
    assert last["state"] == "pruned"
    assert 2 < len(last["seeds"]) < 8


def test_several_objectives_are_stopped_early_by_what_dominates_them(tmp_path):
    small, large, hopeless = ({"lr": lr, "width": w, "kind": "deep"} for lr, w in ((0.3, 2), (0.2, 8), (1e-4, 8)))
    objectives = (parse("valid"), parse("costs.line.parameters"))
    search, study = a_study(
        tmp_path, [small, large, {**small, "lr": 0.25}, hopeless, {**hopeless, "width": 2}],
        space=("lr", "kind", "width"), objectives=objectives, pruner=("median", {}),
        stopping=Stopping(after=3, dominated_by=2),
    )  # fmt: skip
    records = run_all(study, search)
    assert [one["state"] for one in records] == ["complete", "complete", "complete", "pruned", "pruned"]
    assert "are better in every objective" in records[3]["why"]
    assert records[0]["values"][1] < records[1]["values"][1]
    assert {one["number"] for one in pareto(records[:3], search.settings)} <= {0, 1, 2}


def test_a_trial_that_may_still_win_by_its_cost_is_not_stopped(tmp_path):
    objectives = (parse("valid"), parse("costs.line.parameters"))
    _, study = a_study(tmp_path, objectives=objectives)
    for number, (error, cost) in enumerate([(1.0, 30.0), (1.0, 20.0), (2.0, 10.0)]):
        study.add(1)
        trial = study.take()
        study.storage.set_trial_user_attr(trial._trial_id, "at 10", error + 0.5)
        study.study().tell(number, [error, cost])
    rule = Stopping(after=3, dominated_by=2)
    assert dominating(study, 3.0, 10, [25.0], rule) == [1, 2]
    assert dominating(study, 3.0, 10, [15.0], rule) == [], "one is not enough"
    assert dominating(study, 1.4, 10, [25.0], rule) == [], "at this step it is ahead"
    assert dominating(study, 3.0, 20, [25.0], rule) == [], "nobody was seen at this step"
    assert dominating(study, 3.0, 10, [None], rule) == [], "its cost is not known yet"


def test_a_trial_that_silences_worker_after_worker_fails_loudly(tmp_path):
    search, study = a_study(tmp_path, [{"lr": 0.1}], lease_seconds=0.001)
    said: list[str] = []
    for _ in range(MAX_RETRIES + 1):
        study.take()
        while not (found := study.reclaim()):
            pass
        said += found
    assert said[-1] == "TRIAL 2 FAILED: its worker fell silent in each of 3 attempts"
    assert [one["state"] for one in search.records()] == ["failed"] * 3
    assert len(study.all()) == 1
    assert study.take() is None


def test_a_reclaimer_that_dies_in_the_middle_leaves_the_rest_to_the_next(tmp_path):
    _, study = a_study(tmp_path, [{"lr": 0.1}])
    trial = study.take()
    study.storage.set_trial_user_attr(trial._trial_id, "lost", "silent")
    study.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)  # and died before it let it wait again
    assert len(study.all()) == 1  # a search that goes on adds none in its place
    assert len(study.reclaim()) == 1
    assert study.reclaim() == []
    (one,) = study.all()
    assert (one.user_attrs["retry_of"], one.user_attrs["attempt"]) == (0, 2)


def test_two_reclaimers_of_one_trial_leave_one_retry(tmp_path):
    search, study = a_study(tmp_path, [{"lr": 0.1}])
    study.take()
    lost = study.storage.get_all_trials(study.id)[0]
    study.storage.set_trial_user_attr(lost._trial_id, "lost", "silent")
    study.storage.set_trial_state_values(lost._trial_id, state=TrialState.FAIL)
    for _ in range(2):
        study._add_retry(study.storage.get_trial(lost._trial_id))
    assert study.take().number == 1
    assert study.take() is None
    assert len(study.all()) == 1
    assert [one["number"] for one in search.records()] == [0, 1]


def test_a_full_disk_ends_the_worker_and_not_the_trial(tmp_path, monkeypatch):
    search, study = a_study(tmp_path, [{"lr": 0.1}])

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(toy, "run", full)
        with pytest.raises(OSError, match="No space left"):
            run_trial(study, study.take(), search.folder / "runs")
    (waits,) = study.all()
    assert (waits.state, waits.user_attrs["attempt"]) == (TrialState.WAITING, 1)
    assert [one["state"] for one in run_all(study, search)] == ["failed", "complete"]


def test_optuna_alone_refuses_what_the_rule_of_dominance_is_for():
    study = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(NotImplementedError):
        study.ask().report(1.0, 1)
