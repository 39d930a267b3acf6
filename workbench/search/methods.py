"""Samplers and pruners by name, with every setting written down: a default of a library is no record."""

import inspect
import json
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from workbench.runs.params import refuse_unknown
from workbench.search.layout import LAID_OUT
from workbench.search.space import Dimension

if TYPE_CHECKING:
    import optuna

# Optuna's class, and the settings that are ours where they differ from its own.
SAMPLERS = {
    "tpe": ("TPESampler", {"multivariate": True, "group": True, "constant_liar": True, "n_startup_trials": 10}),
    "gp": ("GPSampler", {"deterministic_objective": False, "n_startup_trials": 10}),
    "cmaes": ("CmaEsSampler", {"with_margin": True, "warn_independent_sampling": False}),
    "nsga2": ("NSGAIISampler", {"population_size": 20}),
    "nsga3": ("NSGAIIISampler", {"population_size": 20}),
    "random": ("RandomSampler", {}),
    **{name: ("RandomSampler", settings) for name, settings in LAID_OUT.items()},
}
PRUNERS = {
    "none": ("NopPruner", {}),
    "median": ("MedianPruner", {"n_startup_trials": 5, "n_warmup_steps": 0}),
    "hyperband": ("HyperbandPruner", {"min_resource": 1, "max_resource": "auto", "reduction_factor": 3}),
    "wilcoxon": ("WilcoxonPruner", {"p_threshold": 0.1, "n_startup_steps": 2}),
}


def choose(name: str, space: Mapping[str, Dimension], trials: int, objectives: int) -> str:
    """What "auto" stands for.

    With one objective: GP for up to 20 parameters, all of them ranges, and up to 200 trials; else TPE. With several:
    TPE for up to 200 trials; for more, NSGA-II up to three objectives and NSGA-III beyond.
    """
    if name != "auto":
        refuse_unknown([name], [*SAMPLERS, "auto"], "sampler")
        return name
    if objectives > 1:
        return "tpe" if trials <= 200 else "nsga2" if objectives <= 3 else "nsga3"
    ranges = all(dimension.choices is None and not dimension.when for dimension in space.values())
    return "gp" if ranges and len(space) <= 20 and trials <= 200 else "tpe"


def settings_of(table: Mapping, name: str, given: Mapping[str, object]) -> dict[str, object]:
    """Every setting of a sampler or pruner: the library's defaults, ours, and those that a person gave.

    Raises:
        ValueError: an unknown name or setting.
    """
    import optuna

    refuse_unknown([name], table, "sampler" if table is SAMPLERS else "pruner")
    kind, ours = table[name]
    cls = getattr(optuna.samplers if table is SAMPLERS else optuna.pruners, kind)
    signature = inspect.signature(cls).parameters.values()
    own = {one.name: one.default for one in signature if one.name != "seed" and _is_plain(one)}
    settings = {**own, **ours}
    refuse_unknown(given, settings, f"setting of {name}")
    return {**settings, **given}


def make_sampler(name: str, settings: Mapping, seed: int) -> "optuna.samplers.BaseSampler":
    """The sampler; experimental parts of Optuna are asked for on purpose, so it does not warn of them."""
    import optuna

    given = _unlike_default(getattr(optuna.samplers, SAMPLERS[name][0]), settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return getattr(optuna.samplers, SAMPLERS[name][0])(**given, seed=seed)


def make_pruner(name: str, settings: Mapping) -> "optuna.pruners.BasePruner":
    """The pruner."""
    import optuna

    cls = getattr(optuna.pruners, PRUNERS[name][0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return cls(**_unlike_default(cls, settings))


def parsed(text: str) -> tuple[str, dict[str, object]]:
    """Name and settings of `NAME` or `NAME:setting=value,setting=value`."""
    name, _, rest = text.partition(":")
    given = dict(pair.partition("=")[::2] for pair in rest.split(",")) if rest else {}
    return name, {key: _value(value) for key, value in given.items()}


def _value(text: str) -> object:
    try:
        return json.loads(text.lower() if text in ("True", "False", "None") else text)
    except json.JSONDecodeError:
        return None if text == "None" else text


def _is_plain(setting: inspect.Parameter) -> bool:
    """Whether a setting is a number or a word; null is then the library's own rule, and its version is kept."""
    held = any(word in str(setting.annotation) for word in ("Callable", "Base", "dict", "list", "ndarray"))
    return not held and (setting.default is None or isinstance(setting.default, (bool, int, float, str)))


def _unlike_default(cls: Callable, settings: Mapping) -> dict[str, object]:
    """The settings that differ from the library's: naming a deprecated one, even at its default, makes it warn."""
    own = inspect.signature(cls).parameters
    return {name: value for name, value in settings.items() if name in own and own[name].default != value}
