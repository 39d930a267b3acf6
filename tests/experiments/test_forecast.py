"""The forecast experiment: every step of it, on the smallest scale, and its words."""

import numpy as np
import pytest
import torch

from tests.data.series import daily
from workbench.experiments import forecast
from workbench.experiments.compare import blocks_of, paired, student_95
from workbench.experiments.forecast import Params
from workbench.runs.folder import Run
from workbench.runs.params import build
from workbench.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def parts():
    return forecast.prepare(daily(days=60, noise=1.0, channels=6), Params.smoke())


def test_run_scores_five_forecasters(tmp_path):
    run = Run.create("test", root=tmp_path)
    result = forecast.run(Params.smoke(), run)
    assert set(result.scores) == {"LSTM", "xLSTM", "ridge", "seasonal naive", "last value"}
    errors = [row["mae"] for row in result.scores.values()]
    assert errors == sorted(errors)
    assert all(np.isfinite(errors))
    assert result.findings[0].startswith(next(iter(result.scores)))
    assert {record["label"] for record in run.metrics()} == {"LSTM", "xLSTM"}
    assert (run.checkpoints / "xLSTM" / "model" / "checkpoint.json").is_file()


def test_same_seed_same_numbers(parts):
    params = Params.smoke()
    errors = []
    for seed in (0, 0, 1):
        model, _ = forecast.train("xLSTM", parts, params.model_copy(update={"seed": seed}))
        errors.append(forecast.evaluate(parts, {"xLSTM": forecast.predict(model, parts.test)})["xLSTM"]["mae"])
    assert errors[0] == errors[1] != errors[2]


def test_a_trained_network_beats_a_fresh_one(parts):
    params = Params.smoke().model_copy(update={"steps": 60, "evaluate_every": 20})
    for network in ("LSTM", "xLSTM"):
        fresh = forecast.build(network, parts, params)
        trained, _ = forecast.train(network, parts, params)
        table = forecast.evaluate(
            parts, {"fresh": forecast.predict(fresh, parts.test), "trained": forecast.predict(trained, parts.test)}
        )
        assert table["trained"]["mae"] < 0.9 * table["fresh"]["mae"]


def test_a_perfect_forecast_wins_and_is_said_to(parts):
    truth = parts.test.unscale(forecast.everything(parts.test).target)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    forecasts = {"bad": truth + 2 * noise, "perfect": truth, "good": truth + noise}
    assert list(forecast.evaluate(parts, forecasts)) == ["perfect", "good", "bad"]
    said = forecast.findings(parts, forecasts, "units", 1.0)
    assert said[0] == "perfect has the smallest mean absolute error: 0.00 units."
    assert said[1].startswith("Against good (0.80) it is better: 100.0% less error")


def test_equal_forecasts_are_not_told_apart(parts):
    truth = parts.test.unscale(forecast.everything(parts.test).target)
    g = torch.Generator().manual_seed(0)
    a, b = (truth + torch.randn(truth.shape, generator=g) for _ in range(2))
    assert forecast.compare(parts, {"a": a, "b": b}, "a", "b", 24).verdict == "not distinguishable"
    assert forecast.compare(parts, {"a": a, "b": a + 3}, "a", "b", 24).verdict == "better"
    assert forecast.compare(parts, {"a": a + 3, "b": a}, "a", "b", 24).verdict == "worse"


def test_blocks_are_channels_or_days(parts):
    assert len(blocks_of(parts.test, 24).unique()) == 6
    alone = forecast.prepare(daily(days=60), Params.smoke()).test
    assert (blocks_of(alone, 24).unique(return_counts=True)[1] <= 72).all()
    assert len(blocks_of(alone, 24).unique()) >= 3


