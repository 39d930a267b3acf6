"""A status is true even when nobody was left to write it."""

import os
import subprocess
import sys

import pytest

from workbench.runs import provenance
from workbench.runs.provenance import process_start, this_process
from workbench.runs.status import Failure, Status, read


def test_status_is_read_as_it_was_written(tmp_path):
    failure = Failure(name="ValueError", value="x", hint="y")
    written = Status(state="failed", cell=3, cells=9, error=failure, seconds=1.5).write(tmp_path)
    assert read(tmp_path) == written


def test_running_is_believed_while_its_process_lives(tmp_path):
    Status(state="running", **this_process()).write(tmp_path)
    assert read(tmp_path).state == "running"


def test_running_reads_as_killed_when_the_process_is_gone(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(process.pid)
    Status(state="running", **this_process() | {"pid": process.pid, "process_start": start}).write(tmp_path)
    assert read(tmp_path).state == "running"
    assert start != process_start(os.getpid())
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process_start(process.pid) is None  # dead, though nobody has asked for it yet
    process.wait()
    assert read(tmp_path).state == "killed"
    assert f"`workbench run --from {tmp_path.name}`" in read(tmp_path).error.hint


def test_another_process_with_the_same_pid_is_not_mistaken(tmp_path):
    Status(state="running", **this_process() | {"process_start": "1"}).write(tmp_path)
    assert read(tmp_path).state == "killed"


def test_another_host_is_believed(tmp_path):
    Status(state="running", host="elsewhere", pid=1, process_start="1").write(tmp_path)
    assert read(tmp_path).state == "running"


def test_no_status_yet_is_queued_and_a_damaged_one_is_an_error(tmp_path):
    assert read(tmp_path).state == "queued"
    (tmp_path / "status.json").write_text('{"state": "splendid"}')
    with pytest.raises(ValueError, match="is not a status"):
        read(tmp_path)
    (tmp_path / "status.json").write_text('{"sta')
    with pytest.raises(ValueError, match="not readable JSON"):
        read(tmp_path)


@pytest.mark.skipif(not os.path.exists("/bin/ps"), reason="needs ps")
def test_start_times_without_proc():
    assert provenance._process_start_ps(os.getpid())
    assert provenance._process_start_ps(2**22 + 1) is None
