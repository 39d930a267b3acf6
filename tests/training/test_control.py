"""Requests from another process: what stops, what probes, what is refused, and what no request can do."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from tests.training.test_fit import PARAMS, Data, loss, net
from workbench.runs.files import append_line
from workbench.runs.folder import Run
from workbench.training import control as control_file
from workbench.training.control import Control, ask, requests
from workbench.training.fit import fit


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(control_file, "EVERY_SECONDS", 0.0)


@pytest.fixture
def run(tmp_path):
    return Run.create("control", root=tmp_path)


def train(run, *, params=PARAMS, observers=(), dropout=0.2, control=None):
    model = net(dropout)
    control = Control(run) if control is None else control
    folder = run.checkpoints
    return model, fit(model, loss, Data(200), Data(64, 1), params, folder=folder, observers=observers, control=control)


def at_step(step, do):
    """An observer that does something when a look is at this step."""
    return lambda record: do() if record["step"] == step else None


class Prober:
    def __init__(self, error=None):
        self.steps, self.error = [], error

    def __call__(self, record):
        pass

    def probe(self, step):
        if self.error:
            raise self.error
        self.steps.append(step)
        return f"probe-{step}"


def test_a_stop_ends_the_training_with_the_best_weights_and_says_done(run):
    _, result = train(run, observers=[at_step(30, lambda: ask(run, "stop"))])
    assert (result.end, result.step, result.best_step) == ("stopped", 31, 30)
    assert result.history[-1]["valid_loss"] == result.best_valid
    (request,) = requests(run)
    assert (request["action"], request["answer"], request["step"]) == ("stop", "done", 31)
    answers = [event["answer"] for event in run.events() if event["kind"] == "control"]
    assert answers == ["seen", "done"]


def test_a_stopped_training_goes_on_to_the_weights_of_one_that_never_stopped(run, tmp_path):
    whole, straight = train(Run.create("whole", root=tmp_path))
    _, first = train(run, observers=[at_step(30, lambda: ask(run, "stop"))])
    assert first.end == "stopped"
    resumed, second = train(run)
    assert (second.end, second.step) == (straight.end, straight.step)
    assert [row["valid_loss"] for row in second.history] == [row["valid_loss"] for row in straight.history]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_stop_before_the_first_look_keeps_the_updates_that_were_made(run):
    ask(run, "stop")
    model, result = train(run)
    assert (result.end, result.step, result.history) == ("stopped", 1, [])
    assert not torch.equal(next(model.parameters()), next(net(0.2).parameters()))


def test_an_answered_request_is_not_served_again_by_the_next_training_of_the_run(run):
    ask(run, "stop")
    assert train(run)[1].end == "stopped"
    assert train(run)[1].end == "finished"


def test_a_request_at_the_last_step_does_not_call_a_finished_training_stopped(run):
    _, result = train(run, observers=[at_step(50, lambda: None)], params=PARAMS.model_copy(update={"steps": 1}))
    assert result.end == "finished"
    ask(run, "stop")
    params = PARAMS.model_copy(update={"steps": 1, "lr": 0.01})
    _, result = train(run, params=params)
    assert (result.end, requests(run)[0]["answer"]) == ("finished", "done")


def test_a_probe_is_taken_at_the_next_update_and_training_goes_on(run):
    prober = Prober()
    _, result = train(run, observers=[at_step(20, lambda: ask(run, "probe")), prober])
    assert (result.end, prober.steps) == ("finished", [21])
    (request,) = requests(run)
    assert (request["answer"], request["probes"]) == ("done", ["probe-21"])


def test_requests_do_not_change_the_weights(run, tmp_path):
    plain, _ = train(Run.create("plain", root=tmp_path))
    asked, _ = train(run, observers=[at_step(20, lambda: ask(run, "probe")), Prober()])
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), asked.parameters(), strict=True))


@pytest.mark.parametrize(
    ("observers", "why"),
    [([], "no probe among its observers"), ([Prober(OSError("disk full"))], "OSError: disk full")],
    ids=["nobody can", "it fails"],
)
def test_a_probe_that_cannot_be_is_refused_with_the_reason(run, observers, why):
    ask(run, "probe")
    _, result = train(run, observers=observers)
    assert result.end == "finished"
    assert (requests(run)[0]["answer"], why in requests(run)[0]["why"]) == ("refused", True)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"id": "a", "action": "faster"}', "a training cannot 'faster'; it can stop or probe"),
        ('{"id": "a", "action": ["stop"]}', "a training cannot ['stop']"),
        ('{"action": "stop"}', "is not a request"),
        ('{"id": 7, "action": "stop"}', "is not a request"),
        ('["stop"]', "is not a request"),
        ('{"id": "a", "act', "is not a request"),
        ("\x00\xff", "is not a request"),
        ("[" * 100_000, "is not a request"),
    ],
    ids=["unknown", "no word", "no id", "number as id", "a list", "half", "noise", "deep"],
)
def test_a_line_that_is_no_request_is_refused_once_and_ends_nothing(run, line, why):
    (run.path / "control.jsonl").write_bytes(line.encode("latin-1") + b"\n\n")
    _, result = train(run)
    _, again = train(run, params=PARAMS.model_copy(update={"lr": 0.01}))
    assert result.end == again.end == "finished"
    refused = [event for event in run.events() if event["kind"] == "control"]
    assert [event["answer"] for event in refused] == ["refused"]
    assert why in refused[0]["why"]
    assert len(refused[0]["why"]) < 200


def test_half_a_line_waits_for_its_end(run):
    control, line = Control(run), json.dumps({"id": "a", "action": "stop"}).encode()
    file = run.path / "control.jsonl"
    file.write_bytes(line[:9])
    assert control.requests() == []
    with open(file, "ab") as more:
        more.write(line[9:])
        more.flush()
        assert control.requests() == []
        more.write(b"\n")
    assert [request.id for request in control.requests()] == ["a"]
    assert control.requests() == []


def test_a_request_behind_the_half_line_of_a_killed_writer_is_read(run):
    (run.path / "control.jsonl").write_bytes(b'{"id": "a", "ac')
    identity = ask(run, "stop")
    assert [request.id for request in Control(run).requests()] == [identity]
    assert {request["answer"] for request in requests(run)} == {"seen", "refused"}


def test_a_file_that_was_replaced_by_a_shorter_one_is_read_anew(run):
    control = Control(run)
    for _ in range(3):
        ask(run, "probe")
    assert len(control.requests()) == 3
    (run.path / "control.jsonl").unlink()
    assert control.requests() == []
    identity = ask(run, "stop")
    assert [request.id for request in control.requests()] == [identity]


def test_a_file_that_cannot_be_read_is_reported_once(run):
    (run.path / "control.jsonl").mkdir()
    control = Control(run)
    os.utime(run.path / "control.jsonl")
    assert control.requests() == control.requests() == []
    (event,) = (event for event in run.events() if event["kind"] == "control")
    assert "control.jsonl cannot be read" in event["why"]


def test_asking_for_something_else_names_what_can_be_asked(run, tmp_path, unchecked):
    with pytest.raises(ValueError, match=r"Unknown request 'stopp'; did you mean 'stop'\? Known: stop, probe"):
        ask(run, "stopp")
    with pytest.raises(ValueError, match="is not a run folder"):
        ask(tmp_path, "stop")
    assert requests(run) == []


def test_the_file_is_looked_at_five_times_a_second_at_most(run, monkeypatch):
    monkeypatch.setattr(control_file, "EVERY_SECONDS", 0.2)
    control = Control(run)
    assert control.requests() == []
    ask(run, "stop")
    assert control.requests() == []
    time.sleep(0.21)
    assert [request.action for request in control.requests()] == ["stop"]


def test_a_look_costs_microseconds(run):
    ask(run, "probe")
    control = Control(run)
    control.requests()
    begin = time.perf_counter()
    for _ in range(1000):
        control.requests()
    assert time.perf_counter() - begin < 0.5  # 0.5 ms each, on a busy machine; about 5 us on an idle one


CHILD = """
import sys
from tests.training.test_fit import PARAMS, Data, loss, net
from workbench.runs.folder import Run
from workbench.training.control import Control
from workbench.training.fit import fit
run = Run.open(sys.argv[1])
params = PARAMS.model_copy(update={"steps": 1_000_000, "patience": 1_000_000})
result = fit(net(), loss, Data(64), Data(64, 1), params, control=Control(run), observers=[lambda r: run.log(**r)])
run.out("end", result.end)
"""


def test_a_training_in_another_process_is_stopped(run, root):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(run.path)], cwd=root)
    try:
        deadline = time.monotonic() + 60
        while not run.metrics() and time.monotonic() < deadline:
            time.sleep(0.05)
        append_line(run.path / "control.jsonl", {"id": "x", "action": "wake up"})
        ask(run, "stop")
        assert child.wait(timeout=30) == 0
    finally:
        child.kill()
    assert run.outputs()["end"] == "stopped"
    assert [request["answer"] for request in requests(run)] == ["refused", "done"]
