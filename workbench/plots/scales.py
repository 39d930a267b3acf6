"""How values become colours: one scale for each kind of quantity, the same for every panel of a figure."""

from typing import NamedTuple

import numpy as np

from workbench.plots.style import DIVERGING, DIVERGING_SIGNED, SEQUENTIAL, counted, number, power_of_ten

KINDS = ("bounded", "log", "positive", "signed", "steps")
SHORTEST = 0.1  # steps: what is forgotten faster is drawn here
LIMITS = {name: float(np.log(float(np.finfo(name).max))) for name in ("float32", "float16")}  # exp of more is infinite
NEAR = 0.8  # share of such a limit from which on a reader is told
LN10 = float(np.log(10.0))


class Scale(NamedTuple):
    """How values become colours: the same for every panel of a figure."""

    colours: str
    low: float
    high: float
    name: str
    ticks: dict
    note: str

    def axis(self, **bar: object) -> dict:
        """The scale as a plotly colour axis, with a colour bar placed by `bar`."""
        bar = {"title": {"text": self.name}, "x": 1.02, "y": 1, "yanchor": "top"} | bar | self.ticks
        return {"colorscale": self.colours, "cmin": self.low, "cmax": self.high, "colorbar": bar}

    @property
    def own(self) -> dict:
        """The scale for one heat map alone, without a colour bar."""
        return {"colorscale": self.colours, "zmin": self.low, "zmax": self.high, "showscale": False}


def as_drawn(kind: str, values: np.ndarray, cap: float = np.inf) -> np.ndarray:
    """Values on the axis on which they are drawn: log10 of an exponential gate and of steps; gaps are NaN.

    Steps are capped, as a rule at the length of the sequence: more is not to be seen in it.

    Raises:
        ValueError: the kind is unknown, or has no such values.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(map(repr, KINDS))}.")
    if kind == "steps":
        low = float(np.fmin.reduce(values, axis=None))
        if low < 0:
            raise ValueError(f"values go down to {number(low)}, and steps are 0 or more; pass kind='signed'.")
        return np.log10(np.clip(values, SHORTEST, max(cap, 1.0)))
    drawn = np.where(np.isfinite(values), values, np.nan)
    return drawn / LN10 if kind == "log" else drawn


def scale_of(kind: str, values: np.ndarray, cap: float) -> Scale:
    """The colour scale of a kind of quantity, fixed where it is bounded.

    Args:
        kind: one of KINDS.
        values: as `as_drawn` returns them.
        cap: the longest half-life that is drawn, in steps.

    Raises:
        ValueError: values outside the range of their kind.
    """
    if kind == "bounded":
        low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0)
        if low < -1e-6 or high > 1 + 1e-6:
            raise ValueError(
                f"values run from {number(low)} to {number(high)}, outside [0, 1] of a bounded gate; "
                "pass kind='log' for log preactivations or kind='signed' for states."
            )
        return Scale(SEQUENTIAL, 0.0, 1.0, "gate value", {"tickvals": [0, 0.25, 0.5, 0.75, 1]}, "")
    if kind == "steps":
        return _decades(values, cap)
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, 0.995)) if finite.size else 1.0
    limit = limit if limit > 0 else (float(finite.max()) if finite.size else 0.0) or 1.0
    if kind == "positive":
        if (low := float(np.nanmin(values, initial=0.0))) < -1e-6:
            raise ValueError(f"values go down to {number(low)}, below 0 of a positive quantity; pass kind='signed'.")
        note = f"colours end at {number(limit)}, the 99.5th percentile"
        return Scale(SEQUENTIAL, 0.0, limit, "value", {"nticks": 5}, note)
    if kind == "signed":
        note = f"colours end at ±{number(limit)}, the 99.5th percentile"
        return Scale(DIVERGING_SIGNED, -limit, limit, "value", {"nticks": 5}, note)
    step = max(1, int(np.ceil(limit / 4)))
    powers = np.arange(0, limit + 1e-9, step) if limit >= 1 else np.array([0, limit])
    powers = np.concatenate([-powers[:0:-1], powers])
    ticks = {"tickvals": powers.tolist(), "ticktext": [power_of_ten(power) for power in powers]}
    note = f"logarithmic colours, white at 1, ending at 10 to the ±{number(limit)} (99.5th percentile)"
    return Scale(DIVERGING, -limit, limit, "gate value", ticks, note)


def _decades(values: np.ndarray, cap: float) -> Scale:
    """Half-lives: whole decades from the shortest on, infinity at the cap."""
    high = float(np.log10(max(cap, 1)))
    low = min(float(np.floor(np.nanmin(values, initial=high))), high - 1)
    powers = [power for power in np.arange(low, high) if power < high - 0.2]
    ticks = {"tickvals": [*powers, high], "ticktext": [*map(decade, powers), "∞"]}
    note = f"logarithmic colours, ∞ is the sequence length, {number(cap)} steps, or more"
    return Scale(SEQUENTIAL, low, high, "steps", ticks, note)


def decade(power: float) -> str:
    """A tick at a power of ten: 0.1, 10, 1k, 10k, 1M."""
    size, unit = next((size, unit) for size, unit in ((6, "M"), (3, "k"), (-99, "")) if power >= size)
    return f"{10.0 ** (power - max(size, 0)):g}{unit}"


def thinned(ticks: dict) -> dict:
    """Of the ticks of a scale, the first, the middle and the last."""
    if "tickvals" not in ticks:
        return {"nticks": 4}
    keep = sorted({0, len(ticks["tickvals"]) // 2, len(ticks["tickvals"]) - 1})
    return {name: [entries[i] for i in keep] for name, entries in ticks.items()}


def near_overflow(exponents: np.ndarray) -> dict[str, float]:
    """The widths of numbers that exp of these overflows or nearly so, and the exponent at which it does."""
    largest = float(np.fmax.reduce(exponents, axis=None))
    return {name: limit for name, limit in LIMITS.items() if largest > NEAR * limit}


def overflow(exponents: np.ndarray) -> str:
    """How near exp of these comes to infinity, in words; nothing where it is far from it."""
    for name, limit in near_overflow(exponents).items():
        above, largest = int((exponents > limit).sum()), float(np.fmax.reduce(exponents, axis=None))
        if above:
            return f"{counted(above, 'value')} above {limit:.1f}, where exp overflows {name}"
        return f"the largest exponent, {largest:.1f}, is {limit - largest:.1f} below the overflow of exp in {name}"
    return ""


def round_values(low: float, high: float) -> list[float]:
    """Round values of a log axis: 1, 2, 5 and their decades, or decades alone where there are many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [digit * 10.0**decade for decade in decades for digit in steps if low <= digit * 10.0**decade <= high]
