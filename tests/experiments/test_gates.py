"""What did each gate learn? The whole question on the smallest scale, and its words."""

import numpy as np
import pytest

from workbench.experiments import forecast, gates, latch
from workbench.experiments.compare import Paired
from workbench.experiments.gates import Params, Reading
from workbench.runs.folder import Run


def reading(**changes: object) -> Reading:
    errors = dict.fromkeys(("as it learned", "input gate held at its mean"), 0.1)
    errors |= dict.fromkeys(("forget gate held at its mean", "both held at their means"), 0.5)
    plain = Reading("head 0", 0, errors, [0.1], 7.0, 0.99, 0.98, 0.02, 0.6, 0.1)
    return plain._replace(**changes)


def test_run_answers_for_both_cells_and_for_traffic(tmp_path):
    run = Run.create("gates", root=tmp_path)
    result = gates.run(Params.smoke(), run)
    assert len(result.scores) == 2 * 6
    assert all(np.isfinite(row["error"]) for row in result.scores.values())
    assert sum(sentence.startswith("Traffic") for sentence in result.findings) == 6
    assert {record["label"] for record in run.metrics()} == {
        *(f"{net}, seed {seed}" for net in ("sLSTM", "mLSTM") for seed in range(2)),
        "xLSTM",
    }


def test_a_learned_latch_is_read_as_one():
    params = Params(window=32, gap=8.0, width=8, heads=2, steps=200)
    model, found = gates.learn_latch("mLSTM", params, 0)
    assert model.network == "mLSTM"
    assert found.errors["as it learned"] < 0.3 < found.errors["input gate held at its mean"]
    assert found.errors["input gate held at its mean"] <= 1.5
    assert found.told_apart_before == pytest.approx(0.5, abs=0.01)
    assert found.opening > 1 > found.opening_before
    assert max(found.masked) > found.errors["as it learned"]


def test_traffic_gates_are_held_one_kind_at_a_time(tmp_path):
    params = Params.smoke()
    _series, parts, model = gates.traffic(params)
    assert len(parts.test) <= gates.WINDOWS
    trace = gates.traffic_trace(model, parts, most=16)
    parts = parts._replace(test=parts.test.thin(32))
    answers = gates.forecasts_held_still(model, parts, trace)
    assert next(iter(answers)) == "as it learned"
    assert len(answers) == 6
    assert all(answer.shape == (32, 16, 3) for answer in answers.values())
    free = answers["as it learned"]
    assert all(not np.array_equal(free, answer) for name, answer in answers.items() if name == "all gates held")
    assert np.array_equal(free, forecast.predict(model, parts.test))  # nothing is left behind
    costs = gates.cost_of_holding(parts, answers, 96)
    assert [mae for mae, _ in costs.values()] == sorted(mae for mae, _ in costs.values())


def test_fresh_gates_have_not_drifted_and_trained_ones_have():
    params = Params.smoke()
    _, parts, model = gates.traffic(params)
    fresh = gates.traffic_trace(forecast.build("xLSTM", parts, forecast.Params()), parts, most=8)
    same = gates.movement(fresh, fresh)
    assert all(moved.drift == 0 for moved in same.values())
    assert all(moved.drift > 0 for moved in gates.movement(gates.traffic_trace(model, parts, most=8), fresh).values())
    assert np.isnan(same["sLSTM input"].half_life)
    assert same["mLSTM forget"].half_life > 10  # its biases begin between 3 and 6


def test_words_carry_the_median_of_the_networks():
    found = [reading(opening=opening) for opening in (np.log(10), np.log(100), np.log(1000))]
    said = gates.latch_findings({"sLSTM": found})
    assert said[0].startswith("sLSTM: error 0.1000 of chance (median of 3); with the input gate held at its mean 0.10")
    assert "opens its input gate 100 times at marks; its forget gate is 0.980 elsewhere and 0.020 at marks" in said[1]
    said = gates.traffic_findings({"all gates held": (12.0, Paired(2.0, 1.0, 3.0, 22))}, 10.0, "vehicles")
    assert said[0] == "Traffic: mean absolute error 10.00 vehicles as it learned."
    assert "all gates held: 12.00 (+20.0%), worse; 95 % interval of the difference 1.00 ... 3.00" in said[1]


def test_an_interrupted_training_stops_the_experiment(monkeypatch):
    monkeypatch.setattr("workbench.training.fit.update", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt, match="sLSTM, seed 0, was interrupted"):
        gates.learn_latch("sLSTM", Params.smoke(), 0)


def test_presets_are_valid_and_differ():
    assert Params.smoke() != Params() != Params.paper()
    assert issubclass(Params, latch.Params)