@pytest.mark.parametrize("step_hours", [1, 24])
def test_equal_forecasters_are_rarely_told_apart(step_hours):
    """Nominally 5 % of the verdicts on two forecasters that differ by chance alone are wrong."""
    params = Params(window=24, horizon=8)
    parts = forecast.prepare(daily(days=90 * step_hours, noise=1.0, step_hours=step_hours), params)
    truth = parts.test.unscale(forecast.everything(parts.test).target)
    steps = int(parts.test.index[:, 0].max()) + params.horizon + 1
    ahead = parts.test.index[:, :1] + torch.arange(params.horizon)
    wrong = 0
    for seed in range(100):
        errors = torch.randn(2, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        forecasts = {name: truth + errors[k][ahead] for k, name in enumerate("ab")}
        wrong += forecast.compare(parts, forecasts, "a", "b", max(24 // step_hours, 1)).verdict != "not distinguishable"
    assert wrong <= 14  # 5 are expected; were the errors of single windows counted, it would be most of them


def test_an_interrupted_training_stops_the_experiment(tmp_path, monkeypatch):
    run = Run.create("test", root=tmp_path)
    calls = iter(range(100))

    def interrupt(*arguments):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return 0.5, 0.1

    monkeypatch.setattr("workbench.training.fit.update", interrupt)
    with pytest.raises(KeyboardInterrupt, match="LSTM was interrupted at step 5; its checkpoint is kept"):
        forecast.run(Params.smoke(), run)
    _, card = load_checkpoint(run.checkpoints / "LSTM" / "model")
    assert card["extra"]["end"] == "interrupted"
    assert len(card["extra"]["scaler"]["mean"]) == 22


def test_the_season_is_chosen_on_validation_windows():
    """In the validation part yesterday is nearer than last week, in the test part the other way round."""
    t = np.arange(24 * 200)
    valid = (t >= 140 * 24) & (t < 170 * 24)
    level = np.where(valid, 0.002 * (t - 140 * 24), np.sin(2 * np.pi * t / 168))
    values = np.sin(2 * np.pi * t / 24) + level
    parts = forecast.prepare(daily(values=values), Params(window=24, horizon=4))
    made = forecast.baselines(parts)["seasonal naive"]
    batch = forecast.everything(parts.test)
    day, week = (parts.test.unscale(batch.known[..., k]) for k in (-2, -1))
    truth = parts.test.unscale(batch.target)
    assert (week - truth).abs().mean() < (day - truth).abs().mean()
    assert torch.equal(made, day)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"slstm_at": (5,)}, r"slstm_at holds \[5\], and layers=2 leaves blocks 0 to 1"),
        ({"xlstm_width": 30}, "xlstm_width=30 is not a multiple of heads=4"),
        ({"data": "my.csv"}, "data, time and target go together"),
        ({"target": "count"}, "data, time and target go together"),
    ],
)
def test_parameters_that_cannot_be_built_are_refused_at_once(values, says):
    with pytest.raises(ValueError, match=says):
        build(Params, values)


def test_one_block_proves_nothing():
    result = paired(torch.zeros(4, 2), torch.ones(4, 2), torch.zeros(4))
    assert (result.blocks, result.verdict) == (1, "not distinguishable")


@pytest.mark.parametrize(
    ("freedom", "table"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042)]
)
def test_students_t_is_the_tables(freedom, table):
    assert student_95(freedom) == pytest.approx(table, rel=0.01)


def test_baselines_without_a_season_leave_it_out():
    series = daily(values=np.sin(np.arange(400.0)), step_hours=1000)
    parts = forecast.prepare(series, Params.smoke())
    assert set(forecast.baselines(parts)) == {"last value", "ridge"}


def test_liveliest_window_is_the_one_that_changes_most(parts):
    row = forecast.liveliest(parts.test, 2)
    pasts = parts.test[torch.nonzero(parts.test.index[:, 1] == 2)[:, 0]].past[..., 0]
    past = parts.test[row].past[..., 0]
    assert float(past.max() - past.min()) == max(float(one.max() - one.min()) for one in pasts)
    assert int(parts.test.index[row, 1]) == 2


def test_presets_are_valid_and_differ():
    assert Params.smoke() != Params() != Params.paper()
    assert Params().fit_params().steps == 360
