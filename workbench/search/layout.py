"""Searches whose points are laid out beforehand: grid and quasi-random, so that no two workers draw the same."""

import random
import warnings
from collections.abc import Mapping

from workbench.search.settings import Settings
from workbench.search.space import Dimension, as_choice, holds, put, unshared

LAID_OUT = {"grid": {"points": 5}, "qmc": {"kind": "sobol", "scramble": True}}  # settings; points: of a range


def points(settings: Settings, count: int) -> list[dict[str, object]] | None:
    """Parameters of the first so many trials; None where a sampler suggests them trial by trial.

    A grid that is smaller gives all it has. What it begins with is scattered over the grid, so that a search that ends
    early has looked everywhere.
    """
    if settings.sampler.name == "grid":
        found = grid(settings.space, settings.base, settings.sampler.settings["points"])
        random.Random(settings.seed).shuffle(found)
        return found[:count]
    if settings.sampler.name == "qmc":
        return quasi_random(settings.space, count, settings.seed, **settings.sampler.settings)
    return None


def grid(space: Mapping[str, Dimension], base: Mapping, points: int) -> list[dict[str, object]]:
    """Every combination of the values of each parameter, one with a condition only where it holds.

    Args:
        space: searched parameters.
        base: all others.
        points: values of a range; whole numbers and steps have as many as there are, up to these.
    """
    rows: list[tuple[dict, dict]] = [(unshared(base), {})]
    for name, dimension in space.items():
        more = []
        for values, chosen in rows:
            if not holds(dimension, values):
                more.append((values, chosen))
                continue
            for value in values_of(dimension, points):
                whole = unshared(values)
                put(whole, name, value)
                more.append((whole, {**chosen, name: as_choice(value) if dimension.choices is not None else value}))
        rows = more
    return [chosen for _, chosen in rows]


def values_of(dimension: Dimension, points: int) -> list:
    """So many values of a parameter, evenly from its lowest to its highest; all of its choices."""
    if dimension.choices is not None:
        return dimension.choices
    found = [dimension.at((place + 0.5) / points if points == 1 else place / (points - 1)) for place in range(points)]
    return list(dict.fromkeys(found))


def quasi_random(
    space: Mapping[str, Dimension], count: int, seed: int, *, kind: str, scramble: bool
) -> list[dict[str, object]]:
    """Points that fill the space more evenly than random ones: a Sobol or Halton sequence (Niederreiter, 1992)."""
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a sequence that goes on has no balanced size
        make = {"sobol": qmc.Sobol, "halton": qmc.Halton}[kind]
        rows = make(len(space), scramble=scramble, rng=seed).random(count)
    return [
        {
            name: as_choice(dimension.at(float(share))) if dimension.choices is not None else dimension.at(float(share))
            for (name, dimension), share in zip(space.items(), row, strict=True)
        }
        for row in rows
    ]
