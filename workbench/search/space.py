"""Where a search may look: read off the annotations of Params, and turned into suggestions."""

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union, get_args, get_origin

from pydantic import BaseModel

from workbench.runs.files import plain
from workbench.runs.params import Search, refuse_unknown

if TYPE_CHECKING:
    import optuna

PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Dimension:
    """One searched parameter: what `Search` says, and whether its values are whole numbers."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: list | None = None
    when: dict | None = None
    whole: bool = False

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """The same for Optuna; choices that it cannot hold are there as JSON."""
        from optuna import distributions

        if self.choices is not None:
            return distributions.CategoricalDistribution([as_choice(value) for value in self.choices])
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return distributions.FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def at(self, share: float) -> object:
        """The value at a share of the way from the lowest to the highest, 0 to 1; or the choice there."""
        if self.choices is not None:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        low, high = self.low, self.high
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        if self.step:
            value = low + self.step * min(round((value - low) / self.step), int((high - low) / self.step + 1e-9))
        value = min(max(value, low), high)
        return round(value) if self.whole else value

    def ask(self, trial: "optuna.Trial", name: str) -> object:
        """The value that a trial suggests."""
        if self.choices is not None:
            found = trial.suggest_categorical(name, [as_choice(value) for value in self.choices])
            return next(value for value in self.choices if as_choice(value) == found)
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)


def as_choice(value: object) -> object:
    """A choice as Optuna may hold it."""
    return value if isinstance(value, PLAIN) else json.dumps(plain(value))


def space_of(cls: type[BaseModel], only: Iterable[str] = ()) -> dict[str, Dimension]:
    """The searched parameters of a Params class, nested ones by dotted names, conditions after what they depend on.

    Args:
        cls: the class.
        only: what is searched; empty takes all that have an annotation. `NAME=LOW..HIGH`, `NAME=LOW..HIGH,log` and
            `NAME=A|B|C` give another space, also to a parameter that has none.

    Raises:
        ValueError: an unknown parameter, or one that has no space and is given none; nothing to search.
    """
    found, kinds = _annotated(cls), _kinds(cls)
    if only := list(only):
        given = [text.partition("=")[::2] for text in only]
        refuse_unknown([name for name, _ in given], kinds, "parameter")
        chosen = {name: _parsed(name, text, kinds[name]) if text else found.get(name) for name, text in given}
        if bare := [name for name, dimension in chosen.items() if dimension is None]:
            raise ValueError(f"{bare[0]} has no space of its own; write {bare[0]}=LOW..HIGH[,log] or {bare[0]}=A|B|C.")
        found = chosen
    if not found:
        raise ValueError(f"{cls.__module__} has no parameter with a Search annotation; name one: NAME=LOW..HIGH.")
    return _ordered(found)


def suggest(trial: "optuna.Trial", space: Mapping[str, Dimension], base: Mapping) -> dict:
    """All parameters for a trial: those of `base`, with what is suggested where its conditions hold."""
    values = unshared(base)
    for name, dimension in space.items():
        if holds(dimension, values):
            put(values, name, dimension.ask(trial, name))
    return values


def unshared(values: Mapping) -> dict:
    """A copy in plain types that shares nothing."""
    return json.loads(json.dumps(plain(dict(values))))


def holds(dimension: Dimension, values: Mapping) -> bool:
    """Whether the conditions of a parameter hold where the others have these values."""
    return all(_is_one_of(at(values, other), wanted) for other, wanted in (dimension.when or {}).items())


def at(values: Mapping, name: str) -> object:
    """The value at a dotted name."""
    for part in name.split("."):
        values = values[part]
    return values


def put(values: dict, name: str, value: object) -> None:
    """Set the value at a dotted name."""
    *above, last = name.split(".")
    for part in above:
        values = values[part]
    values[last] = value


def _is_one_of(value: object, wanted: object) -> bool:
    if isinstance(value, (list, tuple)):
        return wanted in value
    return value in wanted if isinstance(wanted, (list, tuple)) else value == wanted


def _annotated(cls: type[BaseModel], prefix: str = "") -> dict[str, Dimension]:
    found = {}
    for name, field in cls.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _annotated(field.annotation, f"{prefix}{name}.")
        for mark in field.metadata:
            if isinstance(mark, Search):
                choices = None if mark.choices is None else plain(list(mark.choices))
                when = None if mark.when is None else plain({f"{prefix}{key}": of for key, of in mark.when.items()})
                whole = _is_whole(field.annotation)
                found[prefix + name] = Dimension(mark.low, mark.high, mark.log, mark.step, choices, when, whole)
    return found


def _kinds(cls: type[BaseModel], prefix: str = "") -> dict[str, object]:
    """Every parameter and its type."""
    found = {}
    for name, field in cls.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _kinds(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.annotation
    return found


def _is_whole(kind: object) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        return int in get_args(kind)
    return kind is int


def _parsed(name: str, text: str, kind: object) -> Dimension:
    if "|" in text:
        return Dimension(choices=[_literal(part) for part in text.split("|")])
    span, _, rest = text.partition(",")
    low, dots, high = span.partition("..")
    try:
        if not dots or rest not in ("", "log"):
            raise ValueError
        mark = Search(float(low), float(high), log=rest == "log")
    except ValueError as error:
        why = f" ({error})" if str(error) else ""
        raise ValueError(f"{name}={text!r} is no space; write LOW..HIGH, LOW..HIGH,log or A|B|C{why}.") from None
    return Dimension(mark.low, mark.high, mark.log, whole=_is_whole(kind))


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _ordered(found: dict[str, Dimension]) -> dict[str, Dimension]:
    ordered: dict[str, Dimension] = {}
    while len(ordered) < len(found):
        waits = {name: set(one.when or ()) & found.keys() - ordered.keys() - {name} for name, one in found.items()}
        free = [name for name in found if name not in ordered and not waits[name]]
        if not free:
            raise ValueError(f"{', '.join(found.keys() - ordered.keys())}: their conditions go in a circle.")
        ordered[free[0]] = found[free[0]]
    return ordered
