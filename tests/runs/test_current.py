"""The run of a process: begun when it is needed, attached when another process watches; progress goes there."""

import io
import json
import subprocess
import sys
from itertools import pairwise

import plotly.graph_objects as go
import pytest

from workbench.runs import current
from workbench.runs.current import attach, current_run, detach, expect_error, out, show
from workbench.runs.folder import Run
from workbench.runs.progress import progress


@pytest.fixture(autouse=True)
def own_process(tmp_path, monkeypatch):
    monkeypatch.setattr(current, "_process", current._Process())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    yield
    detach()


def test_a_run_begins_with_the_first_output(tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/essays/gates.ipynb")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    out("x", 1)
    run = current_run()
    assert (run.record["name"], run.path.parent) == ("gates", tmp_path / "runs")
    assert run.status().state == "running"
    detach()
    assert run.status().state == "ok"


def test_a_process_that_ends_leaves_its_run_ok(tmp_path):
    subprocess.run([sys.executable, "-c", "import workbench as wb; wb.out('x', 1)"], check=True, cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    assert Run.open(folder).status().state == "ok"


def test_outputs_go_to_the_attached_run(tmp_path):
    run = Run.create("a", root=tmp_path)
    attach(run.path)
    out("x", 1)
    assert run.outputs() == {"x": 1}
    detach()
    assert run.status().state == "queued"  # its status is the watcher's


def test_show_saves_and_stays_silent_outside_of_a_notebook(tmp_path, capsys):
    run = Run.create("a", root=tmp_path)
    attach(run.path)
    assert show(go.Figure(), name="empty", caption="Nothing") is None
    assert (run.figures / "empty" / "figure.json").exists()
    assert capsys.readouterr().out == ""


def test_an_expected_error_is_shown_and_its_absence_is_one(capsys):
    with expect_error(ValueError):
        raise ValueError("width=100 is not a multiple of heads=8")
    assert capsys.readouterr().out == "ValueError: width=100 is not a multiple of heads=8\n"
    with pytest.raises(RuntimeError, match="expected to raise ValueError"), expect_error(ValueError):
        pass
    with pytest.raises(KeyError), expect_error(ValueError):
        raise KeyError("other")


def test_headless_progress_goes_to_events_not_more_than_twice_a_second(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: next(clock) / 100)
    run = Run.create("a", root=tmp_path)
    attach(run.path)
    with progress(1000, "Train") as bar:
        for step in range(1000):
            bar.update(1, loss=1 / (step + 1))
    records = run.events()
    seconds = [record["seconds"] for record in records]
    assert 5 < len(records) < 60
    assert all(later - earlier >= 0.4 for earlier, later in pairwise(seconds[:-1]))
    assert records[-1].items() >= {"kind": "progress", "label": "Train", "done": 1000, "total": 1000}.items()
    assert records[-1]["loss"] == 0.001
    assert records[len(records) // 2]["seconds_left"] > 0


def test_progress_is_a_line_in_a_terminal_and_silent_elsewhere(monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        monkeypatch.setattr("sys.stderr", stream)
        with progress(2, "Train") as bar:
            bar.update(2, loss=0.5)
    assert "Train" in terminal.getvalue()
    assert pipe.getvalue() == ""
    assert list(tmp_path.iterdir()) == []


def test_the_package_imports_without_its_heavy_friends(tmp_path):
    heavy = ["torch", "plotly", "polars", "papermill", "IPython", "pandas", "tqdm"]
    names = ["params", "folder", "status", "store", "current", "progress", "provenance", "figures", "scores"]
    code = (
        "import json, sys, workbench; assert 'pydantic' not in sys.modules\n"
        f"for name in {names}: __import__('workbench.runs.' + name)\n"
        f"print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(answer.stdout) == []


LIVE = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import workbench as wb\\nclass P(wb.Params):\\n    epochs: int = 1")
for cell in sys.argv[1:]:
    shell.run_cell(cell, store_history=True)
"""
BEGIN = "params = wb.params(globals(), P); wb.out('epochs', params.epochs)"


def live(tmp_path, *cells):
    """Run cells in a shell that nobody watches; return its runs, oldest first."""
    (tmp_path / "pyproject.toml").touch()
    subprocess.run([sys.executable, "-c", LIVE, *cells], check=True, cwd=tmp_path, capture_output=True)
    return sorted((Run.open(path) for path in (tmp_path / "runs").iterdir()), key=lambda run: run.record["created"])


@pytest.mark.parametrize(
    ("last", "state"),
    [
        ("1 + 1", "ok"),
        ("1 / 0", "failed"),
        ("1 +", "failed"),
        ("raise KeyboardInterrupt", "interrupted"),
        ("raise MemoryError", "oom"),
    ],
)
def test_a_live_run_ends_as_its_last_cell(tmp_path, last, state):
    (run,) = live(tmp_path, "epochs = 2", BEGIN, "1 / 0", last)
    assert run.status().state == state
    assert (run.status().error is None) == (state == "ok")


def test_other_parameters_begin_another_run(tmp_path):
    first, second = live(tmp_path, "epochs = 2", BEGIN, BEGIN, "epochs = 3", BEGIN)
    assert [first.params["epochs"], second.params["epochs"]] == [2, 3]
    assert [first.outputs()["epochs"], second.outputs()["epochs"]] == [2, 3]
    assert first.status().state == "ok"
