"""Manifests for Kubernetes: what its own models say of them, and what their pods do when they run here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes.client as api
import pytest
import yaml

from tests.services.postgres import postgres
from workbench.batch import kubernetes
from workbench.batch.batches import Batch
from workbench.batch.executors import flags
from workbench.batch.kubernetes import Place, batch_manifests, dns_label, search_manifests, write_manifests
from workbench.cli import main

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"Job": "V1Job", "ConfigMap": "V1ConfigMap", "PersistentVolumeClaim": "V1PersistentVolumeClaim"}
PLACE = Place("registry.example/workbench:1")
STORAGE = "postgresql://searcher@db.example:5432/studies"
PLAN = """\
groups:
  LSTM_arms:
    experiment: tests.batch.errand
    matrix: {value: [1, 2]}
    resources: {threads: 3, memory: 1.5GB, gpus: 2, minutes: 7}
  bad: {experiment: tests.batch.errand, params: {fails: true}}
  after: {experiment: tests.batch.errand, needs: [LSTM_arms], resources: {minutes: 5}}
  never: {experiment: tests.batch.errand, needs: [bad], params: {value: 9}}
"""


@pytest.fixture
def batch(tmp_path, monkeypatch) -> Batch:
    """A batch of four groups."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "plan.yaml").write_text(PLAN)
    return Batch(tmp_path / "plan.yaml", tmp_path / "batches")


def searched(workers: int = 8) -> dict[str, list]:
    """The manifests of a search."""
    words = ("forecast", "--trials", "100")
    return search_manifests("lr", words, workers, PLACE, storage=STORAGE, secret="vault", threads=2)


def read(paths: list[Path]) -> list[dict]:
    """All manifests of some files."""
    return [manifest for path in paths for manifest in yaml.safe_load_all(path.read_text())]


def as_model(manifest: dict) -> object:
    """A manifest in the model that the Kubernetes client makes of the API's own description."""
    answer = type("Answer", (), {"data": json.dumps(manifest)})
    return api.ApiClient().deserialize(answer, MODELS[manifest["kind"]])


@pytest.mark.parametrize("kind", ["batch", "search"])
def test_models_of_kubernetes_know_every_field(batch, kind, tmp_path):
    files = batch_manifests(batch, PLACE) if kind == "batch" else searched()
    manifests = read(write_manifests(tmp_path / "to", files))
    assert {one["kind"] for one in manifests} >= {"Job", "PersistentVolumeClaim"}
    for manifest in manifests:
        assert api.ApiClient().sanitize_for_serialization(as_model(manifest)) == manifest


def test_model_drops_a_field_that_kubernetes_does_not_know(batch):
    manifest = batch_manifests(batch, PLACE)["02-bad"][0]
    manifest["spec"]["backofLimit"] = 3
    assert api.ApiClient().sanitize_for_serialization(as_model(manifest)) != manifest


def test_groups_are_indexed_jobs_with_the_resources_of_the_plan(batch):
    files = batch_manifests(batch, PLACE)
    assert list(files) == ["00-volume", "01-LSTM_arms", "02-bad", "03-after", "04-never"]
    arms, after = (as_model(files[name][0]).spec for name in ("01-LSTM_arms", "03-after"))
    assert (arms.completion_mode, arms.completions, arms.parallelism, arms.backoff_limit_per_index) == (
        "Indexed",
        2,
        2,
        0,
    )
    pod = arms.template.spec
    assert pod.containers[0].resources.requests == {"cpu": "3", "memory": "1500000000"}
    assert pod.containers[0].resources.limits == {"memory": "1500000000", "nvidia.com/gpu": "2"}
    assert (pod.restart_policy, pod.active_deadline_seconds) == ("Never", 420)
    assert after.template.spec.active_deadline_seconds is None, "it would end while it waits for others"
    assert files["00-volume"][1]["data"] == {"plan.yaml": PLAN}


@pytest.mark.parametrize("parts", [("batch", "plan", "LSTM_arms"), ("batch", "x" * 80, "y"), ("batch", "a--b", "ü")])
def test_names_are_dns_labels(parts):
    name = dns_label(*parts)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(f"{name}-999") <= 63  # the host name of the pod of an index


def test_names_that_differ_stay_apart():
    assert dns_label("batch", "plan", "LSTM_arms") != dns_label("batch", "plan", "lstm-arms")
    assert dns_label("batch", "x" * 80 + "a") != dns_label("batch", "x" * 80 + "b")
    assert dns_label("batch", "plan", "arms") == "batch-plan-arms"


