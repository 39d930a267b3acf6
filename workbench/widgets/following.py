"""What a run folder says to someone who watches it: status, curves, requests, and the probes as pictures."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np

from workbench.plots.arrays import block_size, min_max, pool_mean
from workbench.runs.files import read_lines_from
from workbench.runs.folder import Run
from workbench.trace.names import NAMES, Kind, kind_of
from workbench.trace.probe import labels, probe_folders
from workbench.trace.store import CARD, Trace
from workbench.training.control import FILE, KIND, answered

POINTS = 600  # of all curves together; more is thinned, with every lowest and highest point
COLUMNS, ROWS = 360, 96  # of a picture
LOSSES = ("train_loss", "valid_loss")
UNKNOWN = 255  # the colour of what is not a number
LEVELS = 254


class Picture(NamedTuple):
    """One quantity of one sequence at one probe, ready to be drawn.

    `levels` is (row, column) in 0 ... 254 on the scale low ... high, 255 where there is no number; `heads` is how
    many blocks of rows there are. `log` says that low and high are powers of ten.
    """

    levels: np.ndarray
    kind: Kind
    low: float
    high: float
    log: bool
    heads: int
    steps: int
    missing: int
    words: str


@dataclass
class Following:
    """A reader of a run folder that reads only what is new; all it knows is in the folder.

    Attributes:
        run: the run.
        records: of metrics.jsonl, by label.
        progress: the newest progress event.
        requests: what was asked of the training, and what became of it.
        probes: label to the steps that were probed.
    """

    run: Run
    records: dict[str, list[dict]] = field(default_factory=dict)
    progress: dict = field(default_factory=dict)
    requests: list[dict] = field(default_factory=list)
    probes: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = {"metrics.jsonl": 0, "events.jsonl": 0, FILE: 0}
        self._asked, self._answers = [], []
        self._traces: dict[tuple[str, int], tuple[int, Trace]] = {}
        self._extremes: dict[tuple[str, int, str], tuple[float, float]] = {}
        self.status = self.run.status()

    def read(self) -> None:
        """Take in what the folder has gained; the status first, so that an ended run is read to its end."""
        self.status = self.run.status()
        for record in self._gained("metrics.jsonl"):
            if isinstance(record.get("step"), (int, float)):
                self.records.setdefault(str(record.get("label", "training")), []).append(record)
        for event in self._gained("events.jsonl"):
            if event.get("kind") == "progress":
                self.progress = event
            elif event.get("kind") == KIND:
                self._answers.append(event)
        self._asked += self._gained(FILE)
        self.requests = answered(self._asked, self._answers)
        self.probes = {label: list(probe_folders(self.run, label)) for label in labels(self.run)}

    def _gained(self, name: str) -> list[dict]:
        records, self._places[name] = read_lines_from(self.run.path / name, self._places[name])
        return records

    def line(self) -> str:
        """The status as a person reads it, such as "running: xLSTM 120 of 360, 12 s left"."""
        parts, now = [self.status.state], self.progress
        if now and isinstance(now.get("done"), int):
            parts = [f"{parts[0]}: {now.get('label', 'step')} {now['done']:,} of {now.get('total', 0):,}"]
            left = now.get("seconds_left")
            if self.status.state == "running" and isinstance(left, (int, float)) and now["done"] < now.get("total", 0):
                parts.append(f"about {span(left)} left")
        if self.status.finished and self.status.seconds is not None:
            parts.append(f"after {span(self.status.seconds)}")
        error = self.status.error
        return ", ".join(parts) + (f". {error.name}: {error.value} {error.hint}".rstrip() if error else "")

    def curves(self) -> dict[str, dict[str, list]]:
        """Label to {loss: [steps, values]}, thinned to what fits in a saved notebook."""
        share = max(POINTS // max(2 * len(self.records), 1), 8)
        drawn = {}
        for label, records in self.records.items():
            for loss in LOSSES:
                x = np.array([record["step"] for record in records], dtype=np.float64)
                y = np.array([number(record.get(loss)) for record in records])
                if np.isnan(y).all():
                    continue
                x, y, _ = min_max(x, y, points=share, above=share)
                line = [[plain(value) for value in values] for values in (x, y)]
                drawn.setdefault(label, {})[loss] = line
        return drawn

    def quantities(self, label: str) -> list[str]:
        """Full paths of what the newest probe of a label holds."""
        steps = self.probes.get(label)
        return self.trace(label, steps[-1]).names() if steps else []

    def sequences(self, label: str) -> int:
        """How many sequences the probes of a label hold."""
        names = self.quantities(label)
        return len(self.trace(label, self.probes[label][-1]).read(names[0])) if names else 0

    def trace(self, label: str, step: int) -> Trace:
        """One probe, as it is on disk now: a training that goes on may have written it again."""
        folder = probe_folders(self.run, label)[step]
        written = (folder / CARD).stat().st_mtime_ns
        if self._traces.get((label, step), (0,))[0] != written:
            self._traces[label, step] = written, Trace.load(folder)
            self._extremes = {key: ends for key, ends in self._extremes.items() if key[:2] != (label, step)}
        return self._traces[label, step][1]

    def picture(self, label: str, name: str, step: int, sequence: int) -> Picture:
        """One quantity at one probe, on the scale of all probes so far."""
        values = self.trace(label, step).read(name)[sequence].astype(np.float64)
        values = values.reshape(1, 1, -1) if values.ndim == 1 else values
        values = values[..., None] if values.ndim == 2 else values  # (head, time, unit)
        rows = np.moveaxis(values, 2, 1).reshape(-1, values.shape[1])
        kind = kind_of(name)
        low, high = self._range(label, name, kind, values.shape[1])
        across, down = block_size(rows.shape[1], COLUMNS), block_size(len(rows), ROWS)
        pooled = pool_mean(pool_mean(drawn(rows, kind).T, across).T, down)
        share = np.clip((pooled - low) / (high - low), 0, 1)
        levels = np.where(np.isnan(share), UNKNOWN, np.rint(np.nan_to_num(share) * LEVELS)).astype(np.uint8)
        lost = int((~np.isfinite(rows)).sum())
        words = self._words(name, step, rows, kind, lost)
        return Picture(levels, kind, low, high, kind == "steps", len(values), rows.shape[1], lost, words)

    def _range(self, label: str, name: str, kind: Kind, steps: int) -> tuple[float, float]:
        if kind == "bounded":
            return 0.0, 1.0
        if kind == "steps":
            return 0.0, math.log10(max(10 * steps, 10))  # beyond ten windows nothing tells half-lives apart
        for step in self.probes[label]:
            if (label, step, name) not in self._extremes and name in self.trace(label, step).names():
                values = drawn(self.trace(label, step).read(name).astype(np.float64), kind)
                values = values[np.isfinite(values)]
                ends = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
                self._extremes[label, step, name] = ends
        ends = [ends for (at, _, what), ends in self._extremes.items() if (at, what) == (label, name)]
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        if kind in ("log", "signed"):
            high = max(abs(low), abs(high))
            low = -high
        return (min(low, 0.0), high) if high > min(low, 0.0) else (0.0, 1.0)

    def _words(self, name: str, step: int, rows: np.ndarray, kind: Kind, lost: int) -> str:
        """The picture for those who do not see it."""
        known = NAMES.get(name.rpartition(".")[2])
        finite = rows[np.isfinite(rows)]
        low, middle, high = np.quantile(finite, [0, 0.5, 1]) if finite.size else (math.nan,) * 3
        ends = f"from {low:.3g} to {high:.3g}, median {middle:.3g}"
        gaps = f"; {lost:,} values are not numbers" if lost else ""
        meaning = f" ({known.meaning})" if known else ""
        size = f"{rows.shape[0]} units over {rows.shape[1]} steps"
        return f"{name}{meaning} at training step {step:,}: {size}, {ends}{gaps}."


def drawn(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Values as they are placed on the scale: half-lives by their logarithm; infinities are unknown elsewhere."""
    if kind == "steps":
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log10(np.clip(values, 1.0, 1e30))
    return np.where(np.isfinite(values), values, np.nan)


def span(seconds: float) -> str:
    """A length of time: "12 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def clock(time: object) -> str:
    """The local time of day of a moment in a log, or nothing."""
    try:
        return f"{datetime.fromisoformat(str(time)).astimezone():%H:%M:%S}"
    except ValueError:
        return ""


def number(value: object) -> float:
    """A number of a log, where null says "no number"."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def plain(value: float) -> float | int | None:
    """A number as JSON, short."""
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.5g}")
