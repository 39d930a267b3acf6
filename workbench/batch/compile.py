"""A plan becomes jobs: every run with its parameters, and what it is made of."""

import ast
import itertools
import re
from importlib import import_module, metadata
from types import ModuleType

from workbench.batch.ingredients import data_files, key_of, package_files
from workbench.batch.jobs import Job
from workbench.batch.plan import Group, Plan, PlanError, references
from workbench.batch.source import Source, checked_parameters, read_source
from workbench.runs.files import plain
from workbench.runs.params import Params, build, refuse_unknown

_IMPORT = re.compile(r"\s*((?:import|from) .+)")


def jobs_of(plan: Plan) -> list[Job]:
    """Every run of a plan, each after those that it needs.

    Raises:
        PlanError: an unknown experiment, notebook or parameter, a combination of parameters that the experiment
            refuses, or two runs that would write the same folder.
    """
    found: dict[str, list[Job]] = {}
    for name in plan.ordered():
        group = plan.groups[name]
        needs = [job for need in group.all_needs for job in found[need]]
        with plan.blaming("groups", name):
            found[name] = _jobs(name, group, plan, needs)
    return [job for jobs in found.values() for job in jobs]


def _jobs(name: str, group: Group, plan: Plan, needs: list[Job]) -> list[Job]:
    source = read_source(group.notebook) if group.notebook else None
    experiment = _experiment_of(source) if source else _find(group.experiment)
    known = source.defaults if source else experiment.Params.model_fields
    for part in ("params", "matrix"):
        for parameter in getattr(group, part):
            with plan.blaming("groups", name, part, parameter):
                refuse_unknown([parameter], known, "parameter")
    seeds = _seeds(group, plan, known)
    base = {} if experiment is None else _base(experiment, group.profile or plan.profile, known)
    made_of = {
        "package": package_files(_code_of(source) if source else f"import {experiment.__name__}"),
        "needs": {job.name: job.key for job in needs},
        "notebook": source.describe()["sha256"] if source else None,
        "experiment": experiment.__name__ if experiment else None,
        "versions": {"torch": metadata.version("torch")},
    }
    target = str(source.path) if source else group.experiment
    resources = (group.resources or plan.resources).model_dump()
    jobs: dict[str, Job] = {}
    for point, seed in itertools.product(group.points(), [None] if seeds is None else seeds):
        varied = point if seed is None else {**point, "seed": seed}
        given = plain({**base, **group.params, **varied})
        _check(given, experiment, source, varied)
        all_of_it = {"params": given, "data": data_files(given), **made_of}
        names = [job.name for job in needs]
        job = Job(name, key_of(all_of_it), target, varied, given, names, resources, all_of_it)
        if twin := jobs.get(job.key):
            raise PlanError(f"{plan.at('groups', name)}: {twin.label} is there twice; two runs would write one folder.")
        jobs[job.key] = job
    return list(jobs.values())


def _find(name: str) -> ModuleType:
    from workbench.experiments.catalogue import find  # which loads torch

    return find(name)


def _experiment_of(source: Source) -> ModuleType | None:
    """The experiment that a notebook names in its metadata; it knows the sizes and the rules of the parameters."""
    name = source.nb.metadata.get("workbench", {}).get("experiment")
    return import_module(name) if name else None


def _seeds(group: Group, plan: Plan, known: object) -> list[int] | None:
    if group.seeds is not None and "seed" not in known:
        raise ValueError("seeds: there is no parameter `seed`; take seeds out.")
    if "seed" not in known or "seed" in group.params.keys() | group.matrix.keys():
        return None
    return plan.seeds if group.seeds is None else group.seeds


def _base(experiment: ModuleType, size: str, known: object) -> dict[str, object]:
    """The parameters in which a size differs from the defaults."""
    from workbench.experiments.running import profile

    default: Params = experiment.Params()
    values = profile(experiment, size).model_dump().items()
    return {name: value for name, value in values if name in known and value != getattr(default, name)}


def _code_of(source: Source) -> str:
    """The code of a notebook, without IPython's own lines; of a cell that Python cannot read, the imports."""
    cells = []
    for cell in source.nb.cells:
        lines = cell.source.splitlines() if cell.cell_type == "code" else []
        code = "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines)
        try:
            ast.parse(code)
        except SyntaxError:
            code = "\n".join(match[1] for line in lines if (match := _IMPORT.fullmatch(line)))
        cells.append(code)
    return "\n".join(cells)


def _check(given: dict, experiment: ModuleType | None, source: Source | None, varied: dict) -> None:
    try:
        if source is not None:
            checked_parameters(source, given)
        if experiment is not None:
            build(experiment.Params, {name: value for name, value in given.items() if not references(value)})
    except ValueError as error:
        which = ", ".join(f"{name}={value}" for name, value in varied.items()) or "its only run"
        raise ValueError(f"{which}: {error}") from None
