"""Every ending of a notebook is told as it was."""

import io
import json
import sys

import nbformat
import pytest

from tests.batch.engine_notebooks import notebook
from workbench.batch import execute as module
from workbench.batch.execute import execute
from workbench.batch.source import title
from workbench.runs.folder import Run


def run(path, root, parameters=None, **options) -> Run:
    return execute(path, parameters, root=root, out=io.StringIO(), **options)


def only_name(tmp_path) -> str:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder.name


def test_success_leaves_outputs_and_the_executed_notebook(tmp_path):
    path = notebook(
        tmp_path / "good.ipynb",
        "import workbench as wb\nwb.out('epochs', epochs)",
        "wb.out('names', sorted(n for n in globals() if 'begin' in n or 'attach' in n))",
    )
    done = run(path, tmp_path / "runs", {"epochs": 5})
    status = done.status()
    assert (status.state, status.cell, status.cells, status.error) == ("ok", 3, 3, None)
    assert status.peak_memory_bytes > 10_000_000
    assert done.outputs()["epochs"] == 5
    assert done.outputs()["names"] == []  # the preamble leaves no trace
    assert done.params == {"epochs": 5, "name": "a", "rate": None}
    nb = nbformat.read(done.path / "notebook.ipynb", as_version=4)
    counts = [cell.execution_count for cell in nb.cells if cell.cell_type == "code"]
    assert counts == [1, None, 2, 3]  # the injected cell is not counted


def test_failing_cell_is_named_with_a_short_plain_traceback(tmp_path):
    path = notebook(
        tmp_path / "bad.ipynb", "x = 1", "def deep(n):\n    return 1 / n if n == 0 else deep(n - 1)\ndeep(40)", "y = 2"
    )
    done = run(path, tmp_path / "runs", {"epochs": 4})
    status = done.status()
    assert (status.state, status.cell, status.cells) == ("failed", 3, 4)
    assert status.error.name == "ZeroDivisionError"
    assert "\x1b" not in status.error.traceback
    assert len(status.error.traceback.splitlines()) <= 13
    nb = nbformat.read(done.path / "notebook.ipynb", as_version=4)
    assert nb.cells[-1].metadata.papermill.status == "pending"  # papermill says completed
    assert nb.metadata.papermill.exception is True
    ends = [event for event in done.events() if event["kind"] == "cell_end"]
    assert [event["ok"] for event in ends] == [True, True, False]


def test_known_errors_come_with_a_hint(tmp_path):
    path = notebook(tmp_path / "bad.ipynb", "import no_such_package")
    assert "workbench doctor" in run(path, tmp_path / "runs").status().error.hint


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_is_a_failure_with_cells_left(tmp_path, code):
    path = notebook(tmp_path / "exit.ipynb", f"import sys\nsys.exit({code})", "x = 1")
    status = run(path, tmp_path / "runs").status()
    assert (status.state, status.cell, status.error.name) == ("failed", 2, "SystemExit")
    assert "1 cell" in status.error.value


def test_kernel_killed_by_a_signal(tmp_path):
    path = notebook(tmp_path / "kill.ipynb", "import os\nos.kill(os.getpid(), 9)", "x = 1")
    done = run(path, tmp_path / "runs")
    assert (done.status().state, done.status().exit_signal, done.status().cell) == ("killed", 9, 2)
    nb = nbformat.read(done.path / "notebook.ipynb", as_version=4)
    assert [cell.metadata.papermill.status for cell in nb.cells[-3::2]] == ["failed", "pending"]


def test_kernel_that_leaves_by_itself_failed(tmp_path):
    path = notebook(tmp_path / "leave.ipynb", "import os\nos._exit(3)")
    status = run(path, tmp_path / "runs").status()
    assert (status.state, status.exit_signal) == ("failed", None)
    assert "exit code 3" in status.error.value


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its data limit")
def test_memory_limit_ends_in_oom(tmp_path):
    path = notebook(tmp_path / "memory.ipynb", "x = bytearray(3_000_000_000)")
    status = run(path, tmp_path / "runs", memory_limit=1_000_000_000).status()
    assert (status.state, status.cell, status.error.name) == ("oom", 2, "MemoryError")


