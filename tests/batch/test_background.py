"""A process of its own: the run folder says what became of it, whatever that was."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.widgets import trainee
from workbench.batch.background import background
from workbench.runs.folder import Run
from workbench.training.control import ask, requests


@pytest.fixture(autouse=True)
def at_root(root, monkeypatch):
    monkeypatch.chdir(root)


def wait(until, seconds=60):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)


def start(tmp_path, **params):
    return background(trainee, trainee.Params(**params), root=tmp_path)


def test_it_runs_at_once_and_ends_ok_with_its_result(tmp_path):
    run = start(tmp_path, steps=10)
    assert run.status().state == "running"
    assert run.status().pid != os.getpid()
    wait(lambda: run.status().finished)
    assert run.status().state == "ok"
    assert run.outputs() == {"ended": "finished", "updates": 10}
    assert [row["step"] for row in run.metrics()] == [5, 10]
    assert any(event["kind"] == "progress" and event["total"] == 10 for event in run.events())


def test_stop_ends_it_ok(tmp_path):
    run = start(tmp_path)
    wait(run.metrics)
    ask(run, "probe")
    ask(run, "stop")
    wait(lambda: run.status().finished)
    assert (run.status().state, run.outputs()["ended"]) == ("ok", "stopped")
    assert [request["answer"] for request in requests(run)] == ["done", "done"]


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGKILL, "killed"), (signal.SIGTERM, "interrupted")], ids=lambda x: str(x)
)
def test_a_signal_shows_in_the_status(tmp_path, number, state):
    run = start(tmp_path)
    wait(run.metrics)
    os.kill(run.status().pid, number)
    wait(lambda: run.status().finished)
    assert run.status().state == state


def test_an_error_is_a_failure_with_its_traceback(tmp_path):
    run = start(tmp_path, end="no such thing")
    wait(lambda: run.status().finished)
    status = run.status()
    assert (status.state, status.error.name, status.error.value) == ("failed", "RuntimeError", "no such thing")
    assert "RuntimeError: no such thing" in (run.path / "output.log").read_text()


STARTER = """
import sys
from tests.widgets import trainee
from workbench.batch.background import background
print(background(trainee, trainee.Params(), root=sys.argv[1]).path, flush=True)
input()
"""


def test_it_outlives_the_process_that_started_it(tmp_path):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True, text=True,
    )  # fmt: skip
    run = Run.open(starter.stdout.readline().strip())
    try:
        wait(run.metrics)
        os.killpg(starter.pid, signal.SIGKILL)
        starter.communicate()
        seen = len(run.metrics())
        wait(lambda: len(run.metrics()) > seen + 2)
        assert run.status().state == "running"
    finally:
        ask(run, "stop")
    wait(lambda: run.status().finished)
    assert run.status().state == "ok"


def test_what_is_no_experiment_is_refused_before_a_folder_is_made(tmp_path):
    from workbench.experiments import forecast

    with pytest.raises(TypeError, match="os is no experiment: it needs Params and run"):
        background(os, root=tmp_path)
    with pytest.raises(TypeError, match=r"give a tests\.widgets\.trainee\.Params"):
        background(trainee, forecast.Params(), root=tmp_path)
    assert list(tmp_path.iterdir()) == []
