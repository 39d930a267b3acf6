"""Batches and searches as Kubernetes manifests: an indexed Job for each group, workers of a search on one database.

All pods share one volume, which holds the batch and study folders, and one image, which holds the project.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from workbench.batch.attempt import run_job
from workbench.batch.batches import Batch
from workbench.batch.jobs import Job, write_jobs
from workbench.batch.lock import LOCK
from workbench.batch.memory import size
from workbench.batch.standing import BAD, is_done, rows
from workbench.runs.files import now, write_bytes, write_json
from workbench.runs.folder import Run
from workbench.runs.provenance import this_process

_MOUNT, _PLAN = "/work", "/plan"
_NAME_LENGTH = 52  # of 63: Kubernetes adds the index and a suffix to the names of pods
_EVERY_SECONDS = 2.0

Manifest = dict[str, object]


class _Dumper(yaml.SafeDumper):
    """YAML in which a text of several lines stands as it was written."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


@dataclass(frozen=True)
class Place:
    """Where pods run.

    Attributes:
        image: holds Python, the package with its extras `lab` and `cluster`, and the project as working folder.
        claim: the volume claim that all pods share.
        storage: gigabytes of a claim that is made anew; 0 takes one that is there.
    """

    image: str
    claim: str = "workbench"
    storage: int = 50


def dns_label(*parts: str) -> str:
    """A name that Kubernetes takes; a hash keeps apart what would become the same."""
    whole = "-".join(parts)
    short = re.sub(r"[^a-z0-9]+", "-", whole.lower()).strip("-")
    if short == whole and len(whole) <= _NAME_LENGTH:
        return whole
    return f"{short[: _NAME_LENGTH - 7].rstrip('-')}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"


def batch_manifests(batch: Batch, place: Place) -> dict[str, list[Manifest]]:
    """The files of a batch: the volume and the plan, and an indexed Job for each group, in the order of their needs."""
    plan = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _plan_name(batch)}}
    text = {f"{batch.folder.name}.yaml": batch.source.read_text(encoding="utf-8")}
    files = {"00-volume": [*_volume(place), {**plan, "data": text}]}
    for number, group in enumerate(batch.plan.ordered(), start=1):
        files[f"{number:02}-{group}"] = [_group(batch, [job for job in batch.jobs if job.group == group], place)]
    return files


def search_manifests(
    study: str, words: Sequence[str], workers: int, place: Place, *, storage: str, secret: str, threads: int = 1
) -> dict[str, list[Manifest]]:
    """The files of a search: a pod that leads it, and workers that join.

    Args:
        study: its name.
        words: what stands behind `workbench search`, without --name, --root, --workers and --storage.
        workers: pods that run trials, the leader's among them.
        place: where they run.
        storage: URL of the PostgreSQL database, with no password in it.
        secret: the Secret whose key `password` is the password of the database.
        threads: CPU threads of each pod.

    Raises:
        ValueError: the URL holds a password, or there are no workers.
    """
    if re.search(r"://[^/@]*:[^/@]*@|passw", storage):
        raise ValueError(f"the storage URL holds a password; leave it out: it comes from the Secret {secret!r}.")
    if workers < 1:
        raise ValueError(f"workers={workers} is none; give at least 1.")
    password = {"secretKeyRef": {"name": secret, "key": "password"}}
    database = [{"name": "WORKBENCH_STORAGE", "value": storage}, {"name": "PGPASSWORD", "valueFrom": password}]
    root = f"{_MOUNT}/studies"
    leads = ["python", "-m", "workbench", "search", *words, "--name", study, "--root", root, "--workers", "1"]
    waits = 'until [ -e "$1/study.json" ]; do sleep 2; done; exec python -m workbench search worker "$1"'
    joins = ["sh", "-c", waits, "worker", f"{root}/{study}"]
    asked = {"threads": threads, "memory": None, "gpus": 0}
    jobs = []
    for role, line, pods in (("lead", leads, 1), ("workers", joins, workers - 1)):
        pod = {**_pod(line, asked, place, database), "restartPolicy": "OnFailure"}
        settings = {"parallelism": pods, "completions": pods, "backoffLimit": 20}
        jobs += [_job(dns_label("search", study, role), pod, settings)] if pods else []
    return {"00-volume": _volume(place), "01-search": jobs}


