"""The pooling experiment: arms that differ in the readout alone, tasks that can be learned, and its words."""

import numpy as np
import pytest
import torch

from workbench.experiments import pooling
from workbench.experiments.pooling import READOUTS, Params
from workbench.runs.folder import Run
from workbench.runs.params import build
from workbench.trace.record import record

SMOKE = Params.smoke()


@pytest.fixture(scope="module")
def tasks():
    return {"marked": pooling.marked(SMOKE), "traffic": pooling.traffic(SMOKE)}


def test_run_scores_every_readout_on_both_tasks(tmp_path):
    run = Run.create("test", root=tmp_path)
    result = pooling.run(SMOKE, run)
    names = {f"{task}, {name}" for task in ("marked", "traffic") for name in READOUTS}
    assert set(result.scores) == names | {"marked, always 0", "traffic, last value"}
    errors = [row["mae"] for row in result.scores.values()]
    assert errors == sorted(errors)
    assert np.isfinite(errors).all()
    assert len(result.findings) == 2 * len(READOUTS)
    assert len({record["label"] for record in run.metrics()}) == 2 * len(READOUTS) * SMOKE.seeds


@pytest.mark.parametrize("task", ["marked", "traffic"])
def test_readouts_of_one_seed_start_from_the_same_network(tasks, task):
    models = {name: pooling.build(name, tasks[task], SMOKE, 3) for name in READOUTS}
    first = {name: x for name, x in models["last"].named_parameters() if not name.startswith("head.")}
    assert first
    for model in models.values():
        parameters = dict(model.named_parameters())
        assert all(torch.equal(x, parameters[name]) for name, x in first.items())
    other = pooling.build("last", tasks[task], SMOKE, 4)
    assert not torch.equal(models["last"].project.weight, other.project.weight)


@pytest.mark.parametrize("horizon", [1, 16])
def test_the_wide_mlp_has_as_many_parameters_as_attention(horizon):
    params = Params()
    sizes = {name: pooling.count(pooling.make_head(name, params, horizon)) for name in READOUTS}
    assert sizes["wide_mlp"] == pytest.approx(sizes["attention"], rel=0.01)
    assert sizes["mean"] == sizes["last"] < sizes["mean_mlp"] < sizes["attention"]


@pytest.mark.parametrize("network", ["mLSTM", "Gated DeltaNet"])
def test_attention_learns_the_mark_and_looks_at_it(network):
    """A clear share of its weight, where chance leaves one step of twelve."""
    params = Params(network=network, width=16, heads=2, window=12, steps=120, batch=32, windows=64, lr=1e-2)
    task = pooling.marked(params)
    model = pooling.train("attention", task, params, 0)
    assert float(pooling.errors([model], task).mean()) < 0.25 * task.naive
    batch = task.test[torch.arange(64)]
    with record(model, names=("*pooling_weights",)) as trace:
        model(batch.past, batch.known)
    assert pooling.near(trace.read("pooling_weights"), task.test.at[:64], 1).mean(0).max() > 0.5


def test_traffic_errors_are_those_of_the_counts(tasks):
    """A reader that says no change has the error of the last value, in vehicles."""
    task = tasks["traffic"]
    model = pooling.build("last", task, SMOKE, 0)
    for parameter in model.parameters():
        parameter.data.zero_()
    found = pooling.errors([model], task)
    windows = task.test.windows
    truth, past = (windows.unscale(x) for x in (windows[torch.arange(len(windows))].target, last_counts(windows)))
    assert float(found.mean()) == pytest.approx(float((truth - past).abs().mean()), rel=1e-5)
    assert task.naive == pytest.approx(float(found.mean()), rel=1e-5)
    assert len(task.blocks.unique()) == 22


def last_counts(windows):
    return windows[torch.arange(len(windows))].past[:, -1:, 0]


def test_no_training_window_is_seen_twice_on_the_marked_task(tasks):
    assert len(tasks["marked"].train) == SMOKE.steps * SMOKE.batch


def test_same_seed_same_errors(tasks):
    task = tasks["marked"]
    first, again, other = (pooling.errors([pooling.train("mean", task, SMOKE, seed)], task) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_words_say_who_leads_and_by_how_much(tasks):
    task = tasks["marked"]
    g = torch.Generator().manual_seed(0)
    found = {name: 1 + 0.01 * torch.rand(3, len(task.test), 1, generator=g) for name in READOUTS}
    found["attention"] -= 0.5
    found["last"] -= 0.9
    said = pooling.findings(found, task)
    assert said[0].startswith("marked: last has the smallest error, 0.105 sd of the value")
    assert said[1].startswith("marked: attention (0.505) against last (0.105) is worse: difference +0.4")
    assert "attention (0.505) against mean_mlp (1) is better: difference -0.5" in said[3]
    assert all(sentence.endswith("3 of 3 seeds agree in sign.") for sentence in said[1:])


def test_near_counts_the_mark_and_what_follows_within_reach():
    weights = np.array([[[0.0, 0.5, -0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]])
    at = torch.tensor([1])
    assert pooling.near(weights, at, 1).tolist() == [[0.5, 0.0]]
    assert pooling.near(weights, at, 2).tolist() == [[0.75, 0.0]]
    assert pooling.near(weights, at, 9).tolist() == [[1.0, 0.0]]


def test_effective_steps_run_from_one_to_all():
    weights = np.array([[0.25, -0.25, 0.25, 0.25], [0.0, 0.0, -2.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    np.testing.assert_allclose(pooling.effective_steps(weights), [4, 1, 2])


def test_heads_are_counted_at_the_size_of_the_literature():
    assert pooling.sizes()["attention"] == 739_744
    assert pooling.sizes()["flatten, MLP, 3 streams"] == 201_671_840


def test_what_was_found_elsewhere_is_all_there_and_its_words_are_its_numbers():
    results = pooling.longer()
    assert results["params"] == {k: v for k, v in Params.paper().model_dump(mode="json").items() if k != "network"}
    assert set(results["networks"]) == set(pooling.Network.__args__)
    for found in results["networks"].values():
        for name, task in found.items():
            means = {readout: float(np.mean(seeds)) for readout, seeds in task["mae_by_seed"].items()}
            assert set(means) == set(READOUTS)
            best = min(means, key=means.get)
            assert task["findings"][0] == f"{name}: {best} has the smallest error, {means[best]:.3g} {task['unit']}."
            assert len(task["findings"]) == len(READOUTS)


def test_an_interrupted_training_stops_the_experiment(tasks, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.training.fit.update", interrupt)
    with pytest.raises(KeyboardInterrupt, match="Gated DeltaNet marked last 0 was interrupted at step 0"):
        pooling.train("last", tasks["marked"], SMOKE, 0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"width": 30}, "width=30 is not a multiple of heads=4"),
        ({"seeds": 1}, "seeds=1"),
        ({"network": "GRU"}, "network='GRU'"),
    ],
)
def test_parameters_that_cannot_be_built_are_refused_at_once(values, says):
    with pytest.raises(ValueError, match=says):
        build(Params, values)


def test_presets_are_valid_and_differ():
    assert Params.smoke() != Params() != Params.paper()
    assert Params().fit_params().patience == Params().steps
