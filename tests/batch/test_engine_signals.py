"""Ctrl-C, a killed parent, runs side by side: no orphan, no lie, no collision."""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

from tests.batch.engine_notebooks import is_gone, notebook, start, wait_for
from workbench.batch.kernel import kernel_manager
from workbench.runs import store

TRAIN = """
import os, pathlib, time
import workbench as wb
try:
    wb.out("pid", os.getpid())
    time.sleep(600)
except KeyboardInterrupt:
    (wb.current_run().checkpoints / "kept.json").write_text("learned")
    if name == "again":
        raise
"""

DEAF = """
import os, time
import workbench as wb
while True:
    try:
        wb.out("pid", os.getpid())
        time.sleep(600)
    except KeyboardInterrupt:
        wb.out("asked", True)
"""

BUSY = """
import ctypes, os
import workbench as wb
wb.out("pid", os.getpid())
ctypes.PyDLL(None).sleep(600)  # it keeps the interpreter's lock: no thread of the kernel can look for its parent
"""


def only_run(root):
    entries = store.entries(root)
    return entries[0].run if entries else None


def begin(tmp_path, *cells, **options):
    """Start a run in another process, and wait until its kernel trains; the process, the run, the kernel's pid."""
    root = tmp_path / "runs"
    process = start(notebook(tmp_path / "train.ipynb", *cells), root, **options)
    pid = wait_for(lambda: (run := only_run(root)) and run.outputs().get("pid"), "training")
    return process, only_run(root), pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["ends well", "again"])
def test_interrupt_keeps_what_was_learned(tmp_path, number, name):
    process, run, pid = begin(tmp_path, TRAIN, "wb.out('later', 1)", name=name)
    process.send_signal(number)
    assert process.wait(60) == 0
    assert f"run --from {run.name}`" in run.status().error.hint
    status = run.status()
    assert (status.state, status.cell) == ("interrupted", 2)
    assert (run.checkpoints / "kept.json").read_text() == "learned"
    assert "later" not in run.outputs()
    assert (run.path / "report.html").exists()
    nb = nbformat.read(run.path / "notebook.ipynb", as_version=4)
    assert nb.cells[-1].metadata.papermill.status == "pending"
    assert is_gone(pid)


def test_the_first_interrupt_is_answered_at_once(tmp_path):
    root = tmp_path / "runs"
    command = [sys.executable, "-m", "workbench", "run", str(notebook(tmp_path / "deaf.ipynb", DEAF))]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (run := only_run(root)) and run.outputs().get("pid"), "training")
        process.send_signal(signal.SIGINT)
        line = next(line for line in process.stdout if "→" not in line and not line.startswith("["))
        assert line == "Stopping; what was learned is kept. Ctrl-C again kills.\n"
        assert process.poll() is None  # the cell is deaf, and has its time to end
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().count("Stopping") == 0
    assert process.returncode == 130


def test_a_second_interrupt_does_not_wait(tmp_path):
    process, run, pid = begin(tmp_path, DEAF, grace_seconds=600)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: run.outputs().get("asked"), "the first interrupt")
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0  # less than the patience with a single one
    assert run.status().state == "interrupted"
    assert is_gone(pid)


def test_a_killed_parent_reads_as_killed_and_takes_its_kernel_along(tmp_path):
    process, run, pid = begin(tmp_path, TRAIN)
    assert run.status().state == "running"
    process.kill()
    process.wait()
    assert json.loads((run.path / "status.json").read_text())["state"] == "running"
    assert run.status().state == "killed"
    wait_for(lambda: is_gone(pid), "the end of the kernel", 20)
    owners = Path(tempfile.gettempdir()).glob("wb-kernel-*/owner.json")
    (left,) = [owner for owner in owners if json.loads(owner.read_text())["pid"] == process.pid]
    with kernel_manager():  # the next kernel sweeps
        assert not left.parent.exists()


def test_a_kernel_busy_outside_of_python_dies_with_its_parent(tmp_path):
    process, _, pid = begin(tmp_path, BUSY)
    process.kill()
    process.wait()
    wait_for(lambda: is_gone(pid), "the end of the kernel", 20)


def test_runs_side_by_side_do_not_meet(tmp_path):
    path = notebook(tmp_path / "side.ipynb", "import workbench as wb\nwb.out('epochs', epochs)")
    processes: list[subprocess.Popen] = [start(path, tmp_path / "runs", epochs=number) for number in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    runs = [entry.run for entry in store.entries(tmp_path / "runs")]
    assert [run.status().state for run in runs] == ["ok"] * 4
    assert sorted(run.outputs()["epochs"] for run in runs) == [0, 1, 2, 3]
    assert all(run.outputs()["epochs"] == run.params["epochs"] for run in runs)
