"""What a search makes small or large: numbers of a Result, by name."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from workbench.runs.params import closest


class Objective(BaseModel):
    """One number of `outputs.json`: `valid.xLSTM`, `costs.xLSTM.parameters`; `valid` alone is the mean over models."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    direction: Literal["minimize", "maximize"] = "minimize"

    @property
    def is_error(self) -> bool:
        """Whether it is a validation loss, which is known while a model is still trained."""
        return self.name.partition(".")[0] == "valid" and self.direction == "minimize"


def parse(text: str) -> Objective:
    """`NAME`, or `NAME:maximize`.

    Raises:
        ValueError: a score on test data, or an unknown direction.
    """
    name, _, direction = text.partition(":")
    if name.partition(".")[0] in ("scores", "blocks"):
        raise ValueError(
            f"{name} comes from the test data: a search that chooses by it leaves nothing to judge the winner by. "
            "Choose by `valid`, or `valid.MODEL`; test scores are in the run folders."
        )
    if direction not in ("", "minimize", "maximize"):
        raise ValueError(f"{text!r}: the direction is minimize or maximize.")
    return Objective(name=name, direction=direction or "minimize")


def value_of(objective: Objective, outputs: Mapping[str, object]) -> float:
    """The number in the outputs of a run.

    Raises:
        ValueError: it is not there, with what is.
    """
    found, way = outputs, objective.name.split(".")
    for place, part in enumerate(way):
        if not isinstance(found, Mapping) or part not in found:
            known = list(found) if isinstance(found, Mapping) else []
            where = ".".join(way[:place]) or "the outputs"
            raise ValueError(
                f"{objective.name}: {where} has no {part!r}{closest(part, known)} There: {', '.join(known)}."
            )
        found = found[part]
    if isinstance(found, Mapping) and found and all(isinstance(value, (int, float)) for value in found.values()):
        found = sum(found.values()) / len(found)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise ValueError(f"{objective.name} is {found!r}, and a number was expected.")
    return float(found)
