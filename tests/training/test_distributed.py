"""Two processes train as one does: the same losses, however they hold the weights, and through any change of layout."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training import two_processes
from tests.training.two_processes import losses
from workbench.runs import store
from workbench.training.distributed import joined

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def torchrun(*arguments: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """What two processes found, beside progress that one process had left, and what they left."""
    folder = tmp_path_factory.mktemp("together")
    for layout in ("ddp", "shard"):
        losses(folder / f"one-{layout}", stop=True)
    found = {}
    for layout in ("ddp", "shard", "ddp", "shard"):
        together = torchrun(two_processes.__file__, str(folder), layout, folder=folder)
        said, _ = together.communicate(timeout=120)
        assert together.returncode == 0, said
    for file in folder.glob("*.json"):
        found[file.stem] = json.loads(file.read_text())
    return found, folder


@pytest.fixture(scope="module")
def alone() -> list[float]:
    return losses(None)


@pytest.mark.parametrize("layout", ["ddp", "shard"])
def test_two_processes_have_the_losses_of_one(found, alone, layout):
    assert found[0][layout]["losses"] == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_the_wrapping_really_happened(found):
    total = sum(x.numel() for x in two_processes.net().parameters())
    ddp, shard = found[0]["ddp"]["wrapping"], found[0]["shard"]["wrapping"]
    assert (ddp["replica"], ddp["sharded"], ddp["local"]) == (True, 0, total)
    assert (shard["replica"], shard["sharded"]) == (False, 3)  # two blocks and the root
    assert total / 2 <= shard["local"] < 0.6 * total  # odd sizes are not halved
    assert ddp["rows"] == shard["rows"] <= 12  # of 23 validation rows


@pytest.mark.parametrize("layout", ["ddp", "shard"])
def test_what_one_process_began_two_finish(found, alone, layout):
    assert found[0][layout]["from one"] == pytest.approx(alone, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("layout", ["ddp", "shard"])
def test_what_two_processes_began_one_finishes_from_one_file(found, alone, layout):
    (file,) = (found[1] / f"{layout}-one").iterdir()
    assert file.suffix == ".safetensors"
    assert losses(found[1] / f"{layout}-one") == pytest.approx(alone, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("layout", ["ddp", "shard"])
def test_a_training_goes_on_in_the_other_layout(found, alone, layout):
    assert found[0][f"{layout}-moved"]["moved"] == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_what_cannot_be_shared_is_refused(found):
    for layout in ("ddp", "shard"):
        assert found[0][layout]["few"] == (
            "ValueError: a batch of 1 rows cannot be split over 2 processes; take a larger one."
        )
    assert "no longer hold the same weights" in found[0]["ddp"]["around"]
    with pytest.raises(ValueError, match="one process cannot train in parallel; use torchrun"), joined("ddp"):
        pass


def test_any_experiment_runs_under_torchrun(tmp_path):
    run = (
        "-m",
        "workbench",
        "run",
        "forecast",
        "--profile",
        "smoke",
        "-p",
        "networks",
        '["LSTM"]',
        "--parallel",
        "ddp",
    )
    together = torchrun(*run, folder=tmp_path)
    said, _ = together.communicate(timeout=120)
    assert together.returncode == 0, said
    (entry,) = store.entries(tmp_path / "runs")
    assert entry.status.state == "ok"
    assert (entry.run.record["processes"], entry.run.record["parallel"]) == (2, "ddp")
    assert said.count("has the smallest mean absolute error") == 1, "one process speaks"


def long_training(folder: Path) -> subprocess.Popen:
    run = ("-m", "workbench", "run", "tests.search.toy", "-p", "pause", "0.05", "-p", "steps", "4000")
    together = torchrun(*run, "--parallel", "ddp", folder=folder)
    deadline = time.monotonic() + 60
    while not list(folder.glob("runs/*/metrics.jsonl")):
        assert time.monotonic() < deadline, together.communicate()[0]
        time.sleep(0.2)
    return together


def test_ctrl_c_ends_all_processes_and_keeps_what_was_learned(tmp_path):
    together = long_training(tmp_path)
    together.send_signal(signal.SIGINT)
    together.wait(60)
    (entry,) = store.entries(tmp_path / "runs")
    assert entry.status.state == "interrupted"
    assert list(entry.run.checkpoints.glob("line/progress-*"))


def test_a_killed_process_takes_the_others_with_it(tmp_path):
    together = long_training(tmp_path)
    (entry,) = store.entries(tmp_path / "runs")
    children = Path(f"/proc/{together.pid}/task/{together.pid}/children").read_text().split()
    other = next(int(pid) for pid in children if int(pid) != entry.status.pid)
    os.kill(other, signal.SIGKILL)
    assert together.wait(90) != 0
    (entry,) = store.entries(tmp_path / "runs")
    assert entry.status.state in ("killed", "failed", "interrupted")