def test_torch_out_of_memory_is_oom(tmp_path):
    text = (
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
    )
    path = notebook(tmp_path / "torch.ipynb", f"raise RuntimeError({text!r})")
    assert run(path, tmp_path / "runs").status().state == "oom"


@pytest.mark.parametrize(("counts", "state"), [([4, 5], "oom"), ([4, 4], "killed"), ([None, None], "killed")])
def test_sigkill_is_oom_only_when_the_system_counted_a_kill(tmp_path, monkeypatch, counts, state):
    answers = iter(counts)
    monkeypatch.setattr("workbench.batch.client.oom_kills", lambda: next(answers))
    path = notebook(tmp_path / "kill.ipynb", "import os\nos.kill(os.getpid(), 9)")
    assert run(path, tmp_path / "runs").status().state == state


def test_cell_timeout_interrupts_and_says_so(tmp_path):
    path = notebook(tmp_path / "slow.ipynb", "import time", "time.sleep(600)", "x = 1")
    status = run(path, tmp_path / "runs", cell_timeout=1).status()
    assert (status.state, status.cell) == ("timeout", 3)
    assert "time.sleep(600)" in status.error.traceback
    assert f"`workbench run --from {only_name(tmp_path)}`" in status.error.hint


def test_a_cell_that_ignores_the_timeout_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.batch.session.GRACE_SECONDS", 0.5)
    deaf = "import time\nwhile True:\n    try:\n        time.sleep(600)\n    except KeyboardInterrupt:\n        pass"
    path = notebook(tmp_path / "deaf.ipynb", deaf)
    assert run(path, tmp_path / "runs", cell_timeout=1).status().state == "timeout"


def test_divergence_has_its_own_state(tmp_path):
    path = notebook(
        tmp_path / "nan.ipynb", "class Diverged(RuntimeError): pass\nraise Diverged('loss is nan at step 7')"
    )
    status = run(path, tmp_path / "runs").status()
    assert (status.state, status.error.value) == ("diverged", "loss is nan at step 7")


@pytest.mark.parametrize(
    ("cells", "parameters", "given", "message"),
    [
        ([], None, {}, "no parameters cell"),
        ([], "epochs = 3", {"epoch": 1}, "did you mean 'epochs'"),
        ([], "epochs = 3", {"epochs": object()}, "epochs=<object"),
        ([], "epochs = len([1])", {}, "only assign literals"),
    ],
)
def test_what_cannot_start_leaves_nothing(tmp_path, cells, parameters, given, message):
    path = notebook(tmp_path / "door.ipynb", *cells, parameters=parameters)
    with pytest.raises(ValueError, match=message):
        run(path, tmp_path / "runs", given)
    assert not (tmp_path / "runs").exists()


def test_limits_and_runs_that_make_no_sense_are_refused(tmp_path):
    path = notebook(tmp_path / "a.ipynb", "x = 1")
    for limits in ({"cell_timeout": 0}, {"memory_limit": -1}):
        with pytest.raises(ValueError, match="leaves nothing"):
            run(path, tmp_path / "runs", **limits)
    other = Run.create("b", root=tmp_path / "runs", notebook={"name": "b.ipynb", "path": "b.ipynb"})
    with pytest.raises(ValueError, match=r"ran b\.ipynb, not a\.ipynb"):
        run(path, tmp_path / "runs", resume_from=other)
    other.amend(notebook=None)
    with pytest.raises(ValueError, match="name the notebook"):
        run(None, tmp_path / "runs", resume_from=other)


def test_missing_notebook_lists_those_that_are_there(tmp_path):
    notebook(tmp_path / "here.ipynb")
    with pytest.raises(ValueError, match=r"No notebook .*there.ipynb. In .*here.ipynb"):
        run(tmp_path / "there.ipynb", tmp_path / "runs")
    (tmp_path / "text.ipynb").write_text("not json")
    with pytest.raises(ValueError, match="is not a notebook"):
        run(tmp_path / "text.ipynb", tmp_path / "runs")


