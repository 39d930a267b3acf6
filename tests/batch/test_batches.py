"""Batches: what is done stays done, what changed runs again and says why, what fails or is killed harms no other."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from workbench.batch.batches import Batch
from workbench.batch.ingredients import key_of, package_files, why
from workbench.batch.plan import read_plan

ROOT = Path(__file__).resolve().parents[2]
TOY = """
profile: default
seeds: [0, 1]
groups:
  good: {experiment: tests.search.toy, matrix: {lr: [1e-2, 3e-2]}}
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def plan(text: str, name: str = "plan.yaml") -> Path:
    Path(name).write_text(text)
    return Path(name)


def states(batch: Batch) -> Counter:
    return Counter(row.state for row in batch.rows())


def notebook(name: str, *cells: str) -> Path:
    first = new_code_cell("number = 3\nseed = 0", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[first, *map(new_code_cell, cells)]), name)
    return Path(name)


def test_done_work_is_not_done_again_and_a_change_runs_what_depends_on_it():
    batch = Batch(plan(TOY))
    assert list(batch.reasons().values()) == ["new"] * 4
    assert Counter(row.state for row in batch.run(2)) == {"ok": 4}
    begun = {row.job.name: row.run.record["created"] for row in batch.rows()}
    again = Batch(plan(TOY))
    assert again.reasons() == {}
    assert Counter(row.state for row in again.run(2)) == {"ok": 4}
    assert {row.job.name: row.run.record["created"] for row in again.rows()} == begun
    changed = Batch(plan(TOY.replace("matrix:", "params: {batch: 4}, matrix:")))
    assert set(changed.reasons().values()) == {"params: batch absent -> 4"}
    page = (batch.folder / "index.html").read_text()
    assert "4 of 4 done" in page
    assert "http" not in page.replace("http-equiv", "")


def test_one_failing_run_stops_only_what_needs_it():
    batch = Batch(
        plan(
            """
groups:
  bad: {experiment: tests.search.toy, params: {fail: broken on purpose}}
  good: {experiment: tests.search.toy}
  after: {experiment: tests.search.toy, params: {lr: 0.5}, needs: [bad]}
"""
        )
    )
    ended = {row.job.group: row for row in batch.run(1)}
    assert {group: row.state for group, row in ended.items()} == {"bad": "failed", "good": "ok", "after": "skipped"}
    assert ended["bad"].status.error.value == "broken on purpose"
    assert "bad-" in ended["after"].status.error.value


def test_twelve_notebooks_at_once_do_not_collide():
    notebook("tiny.ipynb", "import workbench as wb\nwb.out('double', 2 * number)")
    numbers = ", ".join(map(str, range(12)))
    batch = Batch(plan(f"groups:\n  tiny: {{notebook: tiny.ipynb, matrix: {{number: [{numbers}]}}}}"))
    ended = batch.run(12)
    assert Counter(row.state for row in ended) == {"ok": 12}
    assert [row.run.outputs()["double"] for row in ended] == [2 * number for number in range(12)]


def test_a_group_is_given_the_run_folders_of_another():
    notebook("reads.ipynb", "import workbench as wb\nwb.out('given', number)")
    text = TOY + "  reads: {notebook: reads.ipynb, params: {number: '${good}'}, seeds: [0]}\n"
    batch = Batch(plan(text))
    ended = {row.job.group: row for row in batch.run(2)}
    given = ended["reads"].run.outputs()["given"]
    assert [Path(folder).parent.name for folder in given] == ["runs"] * 4
    assert all((Path(folder) / "outputs.json").is_file() for folder in given)


def command(*more: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "workbench", "batch", "plan.yaml", "--jobs", "2", *more]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


