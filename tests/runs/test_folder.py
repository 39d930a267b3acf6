"""A run folder: whole files, appended lines, plain JSON, figures with their numbers."""

import json
import signal
import subprocess
import sys
from datetime import datetime

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest
import torch

from workbench.runs.folder import Run


@pytest.fixture
def run(tmp_path):
    return Run.create("A test/of names", root=tmp_path, params={"epochs": 3, "seed": 7})


def test_run_json_says_what_was_asked_and_where(run):
    record = json.loads((run.path / "run.json").read_text())
    assert run.path.name == f"{datetime.now():%Y-%m-%d}-A-test-of-names-{record['id']}"
    assert (record["params"], record["seed"]) == ({"epochs": 3, "seed": 7}, 7)
    assert {"commit", "dirty", "versions", "host", "pid", "process_start", "data"} <= record.keys()
    assert record["versions"]["torch"] == torch.__version__
    run.uses_data("traffic", "ab12")
    assert Run.open(run.path).record["data"] == {"traffic": "ab12"}


def test_opening_what_is_no_run_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"no run\.json"):
        Run.open(tmp_path)


def test_logs_append_and_forget_a_line_cut_short(run):
    run.log(step=1, loss=0.5)
    run.log(step=2, loss=float("nan"))
    assert [(line["step"], line["loss"]) for line in run.metrics()] == [(1, 0.5), (2, None)]
    run.event("note", text="ä")
    events = run.path / "events.jsonl"
    events.write_text(events.read_text() + '{"kind": "cut sho')
    script = f"from workbench.runs.folder import Run; Run.open({str(run.path)!r}).event('later')"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert [event["kind"] for event in run.events()] == ["note", "later"]
    assert all("time" in event for event in run.events())


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float32(1.5), 1.5),
        (np.arange(3), [0, 1, 2]),
        (np.array([1.0, np.nan]), [1.0, None]),
        (torch.tensor([1.0, 2.0], requires_grad=True), [1.0, 2.0]),
        ({"a": (1, float("inf"))}, {"a": [1, None]}),
        (np.bool_(True), True),
        ({3: "x"}, {"3": "x"}),
    ],
)
def test_outputs_are_strict_json(run, value, kept):
    run.out("x", value)
    assert json.loads((run.path / "outputs.json").read_text(), parse_constant=pytest.fail) == {"x": kept}


def test_what_json_cannot_hold_is_refused_and_nothing_changes(run):
    run.out("x", 1)
    with pytest.raises(TypeError, match=r"y\['a'\]\[0\] is a object"):
        run.out("y", {"a": [object()]})
    assert run.outputs() == {"x": 1}


def test_a_kill_in_the_middle_of_writing_leaves_the_old_outputs(run):
    run.out("x", "old")
    script = (
        "import os, signal; from workbench.runs.folder import Run\n"
        f"run = Run.open({str(run.path)!r})\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "run.out('x', 'new')"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert run.outputs() == {"x": "old"}


def test_a_full_disk_leaves_the_old_outputs_and_no_draft(run, monkeypatch):
    run.out("x", "old")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        run.out("x", "new")
    assert run.outputs() == {"x": "old"}
    assert sorted(path.name for path in run.path.iterdir()) == ["outputs.json", "run.json"]


def test_figure_bundle_holds_drawing_numbers_and_origin(run):
    fig = go.Figure(
        [go.Scatter(x=[1, 2], y=[3.0, 4.0], name="line"), go.Heatmap(z=[[1, 2, 3], [4, 5, 6]], y=["a", "b"])]
    )
    folder = run.figure(fig, "gates-0", "What it shows")
    assert sorted(path.name for path in folder.iterdir()) == ["data.parquet", "figure.json", "provenance.json"]
    assert json.loads((folder / "figure.json").read_text())["data"][0]["name"] == "line"
    data = pl.read_parquet(folder / "data.parquet")
    assert data.filter(trace=0).select("x", "y").rows() == [(1, "3.0"), (2, "4.0")]  # beside text: text
    assert data.filter(trace=1)["z"].to_list() == [1, 2, 3, 4, 5, 6]
    assert data.filter(trace=1)["y"].to_list() == list("aaabbb")
    provenance = json.loads((folder / "provenance.json").read_text())
    assert (provenance["caption"], provenance["params"]["epochs"], provenance["seed"]) == ("What it shows", 3, 7)


@pytest.mark.parametrize(
    "trace",
    [
        go.Scatter(x=[datetime(2026, 1, 1)], y=[1]),
        go.Scatter(x=np.array(["2026-01-01"], dtype="datetime64[s]"), y=np.ones(1, np.float32)),
        go.Bar(x=["a", None], y=[1, None]),
        go.Table(header={"values": ["a"]}),
        go.Scatter3d(x=[1], y=[2], z=[3]),
        go.Pie(labels=["a"], values=[1]),
    ],
)
def test_any_trace_can_be_saved(run, trace):
    assert (run.figure(go.Figure(trace), "f") / "data.parquet").exists()


def test_a_name_that_leaves_the_folder_is_refused(run):
    with pytest.raises(ValueError, match="cannot name a figure"):
        run.figure(go.Figure(), "../../x")
    with pytest.raises(TypeError, match="give a plotly"):
        run.figure("no figure", "x")


def test_run_shows_itself(run):
    assert "queued" in repr(run)
    assert "<th" in run._repr_html_()
    assert "epochs" in run._repr_html_()