def pod_runs(folder: Path, manifest: dict, index: int) -> subprocess.CompletedProcess:
    """Run the command of a pod here, its volumes at other paths."""
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    line = [
        word.replace("/work", str(folder / "work")).replace("/plan/", f"{folder}/") for word in container["command"]
    ]
    variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    environment = (
        os.environ
        | variables
        | {"JOB_COMPLETION_INDEX": str(index), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    )
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_pods_of_a_batch_run_it(batch, tmp_path):
    jobs = {name: manifests[0] for name, manifests in batch_manifests(batch, PLACE).items() if name != "00-volume"}
    ends = {
        (name, index): pod_runs(tmp_path, job, index)
        for name, job in jobs.items()
        for index in range(job["spec"]["completions"])
    }
    assert {key: end.returncode for key, end in ends.items()} == {
        ("01-LSTM_arms", 0): 0, ("01-LSTM_arms", 1): 0, ("02-bad", 0): 1, ("03-after", 0): 0, ("04-never", 0): 2
    }, [end.stderr for end in ends.values()]  # fmt: skip
    assert "which did not end ok" in ends["04-never", 0].stderr
    states = [row.state for row in Batch(tmp_path / "plan.yaml", tmp_path / "work" / "batches").rows()]
    assert states == ["ok", "ok", "failed", "ok", "queued"]
    assert pod_runs(tmp_path, jobs["03-after"], 0).returncode == 0, "done work is not done again"
    assert not (tmp_path / "work" / "batches" / "plan" / "attempts").exists()
    assert "no index 2" in pod_runs(tmp_path, jobs["01-LSTM_arms"], 2).stderr


def test_search_takes_its_password_from_a_secret(tmp_path):
    lead, workers = (as_model(one) for one in searched()["01-search"])
    assert (lead.metadata.name, workers.metadata.name) == ("search-lr-lead", "search-lr-workers")
    assert (lead.spec.parallelism, workers.spec.parallelism, workers.spec.completions) == (1, 7, 7)
    for job in (lead, workers):
        storage, password = job.spec.template.spec.containers[0].env[1:]
        assert (storage.name, storage.value) == ("WORKBENCH_STORAGE", STORAGE)
        assert (password.name, password.value) == ("PGPASSWORD", None)
        assert (password.value_from.secret_key_ref.name, password.value_from.secret_key_ref.key) == (
            "vault",
            "password",
        )
    assert len(searched(workers=1)["01-search"]) == 1
    with pytest.raises(ValueError, match="holds a password; leave it out"):
        search_manifests("lr", (), 2, PLACE, storage="postgresql://a:geheim@db/x", secret="vault")


def test_pods_of_a_search_reach_the_database_by_these_variables(tmp_path, monkeypatch):
    with postgres() as server:
        monkeypatch.setenv("PGPASSWORD", server.password)
        words = ("tests.search.toy", "--trials", "3", "--seeds", "1", "--top", "1")
        url = server.url.replace(f":{server.password}", "")
        files = search_manifests("toy", words, 2, PLACE, storage=url, secret="vault")
        lead, workers = files["01-search"]
        end = pod_runs(tmp_path, lead, 0)
        assert end.returncode == 0, end.stdout + end.stderr
        joined = pod_runs(tmp_path, workers, 0)
        assert "Nothing is left to do" in joined.stdout, joined.stderr
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in written if server.password.encode() in path.read_bytes()]


def test_command_writes_the_manifests(batch, tmp_path, capsys):
    to = tmp_path / "manifests"
    assert main(["kubernetes", "batch", str(batch.source), "--to", str(to), "--image", "x", "--gigabytes", "0"]) == 0
    assert [one["kind"] for one in read(sorted(to.glob("*.yaml")))] == ["ConfigMap", "Job", "Job", "Job", "Job"]
    line = ["kubernetes", "search", "lr", "--storage", STORAGE, "--to", str(to), "--image", "x"]
    assert main([*line, "--", "forecast", "--trials", "9"]) == 0
    jobs = [one for one in read([to / "01-search.yaml"]) if one["kind"] == "Job"]
    assert jobs[0]["spec"]["template"]["spec"]["containers"][0]["command"][3:7] == [
        "search",
        "forecast",
        "--trials",
        "9",
    ]
    assert main(line) == 2
    assert "what is searched is missing" in capsys.readouterr().err


def test_snakemakes_own_executor_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match="shares no files with pods"):
        flags("kubernetes", 4, tmp_path)


def test_place_has_a_volume_of_its_own_or_takes_one(batch):
    assert len(kubernetes.batch_manifests(batch, Place("x", "mine", 0))["00-volume"]) == 1
    claim = batch_manifests(batch, Place("x", "mine", 7))["00-volume"][0]
    assert (claim["metadata"]["name"], claim["spec"]["resources"]["requests"]["storage"]) == ("mine", "7Gi")
