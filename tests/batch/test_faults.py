"""A batch on a disk that fills up or cannot be written: nothing is lost, and it goes on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.services.disk import fill, forbid_writing, small_disk
from workbench.batch.batches import Batch

ROOT = Path(__file__).resolve().parents[2]
PLAN = "groups:\n  slow: {experiment: tests.search.toy, params: {pause: 0.05}, seeds: [0, 1, 2, 3]}\n"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(PLAN)


def start(root: Path) -> subprocess.Popen:
    line = [sys.executable, "-m", "workbench", "batch", "plan.yaml", "--jobs", "1", "--root", str(root)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(process: subprocess.Popen, *codes: int) -> str:
    out, _ = process.communicate(timeout=150)
    assert process.returncode in codes, out
    return out


def test_a_disk_that_fills_up_fails_runs_and_once_there_is_room_they_go_on(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        first = start(disk)
        done = disk / "plan" / "runs"
        deadline = time.monotonic() + 90
        while not list(done.glob("*/done.json")) and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        filler = fill(disk)
        assert "No space left on device" in said(first, 1, 2)
        kept = {path.parent.name: path.read_bytes() for path in done.glob("*/done.json")}
        assert 1 <= len(kept) < 4
        filler.unlink()
        assert "4 of 4 done" in said(start(disk), 0)
        assert {name: (done / name / "done.json").read_bytes() for name in kept} == kept
        assert [row.state for row in Batch(disk / "plan").rows()] == ["ok"] * 4


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        forbid_writing(disk)
        text = said(start(disk), 2)
    assert f"{disk / 'plan'} cannot be written (Read-only file system)" in text
    assert "--root" in text
