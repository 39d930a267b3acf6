"""What a view may ask of traces, and the answers: JSON and bytes, the same for a kernel and for a page of its own."""

import csv
import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from workbench.trace.names import NAMES, dimensions, kind_of
from workbench.trace.store import Trace
from workbench.widgets.glance import Scale, scale_of, thumbnails
from workbench.widgets.tiles import Readable, Tile, quantise, stretch, tiles_at

Answer = tuple[dict, list[bytes]]
KEPT = 2**28  # bytes of tiles that are kept
TABLE = 4_000_000  # values of one CSV
LABELS = 12  # training steps that a colour scale looks at


class Series:
    """What the model was given, as something that tiles are cut from.

    Args:
        values: (time,), (time, channel) or (batch, time, channel).
    """

    def __init__(self, values: ArrayLike) -> None:
        values = np.asarray(values, dtype=np.float32)
        if values.ndim not in (1, 2, 3):
            raise ValueError(
                f"series has shape {values.shape}; it needs (time,), (time, channel) or (batch, time, channel)."
            )
        if values.ndim == 1:
            values = values[:, None]
        self.values = values if values.ndim == 3 else values[None]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A stretch of time (batch, 1, time, channel)."""
        return self.values[:, None, start:stop]


class Place(NamedTuple):
    """One quantity of one cell, and its size."""

    cell: int
    heads: int
    units: int  # 0: each head has one value


class Answers:
    """Traces behind a view.

    Args:
        traces: label (a training step, a run) to trace; the first says what there is.
        series, tokens, axis: see `workbench.widgets.scope.Scope`, checked.
    """

    def __init__(
        self,
        traces: Mapping[str, Trace],
        *,
        series: Series | None = None,
        tokens: Sequence[Sequence[str]] | None = None,
        axis: np.ndarray | None = None,
    ) -> None:
        self.traces = dict(traces)
        self.series, self.tokens, self.axis = series, tokens, axis
        self._sources: dict[str, tuple[Readable, int]] = {
            str(at): (trace, trace.steps) for at, trace in enumerate(traces.values())
        }
        if series is not None:
            self._sources["series"] = (series, series.values.shape[1])
        self.first = next(iter(self.traces.values()))
        self.cells: list[str] = []
        self.places: dict[str, list[Place]] = {}
        self.left_out: list[str] = []
        self.batch = 1
        self._survey()
        self._scales: dict[tuple[str, str], Scale] = {}
        self._tiles: OrderedDict[tuple, dict[tuple, Tile]] = OrderedDict()
        self._kept = 0

    def _survey(self) -> None:
        """Find the cells, and what each of them has."""
        steps = self.first.steps
        order = {name: at for at, name in enumerate(NAMES)}
        found: dict[str, list[Place]] = {}
        for path in self.first.names():
            cell, _, name = path.rpartition(".")
            try:
                end = self.first.read(path, steps - 1, steps)
            except ValueError:
                self.left_out.append(f"{path} has fewer than {steps} steps")
                continue
            if "time" not in dimensions(path, end.ndim):
                self.left_out.append(f"{path} has no time axis")
                continue
            if cell not in self.cells:
                self.cells.append(cell)
            heads, units = (1, 0) if end.ndim == 2 else (end.shape[1], end.shape[3] if end.ndim == 4 else 0)
            self.batch = max(self.batch, end.shape[0])
            found.setdefault(name, []).append(Place(self.cells.index(cell), heads, units))
        if not found:
            raise ValueError("the trace holds nothing with a time axis; record a model while it runs.")
        self.places = dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))

    @property
    def opening(self) -> str:
        """The quantity that a view opens with."""
        return next((name for name in ("forget", "write_strength") if name in self.places), next(iter(self.places)))

    def path(self, cell: int, quantity: str) -> str:
        """The full path of a quantity."""
        return f"{self.cells[cell]}.{quantity}" if self.cells[cell] else quantity

    def add(self, label: str, source: Readable, steps: int) -> None:
        """One more thing to ask about, such as what an edit changed; of each kind the newest is kept."""
        kind = label.partition("#")[0] + "#"
        for old in [name for name in self._sources if name.startswith(kind)]:
            del self._sources[old]
        for key in [key for key in self._tiles if key[0].startswith(kind)]:
            self._kept -= sum(tile.codes.nbytes for tile in self._tiles.pop(key).values())
        self._scales = {key: scale for key, scale in self._scales.items() if not key[0].startswith(kind)}
        self._sources[label] = (source, steps)

    def answer(self, request: Mapping[str, object]) -> Answer:
        """The answer to one request.

        Raises:
            ValueError, KeyError: there is no such thing.
        """
        asked = dict(request)
        kinds = {
            "tile": self._tile,
            "overview": self._overview,
            "tokens": self._tokens,
            "axis": self._axis,
            "csv": self._csv,
        }
        if (kind := asked.pop("ask", None)) not in kinds:
            raise ValueError(f"{kind!r} cannot be asked; choose one of {', '.join(kinds)}.")
        return kinds[kind](**asked)

    def source(self, label: str) -> tuple[Readable, int]:
        """What a label stands for, and how many steps it has."""
        if label not in self._sources:
            raise KeyError(f"there is no {label!r} any more; ask again.")
        return self._sources[label]

    def _tile(self, label: str, cell: int, quantity: str, batch: int, head: int, level: int, index: int) -> Answer:
        source, steps = self.source(label)
        path, kind = (quantity, "signed") if label == "series" else (self.path(cell, quantity), kind_of(quantity))
        kind = "signed" if label.startswith("difference") else kind
        key = (label, path, level, index)
        if key not in self._tiles:
            self._tiles[key] = tiles_at(source, path, steps, level, index, kind)
            self._kept += sum(tile.codes.nbytes for tile in self._tiles[key].values())
        self._tiles.move_to_end(key)
        while self._kept > KEPT and len(self._tiles) > 1:
            _, old = self._tiles.popitem(last=False)
            self._kept -= sum(tile.codes.nbytes for tile in old.values())
        groups = self._tiles[key]
        sequences, heads = (1 + max(which) for which in zip(*groups, strict=True))
        tile = groups[min(batch, sequences - 1), min(head, heads - 1)]
        planes, rows, columns = tile.codes.shape
        said = {"planes": planes, "rows": rows, "columns": columns, "low": tile.low, "high": tile.high}
        return said | {"missing": tile.missing, "infinite": tile.infinite}, [tile.codes.tobytes()]

    def _overview(self, label: str, quantity: str, batch: int) -> Answer:
        source, steps = self.source(label)
        kind = "signed" if label.startswith("difference") else kind_of(quantity)
        cells, codes = [], []
        for place in self.places[quantity]:
            glance = thumbnails(source, self.path(place.cell, quantity), steps, batch, kind)
            coded, low, high = quantise(glance.columns)
            cells.append({"cell": place.cell, "low": low, "high": high, "columns": coded.shape[1]})
            cells[-1] |= {name: getattr(glance, name) for name in ("missing", "infinite", "padding", "whole")}
            codes.append(coded.tobytes())
        return {"cells": cells, "scale": self.scale(label, quantity)._asdict()}, codes

    def scale(self, label: str, quantity: str) -> Scale:
        """The colours of a quantity: the same for all labels, but for what an edit changed."""
        changed = label if label.startswith("difference") else ""
        key = (changed, quantity)
        if key not in self._scales:
            paths = [self.path(place.cell, quantity) for place in self.places[quantity]]
            if changed:
                source, steps = self.source(changed)
                self._scales[key] = scale_of([(source, path, steps) for path in paths], "signed")
            else:
                traces = list(self.traces.values())
                some = traces[:: -(-len(traces) // LABELS)]
                every = [(trace, path, trace.steps) for trace in some for path in paths if path in trace]
                self._scales[key] = scale_of(every, kind_of(quantity))
        return self._scales[key]

    def _tokens(self, batch: int) -> Answer:
        if self.tokens is None:
            raise ValueError("this view has no tokens.")
        return {"tokens": list(self.tokens[min(batch, len(self.tokens) - 1)])}, []

    def _axis(self) -> Answer:
        if self.axis is None:
            raise ValueError("this view counts its steps.")
        return {}, [positions(self.axis).tobytes()]

    def _csv(self, label: str, cell: int, quantity: str, batch: int, head: int, start: int, stop: int) -> Answer:
        source, steps = self.source(label)
        path, (start, stop) = self.path(cell, quantity), (max(start, 0), min(stop, steps))
        values = stretch(source, path, start, stop, "signed")
        group = values[min(batch, len(values) - 1), min(head, values.shape[1] - 1)]
        if group.size > TABLE:
            raise ValueError(f"{group.size:,} values are too many for one table; zoom in to at most {TABLE:,}.")
        place = next(place for place in self.places[quantity] if place.cell == cell)
        what = "unit" if place.units else "head"
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        axis = [] if self.axis is None else ["position"]
        table.writerow(["step", *axis, *(f"{what} {row}" for row in range(group.shape[1]))])
        for at, row in zip(range(start, stop), group, strict=True):
            table.writerow([at, *([self.axis[at]] if axis else []), *(format(float(x), ".9g") for x in row)])
        where = path + (f" head {head}" if place.units else "")
        return {"name": f"{where} steps {start}-{stop - 1}.csv".replace(" ", "_"), "text": text.getvalue()}, []


def positions(axis: np.ndarray) -> np.ndarray:
    """Positions on the time axis as float64: numbers, or milliseconds since 1970."""
    if np.issubdtype(axis.dtype, np.datetime64):
        return axis.astype("datetime64[us]").astype(np.int64) / 1000
    return axis.astype(np.float64)


def even(axis: np.ndarray) -> dict | None:
    """The axis as {first, step, dates} where steps are equally far apart."""
    at = positions(axis)
    step = (at[-1] - at[0]) / max(len(at) - 1, 1)
    dates = bool(np.issubdtype(axis.dtype, np.datetime64))
    if len(at) > 2 and not np.allclose(np.diff(at), step, rtol=1e-6, atol=0):
        return {"dates": dates}
    return {"dates": dates, "first": float(at[0]), "step": float(step)}
