"""A forecast beside what happened: history, the cut, medians, bands."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from workbench.plots.arrays import as_numbers, as_steps, extremes, min_max
from workbench.plots.labels import End, label_ends, last_point, room_for
from workbench.plots.style import (
    Category,
    categories,
    counted,
    faded,
    finish,
    joined,
    missing,
    moment,
    number,
    sentences,
)

PANEL = 320


class Prediction(NamedTuple):
    """One model's forecast, each (P,); `low` and `high` are None where there is no band."""

    median: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def as_prediction(name: str, given: ArrayLike | Mapping, length: int) -> Prediction:
    """A forecast as arrays of the right length, or an error that says what was expected."""
    parts = given if isinstance(given, Mapping) else {"median": given}
    unknown = set(parts) - {"median", "low", "high"}
    if unknown or "median" not in parts or ("low" in parts) != ("high" in parts):
        raise ValueError(
            f"predictions[{name!r}] has the keys {sorted(parts)}; "
            "pass an array, or 'median', or all of 'median', 'low', 'high'."
        )
    arrays = {key: as_numbers(f"predictions[{name!r}]", value, "(P,)", 1) for key, value in parts.items()}
    for key, array in arrays.items():
        if len(array) != length:
            raise ValueError(
                f"predictions[{name!r}] {key} has {len(array)} steps, and the truth has {length}; pass one per step."
            )
    return Prediction(arrays["median"], arrays.get("low"), arrays.get("high"))


def value_range(arrays: list[np.ndarray]) -> tuple[float, float]:
    """A range with some air; from zero where the values are positive and come near it."""
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    air = 0.08 * (high - low or abs(high) or 1.0)
    return (0.0 if 0 <= low < 0.4 * high else low - air), high + air


def draw_prediction(fig: go.Figure, name: str, look: Category, x: np.ndarray, made: Prediction, unit: str) -> None:
    """One model: its band, then its median."""
    if made.low is not None and made.high is not None:
        for edge, fill in ((made.low, None), (made.high, "tonexty")):
            line = {"width": 0, "color": look.colour}
            style = {"fill": fill, "fillcolor": faded(look.colour, 0.18), "hoverinfo": "skip", "showlegend": False}
            fig.add_trace(go.Scatter(x=x, y=edge, mode="lines", line=line, **style))
    fig.add_trace(
        go.Scatter(
            x=x,
            y=made.median,
            name=name,
            mode="lines",
            line={"color": look.colour, "dash": look.dash, "width": 2},
            hovertemplate=f"{name} %{{y:.4g}} {unit}<extra></extra>",
            showlegend=False,
        )
    )


def forecast(
    times: ArrayLike,
    history: ArrayLike,
    truth: ArrayLike,
    predictions: Mapping[str, ArrayLike | Mapping[str, ArrayLike]],
    *,
    unit: str = "",
    title: str = "",
) -> go.Figure:
    """What was known, what was forecast, and what happened.

    Args:
        times: positions of the history and then of the future, numbers or datetime64 (T + P,).
        history: what the models saw (T,).
        truth: what happened after (P,); NaN where it is not known yet.
        predictions: name -> forecast (P,), or {"median", "low", "high"}, each (P,).
        unit: of the values: vehicles, EUR/MWh.
        title: the finding; without one, the smallest error.
    """
    known = as_numbers("history", history, "(T,)", 1)
    future = as_numbers("truth", truth, "(P,)", 1)
    x = as_steps("times", times, len(known) + len(future))
    made = {name: as_prediction(name, given, len(future)) for name, given in predictions.items()}
    looks = categories(list(made), "forecast")
    fig = go.Figure()
    cut = len(known)
    measured(fig, x, np.concatenate([known, future]), cut, unit)
    end = last_point(x[cut:], future)
    ends = [End(*end, "measured", None)] if end else []
    for name, prediction in made.items():
        draw_prediction(fig, name, looks[name], x[cut:], prediction, unit)
        end = last_point(x[cut:], prediction.median)
        ends += [End(*end, name, looks[name])] if end else []
    everything = [known, future] + [a for prediction in made.values() for a in prediction if a is not None]
    low, high = value_range(everything)
    label_ends(fig, ends, low, high, PANEL)
    mark_cut(fig, x, cut)
    fig.update_yaxes(range=[low, high], title_text=unit or "value")
    fig.update_xaxes(title_text="time" if np.issubdtype(x.dtype, np.datetime64) else "step", range=[x[0], x[-1]])
    fig.update_layout(hovermode="x unified")
    errors = {name: mean_error(prediction.median, future) for name, prediction in made.items()}
    gaps = missing(int(np.isnan(known).sum() + np.isnan(future).sum()))
    ranked = ", ".join(f"{name} {number(e)}" for name, e in sorted(errors.items(), key=lambda item: item[1]))
    stated = f"mean absolute error here ({unit or 'in units of the data'}): {ranked}" if made else ""
    return finish(
        fig,
        title=title or default_title(errors, len(future)),
        subtitle=joined(stated, gaps),
        alt=describe(x, cut, np.concatenate([known, future]), unit, stated, gaps),
        panel=PANEL,
        margin={"r": room_for(ends), "t": 32},
    )


