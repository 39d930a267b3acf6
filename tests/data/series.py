"""Series made for tests."""

import numpy as np

from workbench.data.series import Series


def daily(days=30, noise=0.0, channels=1, values=None, step_hours=1):
    """An hourly series with a daily wave, seeded noise and known values."""
    if values is None:
        t = np.arange(days * 24 // step_hours)
        wave = 10 + 5 * np.sin(2 * np.pi * t * step_hours / 24)
        values = wave[:, None] + noise * np.random.default_rng(0).normal(size=(len(t), channels))
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    times = np.datetime64("2024-01-01", "s") + np.arange(len(values)) * np.timedelta64(3600 * step_hours, "s")
    names = tuple(f"channel {k}" for k in range(values.shape[1]))
    return Series(times, values, names, "units", "made up", "")
