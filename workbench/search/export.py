"""A study as files that need neither Optuna nor this package: written after every trial, each file whole."""

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path

from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from workbench.experiments.compare import student_95
from workbench.runs.files import now, write_bytes, write_json
from workbench.runs.lock import held
from workbench.search.settings import Settings, read_settings
from workbench.search.space import as_choice, put
from workbench.search.storage import FRESH
from workbench.search.trial import INFEASIBLE, RUNS, SEEDS, SPREAD
from workbench.search.trials import ATTEMPT, BEAT, RETRY_OF, WHY, WORKER, first_retries, is_first

TRIALS, SUMMARY, BEST = "trials.jsonl", "summary.csv", "best.json"
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}
_STATES |= {TrialState.FAIL: "failed", TrialState.WAITING: "waiting"}


def export(storage: BaseStorage, folder: Path) -> None:
    """Write `trials.jsonl`, `summary.csv` and `best.json`, one process at a time."""
    folder = Path(folder)
    settings = read_settings(folder)
    with held(folder / "export.lock", wait=True):
        records = records_of(storage, settings.name)
        fresh = records_of(storage, settings.name + FRESH)
        lines = "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in records)
        write_bytes(folder / TRIALS, lines.encode())
        write_bytes(folder / SUMMARY, summary(records, settings).encode())
        if (best := best_of(records, fresh, settings)) is not None:
            write_json(folder / BEST, best)


def records_of(storage: BaseStorage, name: str) -> list[dict]:
    """Every attempt at every trial, as in `trials.jsonl`; empty where there is no such study."""
    try:
        trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
    except KeyError:
        return []
    first = first_retries(trials)
    return [record(one) for one in trials if is_first(one, first)]


def record(trial: FrozenTrial) -> dict:
    """One trial as JSON: what Optuna knows, and what this package adds."""
    attrs = trial.user_attrs
    when = {"started": trial.datetime_start, "ended": trial.datetime_complete}
    steps = {key.removeprefix("at "): value for key, value in attrs.items() if key.startswith("at ")}
    own = {SEEDS, SPREAD, RUNS, INFEASIBLE, ATTEMPT, RETRY_OF, WHY, WORKER, BEAT, *(f"at {step}" for step in steps)}
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "values": _finite(trial.values) if trial.state == TrialState.COMPLETE else None,
        "params": trial.params,
        "distributions": {name: json.loads(distribution_to_json(one)) for name, one in trial.distributions.items()},
        "intermediate": {str(step): _finite([value])[0] for step, value in trial.intermediate_values.items()} | steps,
        "constraints": {"feasible": 1.0} if attrs.get(INFEASIBLE) else {},
        "user_attrs": {key: value for key, value in attrs.items() if key not in own},
        "seeds": attrs.get(SEEDS, {}),
        "spread": attrs.get(SPREAD),
        "worker": attrs.get(WORKER),
        "attempt": attrs.get(ATTEMPT, 1),
        "retry_of": attrs.get(RETRY_OF),
        **{name: None if time is None else time.astimezone(UTC).isoformat() for name, time in when.items()},
        "runs": attrs.get(RUNS, []),
        "why": attrs.get(WHY),
    }


def summary(records: list[dict], settings: Settings) -> str:
    """One row for each trial, for people and spreadsheets."""
    names, wanted = list(settings.space), [one.name for one in settings.objectives]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["number", "state", *wanted, *names, "spread", "worker", "started", "ended", "why"])
    for one in records:
        values = one["values"] or [None] * len(wanted)
        params = [one["params"].get(name) for name in names]
        tail = [one[key] for key in ("spread", "worker", "started", "ended", "why")]
        writer.writerow([one["number"], one["state"], *values, *params, *tail])
    return table.getvalue()


def best_of(records: list[dict], fresh: list[dict], settings: Settings) -> dict | None:
    """What `best.json` says: the winner with fresh seeds where they are done; before that, the best so far."""
    done = ranked(records, settings)
    if not done:
        return None
    if len(settings.objectives) > 1:
        again = {
            json.dumps(one["params"], sort_keys=True): one["values"] for one in fresh if one["state"] == "complete"
        }
        front = [_member(one, again, settings) for one in pareto(done, settings)]
        how = "no other trial is better in one objective and as good in all others"
        return {"pareto": front, "chosen": how, "made": now()}
    complete = ranked(fresh, settings)
    if not complete or any(one["state"] in ("waiting", "running") for one in fresh):
        best = done[0]
        how = f"the {_end(settings)} mean over the seeds {_listed(settings.seeds)}; not run again with fresh seeds yet"
        return {**_said(best, settings), "trial": best["number"], "chosen": how, "made": now()}
    best = complete[0]
    before = next(one for one in done if one["params"] == best["params"])
    how = (
        f"the {_end(settings)} mean over the fresh seeds {_listed(settings.fresh_seeds)} among the {len(complete)} "
        f"best of {len(done)} complete trials; with the seeds of the search it was {before['values'][0]:.6g}"
    )
    said = {"searched": before["values"], "searched_best": done[0]["values"]}
    return {**_said(best, settings), "trial": before["number"], "chosen": how, **said, "made": now()}


def ranked(records: list[dict], settings: Settings) -> list[dict]:
    """The complete trials, the best in the first objective first."""
    sign = 1 if settings.objectives[0].direction == "minimize" else -1
    complete = [one for one in records if one["state"] == "complete" and None not in one["values"]]
    return sorted(complete, key=lambda one: sign * one["values"][0])


def pareto(records: list[dict], settings: Settings) -> list[dict]:
    """The trials that no other dominates."""
    signs = [1 if one.direction == "minimize" else -1 for one in settings.objectives]
    points = [[sign * value for sign, value in zip(signs, one["values"], strict=True)] for one in records]

    def beaten(mine: list[float]) -> bool:
        return any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in points)

    return [one for one, mine in zip(records, points, strict=True) if not beaten(mine)]


def loadable(params: Mapping[str, object], settings: Settings) -> dict[str, object]:
    """All parameters of a trial: `Params.model_validate` takes them."""
    values = json.loads(json.dumps(settings.plain()["base"]))
    for name, value in params.items():
        choices = settings.space[name].choices
        put(values, name, value if choices is None else next(one for one in choices if as_choice(one) == value))
    return values


def _member(one: dict, again: dict[str, list[float]], settings: Settings) -> dict:
    said = {"trial": one["number"], "params": loadable(one["params"], settings), "values": one["values"]}
    fresh = again.get(json.dumps(one["params"], sort_keys=True))
    return said | ({} if fresh is None else {"fresh": fresh})


def _said(one: dict, settings: Settings) -> dict:
    values = list(one["seeds"].values())
    mean, half = statistics.fmean(values), None
    if len(values) > 1:
        half = student_95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    interval = None if half is None else [mean - half, mean + half]
    params = loadable(one["params"], settings)
    return {"params": params, "values": one["values"], "interval": interval, "seeds": one["seeds"], "runs": one["runs"]}


def _end(settings: Settings) -> str:
    return "smallest" if settings.objectives[0].direction == "minimize" else "largest"


def _listed(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds))


def _finite(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