def measured(fig: go.Figure, x: np.ndarray, y: np.ndarray, cut: int, unit: str) -> None:
    """The measured line: thin before the cut, heavy after it, in the colour of text."""
    for part, name, width in ((slice(0, cut + 1), "history", 1.5), (slice(cut, None), "truth", 2.6)):
        at, thin, size = min_max(x[part], y[part])
        note = f" (lowest and highest of each {size})" if size > 1 else ""
        fig.add_trace(
            go.Scatter(
                x=at,
                y=thin,
                name=name,
                mode="lines",
                line={"width": width},
                hovertemplate=f"{name} %{{y:.4g}} {unit}{note}<extra></extra>",
                showlegend=False,
            )
        )


def mark_cut(fig: go.Figure, x: np.ndarray, cut: int) -> None:
    """A line where the forecast starts, its span tinted and named."""
    fig.add_shape(
        type="rect", x0=x[cut], x1=x[-1], yref="paper", y0=0, y1=1, layer="below",
        fillcolor="rgba(128,128,128,0.08)", line={"width": 0},
    )  # fmt: skip
    fig.add_shape(type="line", x0=x[cut], x1=x[cut], yref="paper", y0=0, y1=1.02, line={"dash": "dash", "width": 1.5})
    for text, side in (("history ", "right"), (" forecast", "left")):
        fig.add_annotation(x=x[cut], yref="paper", y=1.0, text=text, xanchor=side, yanchor="bottom")


def mean_error(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute error where both are there; NaN where nothing is."""
    gap = np.abs(prediction - truth)
    return float(np.nanmean(gap)) if np.isfinite(gap).any() else float("nan")


def default_title(errors: dict[str, float], length: int) -> str:
    """The model with the smallest error, said plainly."""
    known = {name: error for name, error in errors.items() if np.isfinite(error)}
    if not known:
        return f"Forecast of the next {counted(length, 'step')}"
    best = min(known, key=known.get)
    return f"{best} comes closest over the next {counted(length, 'step')}"


def describe(x: np.ndarray, cut: int, y: np.ndarray, unit: str, stated: str, gaps: str) -> str:
    """The sentences that stand in for the forecast plot."""
    axes = (
        f"Line plot of a forecast. Across: {moment(x[0])} to {moment(x[-1])}, "
        f"the forecast starts at {moment(x[cut])}. Up: {unit or 'value'}"
    )
    found = extremes(y)
    if found is None:
        return sentences(axes, "Every measured value is missing", stated[:1].upper() + stated[1:], gaps)
    (low,), (high,) = found
    span = f"Measured values from {number(y[low])} ({moment(x[low])}) to {number(y[high])} ({moment(x[high])})"
    return sentences(axes, span, stated[:1].upper() + stated[1:], gaps)