def test_an_experiments_params_are_checked_in_the_notebook(tmp_path):
    check = "import workbench as wb\nclass P(wb.Params):\n    epochs: int = 1\nparams = wb.params(globals(), P)"
    good = run(notebook(tmp_path / "a.ipynb", check, parameters="epochs = 1"), tmp_path / "runs", {"epochs": 9})
    assert good.params == {"epochs": 9}
    typo = run(notebook(tmp_path / "b.ipynb", check, parameters="epoch = 1"), tmp_path / "runs")
    assert (typo.status().state, typo.status().cell) == ("failed", 2)
    assert "did you mean 'epochs'" in typo.status().error.value


def test_paths_with_braces_and_long_temporary_folders_work(tmp_path, monkeypatch):
    folder = tmp_path / "{lr}" / ("long" * 30)
    folder.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    done = run(notebook(folder / "a{b}.ipynb", "x = 1"), folder / "runs")
    assert done.status().state == "ok"


@pytest.fixture
def half_trained(tmp_path):
    """A notebook that keeps a checkpoint and fails when `fail` is set; and a run of it that failed."""
    cells = [
        "import workbench as wb\nfolder = wb.current_run().checkpoints",
        "wb.out('found', sorted(p.name for p in folder.iterdir()))",
        "(folder / 'step.json').write_text('7')",
        "assert not __import__('pathlib').Path('fail').exists()",
    ]
    path = notebook(tmp_path / "train.ipynb", *cells)
    (tmp_path / "fail").touch()
    old = run(path, tmp_path / "runs", {"epochs": 8})
    assert old.status().state == "failed"
    (tmp_path / "fail").unlink()
    return old


def test_resume_copies_checkpoints_when_nothing_changed(tmp_path, monkeypatch, half_trained):
    new = execute(None, root=tmp_path / "runs", resume_from=half_trained.name, out=(out := io.StringIO()))
    assert out.getvalue().splitlines()[1] == f"goes on from the checkpoints of {half_trained.name}"
    assert new.outputs()["found"] == ["step.json"]
    assert new.record["resumed_from"] == half_trained.name
    assert new.params["epochs"] == 8
    files = [folder.checkpoints / "step.json" for folder in (half_trained, new)]
    assert files[0].stat().st_ino != files[1].stat().st_ino  # no hard link: the old run stays as it was
    again = execute(None, root=tmp_path / "runs", resume_from=new, out=(out := io.StringIO()))
    assert out.getvalue().splitlines()[1] == f"starts anew: {new.name} ended ok"
    assert again.outputs()["found"] == []


def test_resume_with_other_parameters_starts_anew_and_says_so(tmp_path, half_trained):
    new = execute(None, {"epochs": 9}, root=tmp_path / "runs", resume_from=half_trained, out=(out := io.StringIO()))
    assert out.getvalue().splitlines()[1] == "starts anew: epochs changed"
    assert (new.outputs()["found"], new.params["epochs"], new.record["resumed_from"]) == ([], 9, None)


def test_a_parameter_given_as_it_was_is_no_change(tmp_path, half_trained):
    new = run(None, tmp_path / "runs", {"name": "a"}, resume_from=half_trained)  # "a" is the default
    assert new.outputs()["found"] == ["step.json"]


def test_resume_keeps_the_old_name_unless_another_is_given(tmp_path):
    old = run(notebook(tmp_path / "train.ipynb"), tmp_path / "runs", name="mine")
    again = execute(None, root=tmp_path / "runs", resume_from=old, out=(out := io.StringIO()))
    assert again.record["name"] == "mine"
    assert run(None, tmp_path / "runs", resume_from=old, name="other").record["name"] == "other"
    (old.path / "status.json").unlink()
    run_anew = execute(None, root=tmp_path / "runs", resume_from=old, out=(out := io.StringIO()))
    assert (run_anew.record["resumed_from"], "has no checkpoints" in out.getvalue()) == (None, True)


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_failing_report_leaves_the_run_ok_and_is_said(tmp_path, monkeypatch):
    def broken(run):
        raise KeyError("template")

    monkeypatch.setattr(module, "write_report", broken)
    out = io.StringIO()
    done = execute(notebook(tmp_path / "a.ipynb", "x = 1"), root=tmp_path / "runs", out=out)
    assert done.status().state == "ok"
    assert "report could not be written (KeyError: 'template')" in out.getvalue()