SLOW = "groups:\n  slow: {experiment: tests.search.toy, params: {pause: 0.1}, seeds: [0, 1]}\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_interrupted_in_the_middle_it_goes_on_from_the_checkpoints(number):
    batch = Batch(plan(SLOW))
    first = command()
    wait_until(lambda: len(list(batch.folder.glob("runs/*/checkpoints/line/*"))) == 2, first)
    os.kill(first.pid, number)
    first.communicate(timeout=60)
    assert first.returncode == (130 if number == signal.SIGINT else -number)
    wait_until(lambda: states(batch)["running"] == 0, None)  # jobs of a batch that is gone stop by themselves
    assert states(batch)["ok"] == 0
    second = command()
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    for row in batch.rows():
        assert row.state == "ok"
        assert row.run.record["resumed_from"].endswith(".1")
        assert json.loads((row.run.path / "metrics.jsonl").read_text().splitlines()[0])["step"] > 10


def test_two_batches_at_once_in_one_folder_are_refused():
    batch = Batch(plan(SLOW))
    first = command()
    wait_until(lambda: states(batch)["running"], first)
    with pytest.raises(ValueError, match=f"another batch is running in .* \\(process {first.pid} on"):
        batch.run(1)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)


def wait_until(true: object, process: subprocess.Popen | None) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, process and process.communicate()[0]
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("groups:\n  a: {experimnt: forecast}", "line 2, groups.a.experimnt: unknown key; did you mean 'experiment'"),
        ("groups:\n  a: {experiment: forcast}", "did you mean 'forecast'"),
        ("groups:\n  a:\n    experiment: forecast\n    matrix: {lrr: [1]}", "did you mean 'lr'"),
        ("groups:\n  a: {experiment: forecast, needs: [b]}", "line 2, groups.a"),
        ("groups:\n  a: {experiment: forecast, matrix: {lr: [0.1, 0.1]}}", "would write"),
        ("groups:\n  a: {experiment: forecast, matrix: {xlstm_width: [30]}}", "not a multiple of heads"),
        ("groups:\n  a: {experiment: forecast, needs: [b]}\n  b: {experiment: forecast, needs: [a]}", "circle"),
        ("groups:\n  a: {experiment: forecast}\n  a: {experiment: forecast}", "line 2: 'a' is given twice"),
        ("groups: [", "line 1"),
        ("groups:\n  a: {experiment: forecast, notebook: x.ipynb}", "either an experiment or a notebook"),
    ],
)
def test_a_plan_that_cannot_run_says_where_and_why(text, says):
    with pytest.raises(ValueError, match=says):
        Batch(plan(text))


def test_numbers_of_a_plan_are_numbers():
    group = read_plan(plan("groups:\n  a: {experiment: forecast, matrix: {lr: [1e-3, .5, no]}}")).groups["a"]
    assert group.matrix["lr"] == [1e-3, 0.5, "no"]


def test_a_run_depends_on_the_files_that_its_code_imports_and_on_no_others():
    files = package_files("import workbench.experiments.forecast")
    assert {"workbench/cells/mlstm.py", "workbench/kernels/mlstm/chunkwise.py", "workbench/training/fit.py"} <= set(
        files
    )
    assert not [name for name in files if name.startswith(("workbench/widgets", "workbench/batch", "workbench/plots"))]
    lazily = package_files("import workbench as wb\nfrom workbench import plots\nplots.loss_curves\nwb.show")
    assert {"workbench/plots/training.py", "workbench/runs/current.py"} <= set(lazily)
    assert "workbench/plots/gates.py" not in lazily


def test_why_names_what_changed():
    before = {"params": {"lr": 1}, "package": {"a.py": "1", "b.py": "2"}, "notebook": "x"}
    after = {"params": {"lr": 2}, "package": {"a.py": "1", "b.py": "3"}, "notebook": "y"}
    assert why(before, after) == ["notebook: changed", "package: b.py changed", "params: lr 1 -> 2"]
    assert key_of(before) != key_of(after)
    assert key_of(before) == key_of(dict(reversed(before.items())))
