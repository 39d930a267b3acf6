"""What a search is: written down once, the same for every worker."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from workbench.runs.files import plain, read_json
from workbench.runs.params import differences
from workbench.search.objectives import Objective
from workbench.search.space import Dimension

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STUDY = "study.json"


class Method(BaseModel):
    """A sampler or a pruner: its name, and every setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    settings: dict[str, object] = {}


class Stopping(BaseModel):
    """When a trial of several objectives is stopped early.

    Attributes:
        after: trials that must be complete before any is stopped.
        dominated_by: complete trials that must be better in every objective, the error at the same step among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    after: int = 5
    dominated_by: int = 3


class Settings(BaseModel):
    """A search.

    Attributes:
        name: of the study.
        experiment: dotted name of the module.
        objectives: what is made small or large.
        base: all parameters, where the search does not change them.
        space: searched parameters.
        seeds: of every trial.
        fresh_seeds: with which the best are run again, before one is called best.
        top: how many are.
        sampler, pruner, stopping: how trials are chosen, and ended early.
        seed: of the search itself.
        lease_seconds: a trial whose worker has been silent for so long is given to another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    name: str
    experiment: str
    objectives: tuple[Objective, ...]
    base: dict[str, object]
    space: dict[str, Dimension]
    seeds: tuple[int, ...]
    fresh_seeds: tuple[int, ...]
    top: int = 3
    sampler: Method
    pruner: Method
    stopping: Stopping = Stopping()
    seed: int = 0
    lease_seconds: float = 60.0

    def plain(self) -> dict[str, object]:
        """As JSON."""
        space = {
            name: {key: of for key, of in asdict(one).items() if of is not None} for name, one in self.space.items()
        }
        return json.loads(json.dumps(plain(self.model_dump(exclude={"space"}) | {"space": space})))

    @classmethod
    def of(cls, record: Mapping[str, object]) -> "Settings":
        """From what `plain` gave, or from a `study.json`."""
        known = {name: value for name, value in record.items() if name in cls.model_fields}
        return cls.model_validate(known)


def read_settings(folder: Path) -> Settings:
    """The search of a study folder.

    Raises:
        ValueError: it is none.
    """
    if not (Path(folder) / STUDY).is_file():
        raise ValueError(f"{folder} is no study: it has no {STUDY}.")
    return Settings.of(read_json(Path(folder) / STUDY))


def kept_settings(storage: "BaseStorage", name: str) -> Settings | None:
    """The search as it is kept beside its trials; None where the storage has no such study."""
    try:
        kept = storage.get_study_user_attrs(storage.get_study_id_from_name(name)).get("settings")
    except KeyError:
        return None
    return None if kept is None else Settings.of(kept)


def same_search(before: Settings, now: Settings) -> None:
    """Refuse to go on with a study under other settings.

    Raises:
        ValueError: they differ, and where.
    """
    if odd := differences(before.plain(), now.plain()):
        raise ValueError(
            f"the study {before.name} was begun with other settings: {'; '.join(odd)}. "
            "Give the old ones, or another --name."
        )
