"""The loop: accumulation, schedule, stopping, divergence, interruption, and resuming after SIGKILL."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from workbench.cells.roles import tag
from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import LSTMStackConfig, XLSTMStackConfig
from workbench.training.fit import Diverged, FitParams, batch_rows, evaluate, fit, update
from workbench.training.optimizer import make_optimizer, parameter_groups, step_size


class Data:
    """Rows of a linear law with noise."""

    def __init__(self, rows, seed=0, poison=False):
        g = torch.Generator().manual_seed(seed)
        self.x = torch.randn(rows, 6, generator=g)
        self.y = self.x @ torch.arange(6.0) + 0.1 * torch.randn(rows, generator=g)
        if poison:
            self.y[3] = math.inf

    def __len__(self):
        return len(self.x)

    def __getitem__(self, which):
        return self.x[which], self.y[which]


def net(dropout=0.0):
    torch.manual_seed(0)
    return tag("head", nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1)))


def loss(model, batch):
    x, y = batch
    return (model(x)[:, 0] - y).square().mean()


PARAMS = FitParams(steps=60, batch=16, lr=0.02, evaluate_every=10)


def test_it_learns_and_keeps_the_best_weights():
    model, seen = net(), []
    before = evaluate(model, loss, Data(64, 1), PARAMS)
    result = fit(model, loss, Data(200), Data(64, 1), PARAMS, observers=[seen.append])
    assert result.end == "finished"
    assert result.step == 60
    assert result.best_valid < 0.2 * before
    assert evaluate(model, loss, Data(64, 1), PARAMS) == pytest.approx(result.best_valid)
    assert [record["step"] for record in seen] == [10, 20, 30, 40, 50, 60]
    assert set(seen[0]) == {"label", "step", "train_loss", "valid_loss", "lr", "grad_norm", "seconds"}


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_accumulated_parts_equal_one_large_batch(parts):
    models = []
    for accumulate in (1, parts):
        model = net()
        params = PARAMS.model_copy(update={"accumulate": accumulate})
        optimizer = make_optimizer(model, params.lr, 0.0)
        for step in range(5):
            update(model, loss, Data(50), optimizer, params, 0, step)
        models.append(model)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_it_stops_when_nothing_gets_better():
    looks = itertools.count()
    params = PARAMS.model_copy(update={"patience": 2, "steps": 1000})
    result = fit(net(), lambda m, batch: loss(m, batch) + next(looks), Data(64), Data(64, 1), params)
    assert result.end == "stopped early"
    assert (result.best_step, result.step) == (10, 30)


def test_a_loss_that_is_no_number_stops_with_the_weights_as_they_were():
    model = net()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(Diverged, match=r"at step 1 the loss is inf .* lr=0\.02; try a smaller lr"):
        fit(model, loss, Data(16, poison=True), Data(16), PARAMS)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_ctrl_c_ends_the_loop_and_keeps_what_was_learned():
    model = net()

    def stop(record):
        if record["step"] == 30:
            raise KeyboardInterrupt

    result = fit(model, loss, Data(200), Data(64, 1), PARAMS, observers=[stop])
    assert result.end == "interrupted"
    assert result.step == 30
    assert evaluate(model, loss, Data(64, 1), PARAMS) == pytest.approx(result.best_valid)


def test_every_row_is_seen_once_in_a_pass_and_orders_differ():
    first = torch.cat([batch_rows(48, 16, 0, step) for step in range(3)])
    second = torch.cat([batch_rows(48, 16, 0, step) for step in range(3, 6)])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(48))
    assert first.tolist() != second.tolist()
    assert batch_rows(48, 16, 1, 0).tolist() != batch_rows(48, 16, 0, 0).tolist()
    assert len(batch_rows(5, 16, 0, 9)) == 5


def test_bf16_trains_too():
    result = fit(net(), loss, Data(200), Data(64, 1), PARAMS.model_copy(update={"precision": "bf16"}))
    exact = fit(net(), loss, Data(200), Data(64, 1), PARAMS)
    assert result.best_valid == pytest.approx(exact.best_valid, rel=0.25)
    assert result.best_valid != exact.best_valid


@pytest.mark.parametrize("stack", [LSTMStackConfig(width=8), XLSTMStackConfig(width=8, heads=2)], ids=["lstm", "xlstm"])
def test_bf16_trains_every_stack(stack):
    config = ForecasterConfig(inputs=2, known=1, horizon=3, stack=stack)

    class Windows(Data):
        def __getitem__(self, which):
            return self.x[which].view(-1, 3, 2), self.x[which, :3, None], self.y[which, None]

    def miss(model, batch):
        past, known, target = batch
        return (model(past, known)[..., 1] - target).square().mean()

    short = PARAMS.model_copy(update={"steps": 20, "lr": 1e-2})
    half = short.model_copy(update={"precision": "bf16"})
    narrow, wide = (fit(config.build(), miss, Windows(200), Windows(64, 1), params) for params in (half, short))
    assert narrow.history[-1]["valid_loss"] == pytest.approx(wide.history[-1]["valid_loss"], rel=0.05)
    assert narrow.history[-1]["train_loss"] != wide.history[-1]["train_loss"]
    assert narrow.best_valid < narrow.history[0]["valid_loss"]


def test_a_validation_loss_that_is_no_number_is_divergence():
    with pytest.raises(Diverged, match="at step 10 the validation loss is inf"):
        fit(net(), loss, Data(64), Data(16, poison=True), PARAMS)


def test_gradients_are_clipped_to_their_norm():
    moved = []
    for clip in (1e-3, 1e3):
        model = net()
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        sgd = torch.optim.SGD(model.parameters(), lr=1.0)
        update(model, loss, Data(50), sgd, PARAMS.model_copy(update={"clip": clip, "lr": 1.0, "warmup": 0.0}), 0, 0)
        moved.append(float((torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm()))
    assert moved[0] == pytest.approx(1e-3, rel=1e-3)
    assert moved[1] > 1


def test_dropout_is_seeded_in_training_and_off_in_validation():
    results = [fit(net(0.5), loss, Data(64), Data(64, 1), PARAMS, seed=seed) for seed in (0, 0, 1)]
    losses = [[record["train_loss"] for record in result.history] for result in results]
    assert losses[0] == losses[1] != losses[2]
    model = net(0.5)
    assert evaluate(model, loss, Data(64, 1), PARAMS) == evaluate(model, loss, Data(64, 1), PARAMS)


def test_step_size_rises_and_falls():
    sizes = [step_size(step, 100, 10) for step in range(101)]
    assert sizes[0] == pytest.approx(0.1)
    assert sizes[9] == pytest.approx(1.0)
    assert sizes[100] == pytest.approx(0.05)
    assert all(a >= b for a, b in itertools.pairwise(sizes[10:]))


def test_groups_come_from_roles():
    model = nn.ModuleDict({"a": tag("projection", nn.Linear(3, 3)), "b": tag("core", nn.Linear(3, 3))})
    decayed, free = parameter_groups(model, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(model["a"].weight)]
    assert len(free["params"]) == 3
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_no_rows_is_refused():
    with pytest.raises(ValueError, match="there are 0 training and 8 validation rows"):
        fit(net(), loss, Data(0), Data(8), PARAMS)


def test_the_same_again_is_not_trained_again(tmp_path):
    first, second = net(), net()
    fit(first, loss, Data(64), Data(16), PARAMS, folder=tmp_path)
    result = fit(second, refuse, Data(64), Data(16), PARAMS, folder=tmp_path)
    assert result.step == PARAMS.steps
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def refuse(model, batch):
    raise AssertionError("nothing is left to train")


OTHERS = {
    "settings": {"params": PARAMS.model_copy(update={"lr": 0.01})},
    "seed": {"seed": 1},
    "data": {"train": Data(64, seed=5)},
    "rows": {"valid": Data(17)},
    "validation": {"valid": Data(16, seed=5)},
    "weights": {"model": tag("head", nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.0), nn.Linear(16, 1)))},
    "model": {"model": tag("head", nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)))},
}


@pytest.mark.parametrize("changed", OTHERS)
def test_what_differs_starts_anew_and_leaves_the_first_alone(tmp_path, changed):
    usual = {"model": net(), "train": Data(64), "valid": Data(16), "params": PARAMS, "seed": 0}
    fit(usual["model"], loss, Data(64), Data(16), PARAMS, folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    given = usual | {"model": net()} | OTHERS[changed]
    calls = []

    def counted(model, batch):
        calls.append(1)
        return loss(model, batch)

    fit(given["model"], counted, given["train"], given["valid"], given["params"], seed=given["seed"], folder=tmp_path)
    assert len(calls) >= PARAMS.steps
    assert kept.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


CHILD = """
import json, os, sys, time
from pathlib import Path
import torch
from tests.training.test_fit import Data, loss, net
from workbench.training.fit import FitParams, fit
torch.set_num_threads(1)
params = FitParams(steps=400, batch=16, lr=0.02, evaluate_every=20)
def slow(model, batch):
    time.sleep(float(sys.argv[2]))
    return loss(model, batch)
model = net(dropout=0.3)
result = fit(model, slow, Data(100), Data(64, 1), params, folder=Path(sys.argv[1]))
print(json.dumps([result.step, result.best_valid, [r["valid_loss"] for r in result.history],
                  float(sum(p.double().sum() for p in model.parameters()))]))
"""


def child(folder, delay):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(delay)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )


def test_killed_in_mid_epoch_it_ends_where_an_uninterrupted_run_ends(tmp_path):
    whole = json.loads(child(tmp_path / "whole", 0).communicate(timeout=120)[0])
    killed = child(tmp_path / "cut", 0.01)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cut").glob("progress-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # somewhere behind the first save
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(10) == -signal.SIGKILL
    assert killed.stdout.read() == ""
    killed.stdout.close()
    again = json.loads(child(tmp_path / "cut", 0).communicate(timeout=120)[0])
    assert again == whole
