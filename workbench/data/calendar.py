"""What the clock tells: place in the day and in the week, and how far back the same hour lies."""

import math

import numpy as np

DAY, WEEK = 24.0, 168.0


def calendar(times: np.ndarray, step_hours: float) -> np.ndarray:
    """Features of each time (T, G), between -1 and 1, float32: day, then week and weekend, as the step allows.

    Args:
        times: start of each step (T,), datetime64.
        step_hours: length of a step; a wave of fewer than four steps is left out.
    """
    hours = times.astype("datetime64[s]").astype(np.int64) / 3600
    waves = [DAY, DAY / 2, WEEK]
    features = []
    for period in waves:
        if period >= 4 * step_hours:
            angle = 2 * np.pi * hours / period
            features += [np.sin(angle), np.cos(angle)]
    if step_hours <= DAY:
        weekday = (hours // DAY + 3) % 7  # 1970-01-01 was a Thursday: Monday is 0
        features.append((weekday >= 5).astype(np.float64))
    return np.stack(features, -1).astype(np.float32) if features else np.zeros((len(times), 0), np.float32)


def seasons(step_hours: float, horizon: int, rows: int) -> tuple[int, ...]:
    """Lags of whole days and of whole weeks, in steps: known at the forecast, and seen at least twice in `rows`."""
    periods = [period / step_hours for period in (DAY, WEEK)]
    whole = [round(period) for period in periods if period >= 2 and abs(period - round(period)) < 1e-9]
    lags = [period * math.ceil(horizon / period) for period in whole]  # the same hour, at or before the last known
    return tuple(lag for lag in lags if lag <= rows / 2)
