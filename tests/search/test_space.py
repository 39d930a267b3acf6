"""Spaces come from annotations; what a person writes is checked; methods write all their settings down."""

import json
import math
from typing import Annotated

import optuna
import pytest
from pydantic import BaseModel

from tests.search import toy
from workbench.experiments import forecast
from workbench.runs.params import Params, Search
from workbench.search.layout import grid, quasi_random, values_of
from workbench.search.methods import PRUNERS, SAMPLERS, choose, make_pruner, make_sampler, parsed, settings_of
from workbench.search.objectives import Objective, parse, value_of
from workbench.search.space import Dimension, space_of, suggest


class Inner(BaseModel):
    size: Annotated[int, Search(2, 8, step=2)] = 4


class Nested(Params):
    inner: Inner = Inner()
    shape: Annotated[tuple[int, ...], Search(choices=((1,), (1, 2)))] = (1,)
    rate: float = 0.1


def test_a_space_has_every_annotation_and_conditions_come_after():
    space = space_of(toy.Params)
    assert list(space) == ["lr", "batch", "kind", "width"]
    assert (space["lr"].low, space["lr"].high, space["lr"].log, space["lr"].whole) == (1e-4, 1.0, True, False)
    assert space["batch"].whole
    assert list(space_of(toy.Params, ["width", "kind"])) == ["kind", "width"]


def test_a_condition_decides_what_is_suggested():
    space = space_of(toy.Params)
    plain = optuna.trial.FixedTrial({"lr": 0.5, "batch": 4, "kind": "plain"})
    assert suggest(plain, space, toy.Params().model_dump())["width"] == 4
    deep = optuna.trial.FixedTrial({"lr": 0.5, "batch": 4, "kind": "deep", "width": 7})
    assert suggest(deep, space, toy.Params().model_dump())["width"] == 7
    lstm = forecast.Params(networks=("LSTM",)).model_dump()
    trial = optuna.trial.FixedTrial({"lstm_width": 32, "layers": 2, "lr": 1e-3, "weight_decay": 1e-3})
    assert suggest(trial, space_of(forecast.Params), lstm)["xlstm_width"] == 32  # not asked for


def test_nested_parameters_and_choices_that_are_lists():
    space = space_of(Nested)
    trial = optuna.trial.FixedTrial({"inner.size": 6, "shape": "[1, 2]"})
    found = suggest(trial, space, Nested().model_dump())
    assert Nested.model_validate(found) == Nested(inner=Inner(size=6), shape=(1, 2))


def test_a_space_of_ones_own():
    space = space_of(Nested, ["rate=1e-3..1,log", "inner.size=1..9", "shape"])
    assert (space["rate"].low, space["rate"].log, space["inner.size"].whole) == (1e-3, True, True)
    assert space_of(toy.Params, ["kind=plain|deep"])["kind"].choices == ["plain", "deep"]


@pytest.mark.parametrize(
    ("only", "says"),
    [
        (["rat"], "did you mean 'rate'"),
        (["rate"], "has no space of its own; write rate=LOW..HIGH"),
        (["rate=1"], "is no space"),
        (["rate=2..1"], "is empty"),
        (["rate=0..1,log"], "range above 0"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(only, says):
    with pytest.raises(ValueError, match=says):
        space_of(Nested, only)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_writes_its_settings_down_and_searches(name):
    settings = settings_of(SAMPLERS, name, {})
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=make_sampler(name, settings, 7))
    for _ in range(12):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", -1.0, 1.0) ** 2 + trial.suggest_int("n", 1, 4))
    assert len(study.trials) == 12
    if name == "tpe":
        assert (settings["multivariate"], settings["group"], settings["n_ei_candidates"]) == (True, True, 24)


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_is_made_from_its_settings(name):
    settings = settings_of(PRUNERS, name, {})
    assert isinstance(make_pruner(name, settings), optuna.pruners.BasePruner)


def test_settings_that_a_person_gives_are_checked():
    assert parsed("tpe:n_startup_trials=3,multivariate=False") == (
        "tpe",
        {"n_startup_trials": 3, "multivariate": False},
    )
    assert settings_of(SAMPLERS, "tpe", {"n_startup_trials": 3})["n_startup_trials"] == 3
    with pytest.raises(ValueError, match="did you mean 'n_startup_trials'"):
        settings_of(SAMPLERS, "tpe", {"n_startup_trial": 3})
    with pytest.raises(ValueError, match="did you mean 'tpe'"):
        settings_of(SAMPLERS, "tpee", {})


def test_auto_follows_its_rule():
    ranges, mixed = {"x": Dimension(0, 1)}, {"x": Dimension(choices=["a", "b"])}
    assert [choose("auto", space, 50, 1) for space in (ranges, mixed)] == ["gp", "tpe"]
    assert [choose("auto", ranges, trials, count) for trials, count in ((500, 1), (50, 2), (500, 2), (500, 4))] == [
        "tpe",
        "tpe",
        "nsga2",
        "nsga3",
    ]


def test_a_grid_has_the_ends_of_each_range():
    assert values_of(Dimension(1e-4, 1.0, log=True), 5)[:2] == pytest.approx([1e-4, 1e-3])
    assert values_of(Dimension(1, 3, whole=True), 5) == [1, 2, 3]
    assert values_of(Dimension(0.0, 1.0, step=0.5), 5) == [0.0, 0.5, 1.0]
    assert values_of(Dimension(choices=["a", [1]]), 5) == ["a", [1]]


def test_a_grid_has_each_combination_once_and_conditional_parameters_only_where_they_count():
    space = space_of(toy.Params, ["kind", "width", "batch=2|4"])
    found = grid(space, toy.Params().model_dump(), 3)
    assert len(found) == len({json.dumps(one, sort_keys=True) for one in found}) == 2 * (1 + 3)
    assert all(("width" in one) == (one["kind"] == "deep") for one in found)


def test_quasi_random_points_fill_the_space_and_go_on_where_they_ended():
    space = space_of(toy.Params, ["lr", "kind", "batch"])
    found = quasi_random(space, 16, 3, kind="sobol", scramble=True)
    assert quasi_random(space, 32, 3, kind="sobol", scramble=True)[:16] == found
    assert sorted(int(math.log10(one["lr"])) for one in found) == [-3] * 4 + [-2] * 4 + [-1] * 4 + [0] * 4
    assert [one["kind"] for one in found].count("deep") == 8


def test_objectives_are_numbers_of_a_result_and_never_of_the_test_data():
    outputs = {"valid": {"a": 1.0, "b": 3.0}, "costs": {"a": {"parameters": 7}}}
    assert value_of(parse("valid"), outputs) == 2.0
    assert value_of(parse("costs.a.parameters"), outputs) == 7.0
    assert parse("valid.a:maximize") == Objective(name="valid.a", direction="maximize")
    with pytest.raises(ValueError, match="comes from the test data"):
        parse("scores.a.mae")
    with pytest.raises(ValueError, match="valid has no 'c'"):
        value_of(parse("valid.c"), outputs)
    with pytest.raises(ValueError, match="minimize or maximize"):
        parse("valid:up")
