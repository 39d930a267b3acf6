"""Batches through a real Slurm: settings, failures, kills, and jobs that the queue lost."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batch.engine_notebooks import wait_for
from tests.services.slurm import Slurm, slurm
from workbench.batch.batches import Batch
from workbench.batch.executors import complete, flags, job_prefix
from workbench.runs.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
SLOW = "groups:\n  slow: {experiment: tests.batch.errand, params: {steps: 150, seconds: 0.1}}\n"
SOON = ("--slurm-init-seconds-before-status-checks", "1")

PLAN = """\
groups:
  one:
    experiment: tests.batch.errand
    matrix: {value: [1, 2]}
    resources: {threads: 2, memory: 300MB, gpus: 1, minutes: 7}
  bad: {experiment: tests.batch.errand, params: {fails: true}}
  after: {experiment: tests.batch.errand, needs: [one]}
  never: {experiment: tests.batch.errand, needs: [bad], params: {value: 9}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    """One cluster for all tests of this file."""
    with slurm() as running:
        yield running


def start(cluster: Slurm, plan: Path, *more: str) -> subprocess.Popen:
    """Begin a batch on the cluster, as a user does."""
    line = [sys.executable, "-m", "workbench", "batch", str(plan), "--root", str(plan.parent), "--executor", "slurm"]
    return subprocess.Popen(
        [*line, *more, "--", *SOON], cwd=ROOT, env=os.environ | cluster.environment, stdout=subprocess.PIPE, text=True
    )


def written(tmp_path: Path, text: str) -> tuple[Path, Path]:
    """A plan in a file, and the folder that its batch will have."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(text)
    return plan, tmp_path / "plan"


def facts(cluster: Slurm, number: str) -> dict[str, str]:
    """What Slurm knows of a job."""
    said = cluster.call("scontrol", "show", "job", "--oneliner", number)
    return dict(re.findall(r"(\w+)=(\S*)", said))


def standing(folder: Path) -> dict[str, str]:
    """Label of each job to its state."""
    return {row.job.label: row.state for row in Batch(folder).rows()}


def steps(folder: Path) -> int:
    """How far the slow run is."""
    kept = next(iter(folder.glob("runs/slow-*/checkpoints/steps")), None)
    return int(kept.read_text() or 0) if kept else 0


def test_runs_are_jobs_of_slurm_and_one_that_fails_stops_only_those_that_need_it(cluster, tmp_path):
    plan, folder = written(tmp_path, PLAN)
    batch = start(cluster, plan, "--jobs", "4")
    said, _ = batch.communicate(timeout=200)
    expected = {"one value=1": "ok", "one value=2": "ok", "bad": "failed", "after": "ok", "never": "skipped"}
    assert standing(folder) == expected, said
    assert batch.returncode == 1
    records = {path.parent.name.split("-")[0]: read_json(path) for path in folder.glob("runs/*/run.json")}
    jobs = {name: facts(cluster, record["slurm_job"]) for name, record in records.items() if name != "never"}
    assert {name: job["JobState"] for name, job in jobs.items()} == {
        "one": "COMPLETED", "bad": "FAILED", "after": "COMPLETED"
    }  # fmt: skip
    assert (jobs["one"]["NumCPUs"], jobs["one"]["TimeLimit"]) == ("2", "00:07:00")
    assert "mem=300M" in jobs["one"]["TRES"]
    assert jobs["one"]["TresPerJob"] == "gres:gpu:1"
    assert "mem=100M" in jobs["after"]["TRES"]  # what the cluster gives to those that ask for none
    gpus = [read_json(path)["gpus"] for path in folder.glob("runs/one-*/outputs.json")]
    assert set(gpus) <= {"0", "1"}, "Slurm gives each run one of its two"
    again, _ = start(cluster, plan, "--dry-run").communicate(timeout=60)
    assert "2 of 5 would run" in again


def test_killed_batch_goes_on_from_the_checkpoint_and_its_old_jobs_leave_the_queue(cluster, tmp_path):
    plan, folder = written(tmp_path, SLOW)
    batch = start(cluster, plan)
    wait_for(lambda: steps(folder) > 20, "the twentieth step")
    batch.kill()
    batch.communicate(timeout=30)
    old = set(cluster.jobs("running"))
    assert len(old) == 1, "a queue does not notice that its customer is gone"
    batch = start(cluster, plan)
    wait_for(lambda: set(cluster.jobs("running")) - old, "the new job")
    assert old.isdisjoint(cluster.jobs("running"))
    said, _ = batch.communicate(timeout=120)
    assert (batch.returncode, standing(folder)) == (0, {"slow": "ok"}), said
    assert read_json(next(folder.glob("runs/slow-*/outputs.json")))["begun_at"] > 20


def test_cancelled_job_is_not_ok_and_runs_again(cluster, tmp_path):
    plan, folder = written(tmp_path, SLOW)
    batch = start(cluster, plan)
    wait_for(lambda: steps(folder) > 5, "the fifth step")
    cluster.call("scancel", *cluster.jobs("running"))
    said, _ = batch.communicate(timeout=120)
    assert (batch.returncode, standing(folder)) == (1, {"slow": "interrupted"}), said
    batch = start(cluster, plan)
    wait_for(lambda: steps(folder) > 10, "the tenth step")
    batch.send_signal(signal.SIGINT)
    batch.communicate(timeout=120)
    assert batch.returncode == 130
    wait_for(lambda: not cluster.jobs("running,pending,completing"), "the end of the job with its batch")
    assert read_json(next(folder.glob("runs/slow-*/run.json")))["resumed_from"].startswith("slow-")


def test_run_that_another_machine_lost_is_killed_and_runs_again(tmp_path):
    plan, folder = written(tmp_path, "groups:\n  one: {experiment: tests.batch.errand}\n")
    batch = Batch(plan, tmp_path)
    assert [row.state for row in batch.run()] == ["ok"]
    place = next(folder.glob("runs/one-*"))
    (place / "done.json").unlink()
    write_json(place / "status.json", read_json(place / "status.json") | {"state": "running", "host": "elsewhere"})
    assert [row.state for row in batch.rows()] == ["running"]
    batch._note_lost()
    assert [row.state for row in batch.rows()] == ["killed"]
    assert [row.state for row in batch.run()] == ["ok"]


def test_flags_name_a_status_command_that_knows_of_jobs(cluster, tmp_path, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    chosen = flags("slurm", 8, tmp_path)
    assert chosen[chosen.index("--slurm-status-command") + 1] == "squeue"  # this cluster keeps no accounts
    assert chosen[chosen.index("--jobs") + 1] == "8"
    assert flags("local", 8, tmp_path) == ["--executor", "local", "--cores", "8"]
    assert flags("lsf", 8, tmp_path)[:4] == ["--executor", "lsf", "--jobs", "8"]


def test_default_resources_of_a_person_stand_beside_ours_and_win():
    assert complete(["--default-resources", "slurm_partition=gpu", "mem_mb=4000"]) == [
        "--default-resources", "mem_mb=0", "disk_mb=0", "runtime=0", "slurm_partition=gpu", "mem_mb=4000",
    ]  # fmt: skip
    assert complete(["--printshellcmds"]) == ["--printshellcmds"]


def test_names_of_jobs_tell_batch_folders_apart(tmp_path):
    assert job_prefix(tmp_path / "a") != job_prefix(tmp_path / "b")
    assert job_prefix(tmp_path / "a") == job_prefix(tmp_path / "b" / ".." / "a")


def test_cluster_leaves_no_process(tmp_path):
    with slurm() as cluster:
        cluster.call("sbatch", "--output", str(tmp_path / "said"), "--wrap", "hostname; sleep 100")
        wait_for(lambda: "sleep" in {process.name() for process in cluster.processes()}, "the job")
        inside = cluster.processes()
        assert {"munged", "slurmctld", "slurmd"} <= {process.name() for process in inside}
    assert not cluster.processes()
    assert not cluster.folder.exists()
    assert not [process for process in inside if process.is_running() and process.status() != "zombie"]
