"""A batch plan in YAML: groups of runs, each a matrix of parameters over one experiment or notebook."""

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from workbench.runs.params import closest, refuse_unknown

Profile = Literal["smoke", "default", "paper"]
REFERENCE = re.compile(r"\$\{([^}]*)\}")  # ${group} in a parameter: the run folders of that group
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(-[A-Za-z0-9_]+)*")
_SIZE = r"\d+(\.\d+)? ?[kKmMgGtT]?[iI]?[bB]?"


class PlanError(ValueError):
    """What is wrong with a plan, and in which line and key."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Resources(_Part):
    """What one run needs.

    Attributes:
        threads: CPU threads.
        memory: of the machine, as "2GB"; the run is held to it (by Linux).
        gpus: GPUs; no two runs share one.
        minutes: at most; only executors with a queue hold a run to it.
    """

    threads: Annotated[int, Field(ge=1)] = 1
    memory: Annotated[str, Field(pattern=f"^{_SIZE}$")] | None = None
    gpus: Annotated[int, Field(ge=0)] = 0
    minutes: Annotated[float, Field(gt=0)] | None = None


class Group(_Part):
    """Runs of one experiment or notebook.

    Attributes:
        experiment, notebook: one of the two: a name as `workbench run` takes it, or the path of a notebook.
        params: parameters that all runs of the group share.
        matrix: name to values; every combination is a run.
        seeds: values of the parameter `seed`; None takes the plan's, and none if the experiment has no seed.
        profile: the size that the other parameters have; None takes the plan's.
        needs: groups that must be done before; `${group}` in a parameter needs that group as well.
        resources: what each run needs; None takes the plan's.
    """

    experiment: str | None = None
    notebook: str | None = None
    params: dict[str, object] = {}
    matrix: dict[str, Annotated[list, Field(min_length=1)]] = {}
    seeds: list[int] | None = None
    profile: Profile | None = None
    needs: list[str] = []
    resources: Resources | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (self.experiment is None) == (self.notebook is None):
            raise ValueError("a group names either an experiment or a notebook")
        if twice := sorted(self.params.keys() & self.matrix.keys()):
            raise ValueError(f"{', '.join(twice)}: in params and in the matrix; leave one out")
        if self.seeds is not None and "seed" in self.params.keys() | self.matrix.keys():
            raise ValueError("seed: given beside seeds; leave one out")
        return self

    @property
    def all_needs(self) -> list[str]:
        """The groups that this one needs, named or referred to."""
        text = itertools.chain(self.params.values(), *self.matrix.values())
        return list(dict.fromkeys([*self.needs, *(name for value in text for name in references(value))]))

    def points(self) -> list[dict[str, object]]:
        """Every combination of the matrix, the last name fastest."""
        return [dict(zip(self.matrix, point, strict=True)) for point in itertools.product(*self.matrix.values())]


class Plan(_Part):
    """A batch.

    Attributes:
        name: of the batch folder; the file's name by default.
        profile, seeds, resources: what groups take that do not say their own.
        groups: name to group.
    """

    name: str = ""
    profile: Profile = "default"
    seeds: list[int] | None = None
    resources: Resources = Resources()
    groups: Annotated[dict[str, Group], Field(min_length=1)]
    _lines: dict[tuple, int] = PrivateAttr({})

    def at(self, *key: str) -> str:
        """Where a key stands in the file: `line 7, groups.lstm`."""
        return _place(key, self._lines)

    @contextmanager
    def blaming(self, *key: str) -> Iterator[None]:
        """Say of errors in the block that this key is the cause, unless they name a key themselves.

        Raises:
            PlanError: in the place of a ValueError or TypeError.
        """
        try:
            yield
        except PlanError:
            raise
        except (ValueError, TypeError) as error:
            raise PlanError(f"{self.at(*key)}: {error}") from None

    def ordered(self) -> list[str]:
        """The groups, each after those that it needs.

        Raises:
            PlanError: groups need each other in a circle.
        """
        done, left = [], dict(self.groups)
        while left:
            free = [name for name, group in left.items() if set(group.all_needs) <= set(done)]
            if not free:
                circle = ", ".join(left)
                raise PlanError(f"{self.at('groups', next(iter(left)))}: {circle} need each other in a circle.")
            done += free
            left = {name: group for name, group in left.items() if name not in free}
        return done


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, yes and no are texts, and a key given twice is an error."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not tag.endswith((":float", ":bool", ":timestamp"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT = re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.IGNORECASE), list("tTfF"))


def references(value: object) -> list[str]:
    """The groups that a parameter refers to, however deep."""
    if isinstance(value, str):
        return REFERENCE.findall(value)
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [name for item in inside for name in references(item)]


def read_plan(path: str | Path) -> Plan:
    """The plan in a file.

    Raises:
        PlanError: what is wrong, in which line and key, and what is near.
    """
    path = Path(path)
    if not path.is_file():
        beside = sorted({*path.parent.glob("*.yaml"), *path.parent.glob("*.yml")}) if path.parent.is_dir() else []
        raise PlanError(f"there is no such file. In {path.parent}: {', '.join(map(str, beside)) or 'no plan'}.")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), _Loader)
        if not isinstance(root, yaml.MappingNode):
            raise PlanError("it has no groups; write `groups:` and below it `NAME: {experiment: forecast}`.")
        lines = dict(_lines(root, ()))
        values = _Loader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PlanError(f"line {mark.line + 1}: {error.problem or error.context}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"it is not YAML: {error}") from None
    try:
        plan = Plan.model_validate(values)
    except ValidationError as error:
        raise PlanError("\n".join(_sentence(one, lines) for one in error.errors())) from None
    plan = plan.model_copy(update={"name": plan.name or path.stem})
    plan._lines.update(lines)
    _check_names(plan)
    return plan


def _check_names(plan: Plan) -> None:
    for name, group in plan.groups.items():
        with plan.blaming("groups", name):
            refuse_unknown(group.all_needs, plan.groups, "group")
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a group; use letters, digits, '_' and '-'.")
    if not _NAME.fullmatch(plan.name):
        raise PlanError(f"{plan.name!r} cannot name a batch; write `name:` with letters, digits, '_' and '-'.")
    plan.ordered()


def _place(key: tuple, lines: Mapping[tuple, int]) -> str:
    """A key with its line, or the nearest above it that was written."""
    while key and key not in lines:  # pydantic also names the kind of a union
        key = key[:-1]
    named = ".".join(map(str, key))
    return f"line {lines[key]}{f', {named}' if named else ''}"


def _lines(node: yaml.Node, at: tuple) -> list[tuple[tuple, int]]:
    """The line of every key, counted from 1."""
    found = [(at, node.start_mark.line + 1)] if not at else []
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        for key, value in node.value:
            line = key.start_mark.line + 1
            if names.count(key.value) > 1:
                raise PlanError(f"line {line}: {key.value!r} is given twice; leave one out.")
            found += [((*at, key.value), line), *_lines(value, (*at, key.value))]
    if isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            found += [((*at, place), value.start_mark.line + 1), *_lines(value, (*at, place))]
    return found


def _sentence(error: dict, lines: Mapping[tuple, int]) -> str:
    where, kind = tuple(error["loc"]), error["type"]
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    if kind == "extra_forbidden":
        known = {1: Plan, 3: Group}.get(len(where), Resources).model_fields
        return f"{_place(where, lines)}: unknown key{closest(str(where[-1]), known)} Known: {', '.join(known)}."
    received = "" if kind in ("missing", "value_error") else f" (received {error['input']!r})"
    missing = f"{where[-1]}: " if kind == "missing" else ""
    return f"{_place(where, lines)}: {missing}{message}{received}."
