"""The command line: exit codes, errors of one sentence, the table of scores; torch stays out of the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import workbench
from workbench import cli, doctor
from workbench.batch.memory import size
from workbench.batch.progress_view import ProgressView, duration
from workbench.batch.source import typed
from workbench.cli import notebooks
from workbench.runs import store
from workbench.runs.folder import Run
from workbench.runs.scores import summary, table
from workbench.runs.status import Status


def notebook(path: Path, *cells: str) -> Path:
    first = new_code_cell('epochs = 3\nname = "a"', metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[first, *map(new_code_cell, cells)]), path)
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKBENCH_OFFLINE", raising=False)


def only_run() -> Run:
    (entry,) = store.entries("runs")
    return entry.run


def test_import_and_help_leave_torch_and_jupyter_alone(tmp_path):
    code = (
        "import contextlib, io, json, sys, workbench.cli\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    workbench.cli.main(['--help'])\n"
        "print(json.dumps([m for m in ['torch', 'numpy', 'pydantic', 'papermill', 'tyro'] if m in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(answer.stdout) == []


def test_version_and_unknown_words(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert workbench.__version__ in capsys.readouterr().out
    for wrong in (["dance"], ["run", "x.ipynb", "--speed"], []):
        with pytest.raises(SystemExit) as left:
            cli.main(wrong)
        assert left.value.code == 2


def test_run_passes_parameters_in_the_type_of_their_default(tmp_path):
    path = notebook(
        tmp_path / "a.ipynb", "import os, workbench as wb\nwb.out('offline', os.environ.get('WORKBENCH_OFFLINE'))"
    )
    assert cli.main(["run", str(path), "-p", "name", "007", "-p", "epochs", "1e1", "--name", "mine"]) == 0
    run = only_run()
    assert run.params == {"epochs": 10, "name": "007"}
    assert run.record["name"] == "mine"
    assert run.outputs() == {"offline": None}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_offline_reaches_the_kernel_from_anywhere_on_the_line(tmp_path, place):
    path = notebook(
        tmp_path / "a.ipynb", "import os, workbench as wb\nwb.out('offline', os.environ.get('WORKBENCH_OFFLINE'))"
    )
    words = ["run", str(path)]
    assert cli.main([*words[:place], "--offline", *words[place:]]) == 0
    assert only_run().outputs() == {"offline": "1"}
    assert "WORKBENCH_OFFLINE" not in os.environ  # this process is left as it was


def test_a_failed_run_exits_with_1_and_run_from_repeats_it(tmp_path, capsys):
    path = notebook(tmp_path / "a.ipynb", "assert epochs > 3")
    assert cli.main(["run", str(path)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("report.html") == 1
    assert printed.splitlines()[-1] == f"Report: {only_run().path / 'report.html'}"
    assert cli.main(["run", "--from", only_run().name, "-p", "epochs", "4"]) == 0
    assert "\nstarts anew: epochs changed\n" in capsys.readouterr().out


def test_a_missing_module_is_answered_with_how_to_install_the_project(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "papermill", None)  # makes its import fail
    monkeypatch.delitem(sys.modules, "workbench.batch.execute", raising=False)
    assert cli.main(["run", "a.ipynb"]) == 2
    error = capsys.readouterr().err
    assert "papermill" in error
    assert doctor.INSTALL in error
    assert "install 'workbench" not in error  # a stranger's package may have that name


def test_interrupted_exits_with_130(tmp_path):
    cell = "import os, signal\nos.kill(os.getppid(), signal.SIGINT)\nimport time\ntime.sleep(600)"
    path = notebook(tmp_path / "a.ipynb", cell)
    command = [sys.executable, "-m", "workbench", "run", str(path)]
    assert subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=False).returncode == 130
    assert only_run().status().state == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "a.ipynb", "-p", "epoch", "3"], "Unknown parameter of a.ipynb 'epoch'; did you mean 'epochs'?"),
        (["run", "b.ipynb"], "No notebook b.ipynb. In .: a.ipynb."),
        (["run"], "No notebook was named"),
        (["run", "a.ipynb", "--memory-limit", "much"], "'much' is no size of memory"),
        (["run", "a.ipynb", "--from", "x"], "No run 'x'"),
        (["runs", "show", "x"], "No run 'x'"),
        (["runs", "prune"], "say what may go"),
        (["runs", "prune", "--state", "okay"], "Unknown --state 'okay'; did you mean 'ok'?"),
        (["runs", "prune", "--keep", "-1"], "keep=-1 is not a number from 0 up"),
        (["runs", "prune", "--older-than", "-2"], "older_than_days=-2.0 is not"),
    ],
)
def test_errors_at_the_door_are_one_sentence_and_leave_nothing(tmp_path, capsys, arguments, said):
    notebook(tmp_path / "a.ipynb")
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_runs_are_listed_shown_and_pruned(tmp_path, capsys):
    run = Run.create("good", params={"epochs": 3})
    Status(state="ok", seconds=31).write(run.path)
    (tmp_path / "runs" / "broken").mkdir()
    assert cli.main(["runs", "list"]) == 0
    listed = capsys.readouterr().out
    assert f"{run.name}  ok" in listed
    assert "broken" in listed
    assert cli.main(["runs", "show", "good"]) == 0
    assert '"epochs": 3' in capsys.readouterr().out
    assert cli.main(["runs", "prune", "--state", "ok"]) == 2  # nobody to ask
    assert run.path.exists()
    assert cli.main(["runs", "prune", "--state", "ok", "--yes"]) == 0
    assert not run.path.exists()
    assert (tmp_path / "runs" / "broken").exists()


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("007", "a", "007"),
        ("7", 3, 7),
        ("1e3", 3, 1000),
        ("true", False, True),
        ("nan", 0.5, pytest.approx(float("nan"), nan_ok=True)),
        ("[1, 2]", [], [1, 2]),
        ("None", 3, None),
        ("a.csv", None, "a.csv"),
        ("-2", None, -2),
    ],
)
def test_words_of_the_command_line_become_values(text, default, value):
    assert typed(text, default) == value


@pytest.mark.parametrize(
    ("text", "count"), [("2GB", 2 * 10**9), ("1.5 g", 1_500_000_000), ("800MB", 8 * 10**8), ("7", 7)]
)
def test_sizes(text, count):
    assert size(text) == count


SCORES = {
    "unit": "vehicles/h",
    "xLSTM": {"mae": 31.234, "rmse": 50.0},
    "last value": {"mae": 90.5, "rmse": None},
    "ridge": {"mae": 31.234},
    "broken": {"mae": float("nan"), "rmse": "?"},
}


def test_scores_become_a_ranked_table():
    lines = table(SCORES).splitlines()
    assert lines[0].split("  ")[:2] == ["rank", "model"]
    assert "mae [vehicles/h]" in lines[0]
    rows = [line.split() for line in lines[2:]]
    assert [row[0] for row in rows] == ["1", "1", "3", "–"]
    assert rows[0][1:] == ["xLSTM", "31.23", "50"]
    assert rows[2] == ["3", "last", "value", "90.5", "–"]


@pytest.mark.parametrize(
    "outputs", [{}, {"scores": {}}, {"scores": {"unit": "m"}}, {"scores": 3}, {"scores": {"a": {}}}]
)
def test_missing_scores_are_said(outputs):
    assert "no scores" in summary(outputs)


def test_findings_follow_the_table():
    assert summary({"scores": SCORES, "findings": ["One.", "Two."]}).endswith("\n\n- One.\n- Two.")


def event(when: int, kind: str, **fields: object) -> dict:
    return {"time": f"2026-01-01T00:00:{when:02}.000+00:00", "kind": kind, **fields}


class Screen:
    """Keeps what is written; a terminal or not."""

    def __init__(self, tty: bool):
        self.tty, self.text = tty, ""

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(("tty", "lines", "rewritten"), [(False, 4, 0), (True, 1, 31)])
def test_progress_rewrites_one_line_or_comes_every_ten_seconds(tty, lines, rewritten):
    screen = Screen(tty)
    view = ProgressView(screen)
    view.event(event(0, "cell_start", cell=3, cells=12, title="Train both models"))
    for second in range(1, 31):
        bar = {"label": "Train", "done": second, "total": 60, "seconds": second, "seconds_left": 60 - second}
        view.event(event(second, "progress", **bar, loss=0.25))
    view.event(event(31, "cell_end", cell=3, cells=12, seconds=31.2, ok=True))
    assert screen.text.count("\n") == lines
    assert screen.text.count("\r") == (rewritten + 1 if tty else 0)
    assert "[ 3/12] Train both models · Train 10/60  loss=0.25  50 s left" in screen.text
    assert screen.text.endswith("[ 3/12] Train both models  31 s\n")


def test_durations():
    assert [duration(seconds) for seconds in (0.42, 31.2, 125, 3720)] == ["0.4 s", "31 s", "2 min 5 s", "1 h 2 min"]


def test_demo_flags_come_from_its_params(tmp_path, monkeypatch, capsys):
    """With an experiment and a notebook of our own in the place of the real ones."""
    import types

    class Params(workbench.Params):
        """Parameters."""

        epochs: int = 3
        name: str = "a"

        @classmethod
        def smoke(cls):
            return cls(epochs=1)

    monkeypatch.setitem(sys.modules, "workbench.experiments.forecast", types.SimpleNamespace(Params=Params))
    cell = (
        "import workbench as wb\nwb.out('scores', {'unit': 'm', 'LSTM': {'mae': epochs}})\nwb.out('findings', [name])"
    )
    monkeypatch.setattr(notebooks, "_first_notebook", lambda: notebook(tmp_path / "00.ipynb", cell))
    assert cli.main(["demo", "--smoke", "--name", "x y"]) == 0
    printed = capsys.readouterr().out
    assert only_run().record["parameters"] == {"epochs": 1, "name": "x y"}
    assert "- x y" in printed
    assert printed.count("report.html") == 1
    assert printed.splitlines()[-1].startswith("Report: ")  # after the table
    with pytest.raises(SystemExit) as left:
        cli.main(["demo", "--epochs", "many"])
    assert left.value.code == 2


def test_lab_registers_this_interpreter_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(notebooks, "_first_notebook", lambda: tmp_path / "00.ipynb")
    monkeypatch.setattr(os, "execve", lambda program, *rest: calls.append(rest))
    cli.main(["lab", "--no-browser", "--port", "9999"])
    cli.main(["lab", "--offline"])
    spec = json.loads((tmp_path / "share/jupyter/kernels/workbench/kernel.json").read_text())
    assert spec["argv"][0] == sys.executable
    assert spec["display_name"] == "Python (workbench)"
    (command, environment), (plain, offline) = calls
    assert command[1:] == ["-m", "jupyterlab", str(tmp_path / "00.ipynb"), "--no-browser", "--port", "9999"]
    assert plain[1:] == command[1:4]
    assert (environment.get("WORKBENCH_OFFLINE"), offline.get("WORKBENCH_OFFLINE")) == (None, "1")
