"""A plan becomes jobs: every run with its parameters, what it is made of, and the folder that this gives it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from workbench.batch.ingredients import data_files, key_of, package_files
from workbench.batch.plan import REFERENCE, Group, Plan, references
from workbench.batch.source import Source, checked_parameters, read_source
from workbench.experiments.catalogue import find
from workbench.experiments.running import profile
from workbench.runs.files import plain, read_json, write_json
from workbench.runs.params import Params, build, refuse_unknown

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


def jobs_of(plan: Plan) -> list[Job]:
    """Every run of a plan, each after those that it needs.

    Raises:
        ValueError: an unknown experiment, notebook or parameter, a combination of parameters that the experiment
            refuses, or two that would write the same folder.
    """
    found: dict[str, list[Job]] = {}
    for name in plan.ordered():
        group = plan.groups[name]
        needed = {need: found[need] for need in group.all_needs}
        try:
            found[name] = _group_jobs(name, group, plan, needed)
        except ValueError as error:
            raise ValueError(f"groups.{name}: {error}") from None
    jobs = [job for name in found for job in found[name]]
    seen: dict[str, Job] = {}
    for job in jobs:
        if seen.setdefault(job.name, job) is not job:
            raise ValueError(f"groups.{job.group}: two runs are the same and would write one folder: {job.label}.")
    return jobs


def write_jobs(folder: Path, plan: Plan, jobs: list[Job]) -> None:
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
    return value


def _group_jobs(name: str, group: Group, plan: Plan, needed: dict[str, list[Job]]) -> list[Job]:
    seeds = plan.seeds if group.seeds is None else group.seeds
    size, resources = group.profile or plan.profile, group.resources or plan.resources
    source = read_source(group.notebook) if group.notebook else None
    experiment = _experiment_of(source) if source else find(group.experiment)
    known = source.defaults if source else experiment.Params.model_fields
    refuse_unknown([*group.params, *group.matrix], known, "parameter")
    if seeds is not None and "seed" not in known:
        if group.seeds is not None:
            raise ValueError("seeds: there is no parameter `seed`; take seeds out.")
        seeds = None
    if "seed" in group.params.keys() | group.matrix.keys():
        seeds = None
    base = {} if experiment is None else _base(experiment, size)
    needs = [job for each in needed.values() for job in each]
    code = package_files(_code_of(source) if source else f"import {experiment.__name__}")
    jobs = []
    for point in group.points():
        for seed in [None] if seeds is None else seeds:
            varied = point if seed is None else {**point, "seed": seed}
            given = plain({**base, **group.params, **varied})
            _check(given, experiment, source, varied)
            made_of = {
                "params": given,
                "package": code,
                "data": data_files(given),
                "needs": {job.name: job.key for job in needs},
                "notebook": source.describe()["sha256"] if source else None,
                "experiment": experiment.__name__ if experiment else None,
                "versions": {"torch": metadata.version("torch")},
            }
            target = str(source.path) if source else group.experiment
            names = [job.name for job in needs]
            jobs.append(Job(name, key_of(made_of), target, varied, given, names, resources.model_dump(), made_of))
    return jobs


def _experiment_of(source: Source) -> ModuleType | None:
    """The experiment that a notebook names in its metadata; it knows the sizes and the rules of the parameters."""
    name = source.nb.metadata.get("workbench", {}).get("experiment")
    return import_module(name) if name else None


def _base(experiment: ModuleType, size: str) -> dict[str, object]:
    """The parameters in which a size differs from the defaults."""
    default: Params = experiment.Params()
    return {
        name: value for name, value in profile(experiment, size).model_dump().items() if value != getattr(default, name)
    }


def _code_of(source: Source) -> str:
    """The code of a notebook, without IPython's own lines."""
    lines = (line for cell in source.nb.cells if cell.cell_type == "code" for line in cell.source.splitlines())
    return "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines)


def _check(given: dict, experiment: ModuleType | None, source: Source | None, varied: dict) -> None:
    try:
        if source is not None:
            checked_parameters(source, given)
        if experiment is not None:
            build(experiment.Params, {name: value for name, value in given.items() if not references(value)})
    except ValueError as error:
        which = ", ".join(f"{name}={value}" for name, value in varied.items()) or "its only run"
        raise ValueError(f"{which}: {error}") from None
