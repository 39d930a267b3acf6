"""Surprise of Titans' memory: the network learns in context, and novelties are counted as they should be."""

import numpy as np
import pytest
import torch

from tests.data.series import daily
from workbench.data.waves import CYCLE, planted, waves
from workbench.experiments import surprise
from workbench.training.fit import FitParams

FEW = FitParams(steps=6, batch=8, lr=1e-2, evaluate_every=3)


@pytest.fixture(scope="module")
def model():
    return surprise.train(waves(64, 24, seed=0), FEW, width=8, seed=0, label="waves")[0]


def test_spotting_scores_every_way_over_the_cycles_behind_the_calm(model):
    series = planted(3, spans=2, calm=4, seed=1)
    found = surprise.spot(model, series, calm=4)
    assert found.odd.shape == (3, series.odd.shape[1] // CYCLE - 4)
    assert found.odd.sum(1).tolist() == [6, 6, 6]
    for name, score in found.scores.items():
        assert score.shape == found.odd.shape, name
        assert ((found.precision[name] >= 0) & (found.precision[name] <= 1)).all()
    assert found.trace.error < 1e-5


def test_the_trace_holds_the_lengths_that_the_share_is_made_of(model):
    trace, _ = surprise.look(model, planted(2, spans=1, seed=0).values)
    value = torch.from_numpy(trace.read(f"{surprise.CELL}.value")).norm(dim=-1).numpy()
    np.testing.assert_allclose(
        surprise.share_wrong(trace)[:, None] * value, trace.read("surprise"), rtol=1e-5, atol=1e-7
    )
    assert surprise.share_wrong(trace)[:, 0] == pytest.approx(1.0, abs=1e-5), "an empty memory gets nothing right"


def test_a_forecast_is_made_before_its_value_is_seen(model):
    x = planted(1, spans=1, seed=0).values
    changed = x.clone()
    changed[:, 20:] += 1
    _, ahead = surprise.look(model, x)
    _, other = surprise.look(model, changed)
    assert torch.equal(ahead[:, :21], other[:, :21])
    assert not torch.equal(ahead[:, 21:], other[:, 21:])


def test_training_gets_below_what_a_network_without_memory_can():
    """Values of a wave are independent: what stands before them tells no more than their mean."""
    rows = waves(256, 32, seed=0)
    _, result = surprise.train(
        rows, FEW.model_copy(update={"steps": 80, "evaluate_every": 20, "batch": 32}), width=16, seed=0, label="waves"
    )
    assert result.best_valid < 0.95 * float(rows[:25].var())


def test_the_rule_that_knows_the_cycle_sees_the_change_and_not_the_stretch():
    series = planted(4, spans=3, cycles=3, noise=0.0, seed=3)
    x = series.values
    before = torch.cat([x[:, :CYCLE], x[:, :-CYCLE]], 1)
    change = surprise.cycles((x - before).abs().numpy(), CYCLE) > 0
    odd = surprise.cycles(series.odd.numpy().astype(float), CYCLE) > 0
    switched = np.concatenate([np.zeros_like(odd[:, :1]), odd[:, 1:] != odd[:, :-1]], 1)
    assert (change == switched).all()


def test_precision_counts_the_odd_among_the_highest():
    odd = np.array([[True, True, False, False], [False, False, False, True]])
    assert surprise.precision(np.array([[4.0, 3, 2, 1], [1, 2, 3, 4]]), odd).tolist() == [1, 1]
    assert surprise.precision(np.array([[4.0, 1, 3, 2], [4, 3, 2, 1]]), odd).tolist() == [0.5, 0]
    chance = np.random.default_rng(0).random((4000, 12))
    guessed = surprise.precision(chance, np.tile(np.arange(12) < 3, (4000, 1)))
    assert guessed.mean() == pytest.approx(0.25, abs=0.02)


def test_scores_are_lined_up_at_the_first_cycle_of_each_stretch():
    odd = np.zeros((1, 12), bool)
    odd[0, [0, 3, 4, 5, 10]] = True
    assert surprise.around(np.arange(12.0)[None], odd, 2, 4).tolist() == [[1, 2, 3, 4, 5, 6]]


def test_hours_explain_all_of_a_clock_and_little_of_noise():
    times = np.datetime64("2024-05-01T00:00") + np.arange(24 * 60) * np.timedelta64(1, "h")
    clock = np.sin(np.arange(len(times)) % 24)
    assert surprise.hours_share(clock, times) == pytest.approx(1)
    assert surprise.hours_share(np.random.default_rng(0).standard_normal(len(times)), times) < 0.05


def test_traffic_keeps_training_before_the_stretch_and_touches_no_gap():
    series = daily(days=30, noise=1.0, channels=3)
    series.values[:] += 20
    series.values[100] = np.nan
    series.values[600, 0] = np.nan
    rows, held_out, times, busiest = surprise.traffic(series, 24)
    assert rows.shape[1] == 25
    assert not torch.isnan(rows).any()
    assert not torch.isnan(held_out).any()
    assert times[0] >= series.times[int(0.7 * len(series.times))]
    assert len(times) == held_out.shape[1]
    column = series.values[np.isin(series.times, times), busiest]
    assert np.corrcoef(column, held_out[0])[0, 1] == pytest.approx(1)


def test_quiet_data_are_refused():
    with pytest.raises(ValueError, match="no channel with a mean of 5 or more"):
        surprise.traffic(daily(days=20, values=0.1 + 0.01 * np.sin(np.arange(480))), 24)


def test_the_longest_stretch():
    assert surprise.longest(np.array([1, 0, 1, 1, 1, 0, 1, 1]) == 1) == (2, 5)
    assert surprise.longest(np.array([True, True])) == (0, 2)