def write_manifests(folder: Path, files: Mapping[str, Iterable[Manifest]]) -> list[Path]:
    """Write manifests as `NAME.yaml`, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, manifests in files.items():
        text = yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        write_bytes(folder / f"{name}.yaml", text.encode())
    return [folder / f"{name}.yaml" for name in files]


def run_in_pod(batch: Batch, group: str, index: int) -> Run:
    """Run one run of a group in its pod: wait for what it needs, then go on from where an earlier pod got.

    Raises:
        ValueError: no such group or index, or what it needs did not end ok.
    """
    jobs = [job for job in batch.jobs if job.group == group]
    if not 0 <= index < len(jobs):
        raise ValueError(f"group {group!r} has {len(jobs)} runs, and no index {index}.")
    job = jobs[index]
    batch.folder.mkdir(parents=True, exist_ok=True)
    write_jobs(batch.folder, batch.plan, batch.jobs)
    if not (batch.folder / LOCK).exists():  # no process holds it: the pods end by themselves
        write_json(batch.folder / LOCK, {"local": False, "since": now(), **this_process()})
    _await(batch, job)
    if is_done(batch.folder, job):
        return Run.open(batch.folder / "runs" / job.name)
    return run_job(batch.folder, job.name)


def _await(batch: Batch, job: Job) -> None:
    needs = [each for each in batch.jobs if each.name in job.needs]
    while not all(is_done(batch.folder, need) for need in needs):
        if bad := [row.job.name for row in rows(batch.folder, needs) if row.state in BAD]:
            raise ValueError(f"{job.name} needs {', '.join(bad)}, which did not end ok.")
        time.sleep(_EVERY_SECONDS)


def _volume(place: Place) -> list[Manifest]:
    if not place.storage:
        return []
    asked = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": f"{place.storage}Gi"}}}
    metadata = {"name": place.claim}
    return [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": asked}]


def _plan_name(batch: Batch) -> str:
    return dns_label("plan", batch.folder.name)


def _group(batch: Batch, jobs: list[Job], place: Place) -> Manifest:
    group, resources = jobs[0].group, jobs[0].resources
    line = ["python", "-m", "workbench", "kubernetes", "pod", f"{_PLAN}/{batch.folder.name}.yaml", group]
    pod = _pod([*line, "--root", f"{_MOUNT}/batches"], resources, place, [])
    pod["containers"][0]["volumeMounts"].append({"name": "plan", "mountPath": _PLAN, "readOnly": True})
    pod["volumes"].append({"name": "plan", "configMap": {"name": _plan_name(batch)}})
    if resources["minutes"] is not None and not jobs[0].needs:  # waiting for others would count
        pod["activeDeadlineSeconds"] = max(round(60 * resources["minutes"]), 1)
    evicted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    settings = {
        "completionMode": "Indexed",
        "completions": len(jobs),
        "parallelism": len(jobs),
        "backoffLimitPerIndex": 0,  # one run that fails stops no other
        "podReplacementPolicy": "Failed",  # never two pods of one run
        "podFailurePolicy": {"rules": [evicted]},
    }
    return _job(dns_label("batch", batch.folder.name, group), pod, settings)


def _pod(line: list[str], resources: Mapping[str, object], place: Place, variables: list[Manifest]) -> Manifest:
    """The specification of a pod with one container."""
    asked = {"cpu": str(resources["threads"])}
    asked |= {"memory": str(size(resources["memory"]))} if resources["memory"] else {}
    bound = {name: value for name, value in asked.items() if name != "cpu"}  # more of a CPU that is free does no harm
    bound |= {"nvidia.com/gpu": str(resources["gpus"])} if resources["gpus"] else {}
    container = {
        "name": "workbench",
        "image": place.image,
        "command": line,
        "env": [{"name": "OMP_NUM_THREADS", "value": str(resources["threads"])}, *variables],
        "resources": {"requests": asked, **({"limits": bound} if bound else {})},
        "volumeMounts": [{"name": "work", "mountPath": _MOUNT}],
    }
    volume = {"name": "work", "persistentVolumeClaim": {"claimName": place.claim}}
    return {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}


def _job(name: str, pod: Manifest, settings: Manifest) -> Manifest:
    metadata = {"name": name, "labels": {"app": "workbench"}}
    template = {"metadata": {"labels": {"app": "workbench"}}, "spec": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**settings, "template": template}}
