"""The jobs of a batch: what each runs, what it needs, and the folder that its ingredients give it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from workbench.batch.plan import REFERENCE, Plan
from workbench.runs.files import read_json, write_json

DONE = "done.json"  # written last into the folder of a run that ended ok: its ingredients
BATCH = "batch.json"


@dataclass(frozen=True)
class Job:
    """One run of a batch.

    Attributes:
        group: of the plan.
        key: tells its ingredients from any others.
        target: an experiment's name, or the path of a notebook.
        varied: the parameters by which it differs from others of its group.
        params: what `workbench run` is given; `${group}` stands where folders will.
        needs: folders of the runs that must be done before, by name.
        resources: what it needs of the machine.
        ingredients: what it is made of.
    """

    group: str
    key: str
    target: str
    varied: dict[str, object]
    params: dict[str, object]
    needs: list[str] = field(default_factory=list)
    resources: dict[str, object] = field(default_factory=dict)
    ingredients: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"{self.group}-{self.key}"

    @property
    def label(self) -> str:
        """Its group and what varies in it, for a person."""
        return " ".join([self.group, *(f"{name}={value}" for name, value in self.varied.items())])


def write_jobs(folder: Path, plan: Plan, jobs: Iterable[Job]) -> None:
    """Keep a compiled plan in its batch folder."""
    write_json(folder / BATCH, {"format": 1, "plan": plan.model_dump(), "jobs": [asdict(job) for job in jobs]})


def read_jobs(folder: str | Path) -> list[Job]:
    """The jobs of a batch folder."""
    return [Job(**job) for job in read_json(Path(folder) / BATCH)["jobs"]]


def arguments(job: Job, folder: Path) -> dict[str, object]:
    """The parameters of a job as its run gets them: the run folders of a group where `${group}` stood."""
    folders: dict[str, list[str]] = {}
    for name in job.needs:
        folders.setdefault(name.rpartition("-")[0], []).append(str(Path(folder).resolve() / "runs" / name))
    return {name: _filled(value, folders) for name, value in job.params.items()}


def _filled(value: object, folders: Mapping[str, list[str]]) -> object:
    if isinstance(value, str) and (whole := REFERENCE.fullmatch(value)):
        return folders.get(whole[1], [])
    if isinstance(value, str):
        return REFERENCE.sub(lambda match: " ".join(folders.get(match[1], [])), value)
    if isinstance(value, (list, tuple)):
        return [_filled(item, folders) for item in value]
    if isinstance(value, Mapping):
        return {key: _filled(item, folders) for key, item in value.items()}
    return value
