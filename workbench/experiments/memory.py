"""What does a matrix memory hold? Pairs that kernels store, novelties that surprise, lists that networks learned."""

import time
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from workbench.data.recall import Lists
from workbench.data.waves import planted, waves
from workbench.experiments import pairs, recall, surprise
from workbench.experiments.result import Result
from workbench.models.language import LanguageModel
from workbench.runs.folder import Run
from workbench.runs.params import Params as BaseParams
from workbench.runs.params import Search
from workbench.training.fit import FitParams

Count = Annotated[int, Field(ge=1)]
WAVES = 8192  # to learn from
NEW = 1_000  # added to the seed: series that no network has seen
WINDOW = 96  # steps of a training row: of a wave, or a day of traffic
CALM = 8  # cycles before the first novelty, in which the memory gets to know the wave


class Params(BaseParams):
    """Parameters of the three parts: pairs, surprise, lists.

    Attributes:
        size: of keys and values, K = V, in all three parts.
        loads: numbers of pairs that are written.
        sets: independent sets of pairs.
        passes: how often the list is gone through where it is written more than once.
        wave_networks: networks that learn waves, each with a seed of its own.
        wave_steps: updates of each.
        series: series with planted novelties.
        traffic_steps: updates on the traffic counts.
        pairs: pairs of a list that the networks learn.
        many: pairs of a list that is longer than what they learned.
        lists: lists of each length that are looked at.
        list_rows: lists to learn from.
        list_steps: updates of each of the two lessons.
        lr: step size.
        seed: of everything.
    """

    size: Annotated[int, Field(ge=4, le=256), Search(choices=(16, 32, 64))] = 32
    loads: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
    sets: Annotated[int, Field(ge=2)] = 64
    passes: Count = 8
    wave_networks: Annotated[int, Field(ge=2)] = 3
    wave_steps: Count = 400
    series: Annotated[int, Field(ge=2)] = 16
    traffic_steps: Count = 200
    pairs: Annotated[int, Field(ge=2, le=recall.KEYS), Search(4, 24)] = 12
    many: Annotated[int, Field(ge=2, le=recall.KEYS)] = 48
    lists: Annotated[int, Field(ge=2)] = 64
    list_rows: Annotated[int, Field(ge=64)] = 8192
    list_steps: Count = 500
    lr: Annotated[float, Field(gt=0, le=1), Search(1e-3, 3e-2, log=True)] = 0.01
    seed: Annotated[int, Field(ge=0, lt=2**20)] = 0

    @classmethod
    def smoke(cls) -> "Params":
        """Seconds: enough to see that everything runs."""
        few = {"loads": (1, 2, 4, 8, 16, 32), "sets": 16, "series": 4, "lists": 4, "many": 10, "pairs": 5}
        return cls(size=8, wave_networks=2, wave_steps=4, traffic_steps=4, list_rows=64, list_steps=4, **few)

    @classmethod
    def paper(cls) -> "Params":
        """More sets, networks and updates, for an hour."""
        longer = {"wave_steps": 2000, "traffic_steps": 2000, "list_steps": 4000, "lr": 3e-3}
        return cls(size=64, sets=512, wave_networks=10, series=64, pairs=24, many=64, list_rows=65536, **longer)

    @model_validator(mode="after")
    def _loads_rise(self) -> "Params":
        if len(self.loads) < 2 or sorted(set(self.loads)) != list(self.loads) or self.loads[0] < 1:
            raise ValueError(f"loads={self.loads} must be two or more numbers of pairs, each larger than the last")
        return self

    def fit(self, steps: int, batch: int) -> FitParams:
        """How a network of one of the parts is trained."""
        look = max(1, steps // 4)
        return FitParams(steps=steps, batch=batch, lr=self.lr, evaluate_every=look)


def store(params: Params) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Squared errors of recall for each number of pairs: measured, name to (S, X), and expected, name to (X,)."""
    loads, how = list(params.loads), {"size": params.size, "sets": params.sets, "seed": params.seed}
    measured = {name: pairs.over_loads(name, loads, **how) for name in ("outer product", "mLSTM", "delta rule")}
    measured[f"delta rule, {params.passes} passes"] = pairs.over_loads("delta rule", loads, **how, passes=params.passes)
    expected = {
        "outer product": [pairs.outer_theory(load, pairs.overlap(params.size)).mean() for load in loads],
        "delta rule": [pairs.delta_theory(load, params.size).mean() for load in loads],
        "best matrix": [pairs.least_error(load, params.size) for load in loads],
    }
    return measured, {name: np.array(line) for name, line in expected.items()}


def overfull(params: Params, keep: float = 0.9) -> tuple[list[int], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A memory that is full four times over: ages (X,), and errors by age, measured (S, X) and expected (X,).

    Args:
        params: of the experiment.
        keep: share that the outer product keeps where it forgets.
    """
    count, ages = 4 * params.size, [age for age in (0, 1, 2, 4, 8, 16, 32, 64) if age < 4 * params.size]
    overlap = pairs.overlap(params.size)
    rules = {
        "outer product": ("outer product", 1.0, pairs.outer_theory(count, overlap)),
        f"outer product, keep {keep:g}": ("outer product", keep, pairs.outer_theory(count, overlap, keep=keep)),
        "delta rule": ("delta rule", 1.0, pairs.delta_theory(count, params.size)),
    }
    how = {"size": params.size, "pairs": count, "sets": 4 * params.sets, "seed": params.seed}
    measured = {name: pairs.over_ages(rule, **how, keep=kept)[:, ages] for name, (rule, kept, _) in rules.items()}
    return ages, measured, {name: theory[ages] for name, (_, _, theory) in rules.items()}


def at_capacity(params: Params) -> dict[str, dict[str, float]]:
    """Squared errors with as many pairs as the matrix has rows: how they were written, and its "full" error."""
    measured, _ = store(params.model_copy(update={"loads": (1, params.size)}))
    return {name: {"full": float(errors[:, 1].mean())} for name, errors in measured.items()}


def learn_waves(params: Params, which: int, run: Run | None = None) -> surprise.NextStep:
    """One of the networks that learn waves."""
    how = {"width": params.size, "seed": params.seed + which, "label": f"waves-{which}", "run": run}
    rows = waves(WAVES, WINDOW, seed=params.seed)
    return surprise.train(rows, params.fit(params.wave_steps, 32), **how)[0]


def learn_lists(params: Params, network: recall.Network, run: Run | None = None) -> LanguageModel:
    """One of the networks that learn lists."""
    how = {"size": params.size, "pairs": params.pairs, "rows": params.list_rows, "seed": params.seed, "run": run}
    return recall.train(network, params.fit(params.list_steps, 64), **how)


def examine(model: LanguageModel, params: Params, length: int) -> dict[str, float]:
    """What a network and its memory know of fresh lists of a length."""
    lists = Lists(params.lists, length, keys=recall.KEYS, values=recall.VALUES, seed=params.seed + 99)
    trace, right = recall.look(model, lists)
    behind = int(np.abs(recall.reading(trace, lists)).argmax())
    return {
        "answered": float(right.mean()),
        "held": float(recall.by_age(trace, lists, behind).mean()),
        "written behind the key": float(behind),
        "overlap of keys": recall.key_overlap(trace, length, behind),
        "query and key": recall.question_fit(trace, lists, behind),
    }


def findings(params: Params, scores: dict[str, dict[str, float]]) -> list[str]:
    """What the numbers say, in sentences."""
    full = f"{params.size} pairs in {params.size} x {params.size}"
    said = [
        f"{full}, written once: squared error {scores['outer product']['full']:.2f} by the outer product, "
        f"{scores['delta rule']['full']:.2f} by the delta rule; an empty memory has 1, the best matrix 0.",
    ]
    found = {name: row["precision"] for name, row in scores.items() if "precision" in row}
    chance = found.pop("chance")
    said += [
        f"Planted cycles found, at a chance of {chance:.2f}: " + ", ".join(f"{k} {v:.2f}" for k, v in found.items())
    ]
    for network in recall.Network.__args__:
        short, long = scores[network], scores[f"{network}, {params.many} pairs"]
        said.append(
            f"{network}: of {params.pairs} pairs, {short['held']:.0%} are in the memory and {short['answered']:.0%} "
            f"answered; of {params.many}, {long['held']:.0%} and {long['answered']:.0%}."
        )
    return said


def run(params: Params, run: Run | None = None) -> Result:
    """Answer the question once: store, surprise, read."""
    begin = time.monotonic()
    scores = at_capacity(params)
    series, each = planted(params.series, calm=CALM, seed=params.seed + NEW), []
    for which in range(params.wave_networks):
        spotted = surprise.spot(learn_waves(params, which, run), series, CALM)
        each.append(spotted.precision | {"chance": spotted.odd.mean(1)})
    for name in each[0]:
        scores[name] = {"precision": float(np.mean([found[name].mean() for found in each]))}
    for network in recall.Network.__args__:
        model = learn_lists(params, network, run)
        scores[network] = examine(model, params, params.pairs)
        scores[f"{network}, {params.many} pairs"] = examine(model, params, params.many)
    return Result(
        experiment=__name__,
        params=params.model_dump(mode="json"),
        unit="see each score",
        scores=scores,
        findings=findings(params, scores),
        seconds=time.monotonic() - begin,
    )
