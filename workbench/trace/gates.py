"""What gates say, in words."""

import numpy as np


def memory_spans(log_forget: np.ndarray, step_hours: float) -> str:
    """How long memories last, in one sentence: shortest, middle and longest half-life, each taken over time.

    Args:
        log_forget: logarithm of forget gates, time first (T, ...).
        step_hours: length of a step.
    """
    log_forget = np.asarray(log_forget, np.float64).reshape(len(log_forget), -1)
    hours = np.median(np.log(0.5) / np.minimum(log_forget, -1e-30), 0) * step_hours
    shortest, middle, longest = (duration(x) for x in (hours.min(), np.median(hours), hours.max()))
    many = log_forget.shape[1]
    if many == 1:
        return f"its one memory halves in {middle}"
    return f"of its {many} memories the shortest halves in {shortest}, the middle in {middle}, the longest in {longest}"


def duration(hours: float) -> str:
    """A length of time in a unit that suits it."""
    if not np.isfinite(hours) or hours > 24 * 365:
        return "more than a year"
    for size, unit in ((24, "days"), (1, "hours"), (1 / 60, "minutes")):
        if hours >= 2 * size:
            return f"{hours / size:.0f} {unit}"
    return f"{hours * 3600:.0f} seconds"


def movers(gate: np.ndarray, signal: np.ndarray) -> tuple[int, float]:
    """The unit whose gate follows a signal most closely, and the correlation.

    Args:
        gate: one column for each unit (T, U).
        signal: what may move it (T,).
    """
    gate = np.asarray(gate, np.float64).reshape(len(gate), -1)
    gate, signal = gate - gate.mean(0), signal - signal.mean()
    size = np.sqrt((gate**2).sum(0) * (signal**2).sum())
    together = np.divide(gate.T @ signal, size, out=np.zeros(gate.shape[1]), where=size > 1e-12)
    unit = int(np.abs(together).argmax())
    return unit, float(together[unit])