def test_progress_is_printed_per_cell_and_the_next_run_knows_its_time(tmp_path):
    loop = (
        "import workbench as wb\nwith wb.progress(3, 'Train') as bar:\n    bar.update(1)\n    bar.update(2, loss=0.5)"
    )
    path = notebook(tmp_path / "a.ipynb", loop, "# papermill_description=Look_inside\nx = 1")
    out = io.StringIO()
    done = execute(path, root=tmp_path / "runs", out=out)
    lines = out.getvalue().splitlines()
    assert str(done.path) in lines[0]
    assert lines[1].startswith("[1/3] Essay")
    assert lines[2].startswith("[2/3] Part 1")
    assert lines[3].startswith("[3/3] Look inside")
    assert lines[4].startswith("ok after")
    assert len(lines) == 5 or "browser" in lines[5]
    assert (done.path / "report.html").is_file()
    last = [event for event in done.events() if event["kind"] == "progress"][-1]
    assert (last["label"], last["done"], last["total"], last["loss"]) == ("Train", 3, 3, 0.5)
    execute(path, root=tmp_path / "runs", out=(again := io.StringIO()))
    assert "last time" in again.getvalue().splitlines()[0]


def test_the_notebooks_own_time_holds_for_its_own_parameters_only(tmp_path):
    path = notebook(tmp_path / "a.ipynb")
    nb = nbformat.read(path, as_version=4)
    nb.metadata["workbench"] = {"minutes": 2}
    nbformat.write(nb, path)
    first = []
    for parameters in ({"epochs": 1}, None):
        execute(path, parameters, root=tmp_path / "runs", out=(out := io.StringIO()))
        first.append(out.getvalue().splitlines()[0])
    assert ["(about 2 min 0 s)" in line for line in first] == [False, True]


def test_cells_that_share_a_heading_are_told_apart():
    code = nbformat.v4.new_code_cell
    cells = [nbformat.v4.new_markdown_cell("## Data"), code("x = 1"), code(""), code("y = 2"), code("z = 3")]
    cells += [nbformat.v4.new_markdown_cell("## Model"), code("# papermill_description=Look_inside"), code("a = 1")]
    nb = nbformat.v4.new_notebook(cells=cells)
    titles = [title(nb, index) for index in (1, 3, 4, 6, 7)]
    assert titles == ["Data", "Data (2)", "Data (3)", "Look inside", "Model"]


def test_papermill_finds_the_engine_and_sees_a_dead_kernel(tmp_path):
    import papermill

    good = papermill.execute_notebook(
        notebook(tmp_path / "a.ipynb", "x = epochs"), tmp_path / "out.ipynb", engine_name="workbench"
    )
    assert good.cells[-1].execution_count == 2
    killed = notebook(tmp_path / "b.ipynb", "import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(papermill.PapermillExecutionError):
        papermill.execute_notebook(killed, tmp_path / "out.ipynb", engine_name="workbench")


def test_a_figure_bundle_from_a_notebook_is_whole(tmp_path):
    code = (
        "import workbench as wb, plotly.graph_objects as go\n"
        "wb.show(go.Figure(go.Scatter(x=[1, 2], y=[3, 4]), layout={'meta': {'alt': 'A rising line.'}}), name='line')"
    )
    done = run(notebook(tmp_path / "a.ipynb", code), tmp_path / "runs", {"epochs": 2})
    provenance = json.loads((done.figures / "line" / "provenance.json").read_text())
    assert (provenance["run"], provenance["cell"], provenance["params"]["epochs"]) == (done.name, 2, 2)
    nb = nbformat.read(done.path / "notebook.ipynb", as_version=4)
    shown = nb.cells[-1].outputs[0].data
    assert shown["text/plain"] == "A rising line."
    assert shown["application/vnd.plotly.v1+json"]["config"]["showSendToCloud"] is False
