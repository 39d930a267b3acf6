"""Trace: named, labelled quantities of a model's cells, in memory or on disk, readable without the model."""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from workbench.runs.files import read_json, write_json
from workbench.runs.params import differences
from workbench.trace.names import Kind, dimensions, kind_of, ours
from workbench.trace.pieces import Kept, Piece, open_pieces, write_piece

if TYPE_CHECKING:
    import xarray

FORMAT = 1
CARD = "trace.json"


class Trace:
    """Named quantities of every cell that ran, and how exact they are.

    `trace["blocks.0.cell.forget"]` is an xarray.DataArray with dims (batch, head, time[, unit]). The start of
    a path may be left out as long as the rest is unique, and names of other tools are understood (see ALIASES).
    With a folder, quantities are on disk and read when they are asked for.

    Args:
        arrays: path and name to tensor.
        exactness: path of each cell to the largest difference between the output that the model computed and
            the one that belongs to the traced quantities.
        about: what was traced, as JSON: the model's class and configuration, its cells, versions.
        folder: where the trace is kept; None keeps it in memory.
    """

    def __init__(
        self,
        arrays: Mapping[str, Tensor] | None = None,
        *,
        exactness: Mapping[str, float] | None = None,
        about: Mapping[str, object] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self.exactness = dict(exactness or {})
        self.about = {"format": FORMAT, "cells": {}, "missing": {}, "notes": [], **(about or {})}
        self.folder = None if folder is None else Path(folder)
        self._pieces: dict[str, list[Piece]] = {name: [Kept(name, tensor)] for name, tensor in (arrays or {}).items()}
        self._count = 0

    def __getitem__(self, name: str) -> "xarray.DataArray":
        import xarray

        path = self.find(name)
        values = self.read(path)
        return xarray.DataArray(values, dims=dimensions(path, values.ndim), name=path)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A stretch of time of one quantity, all else whole; from disk, no more than that is read.

        Args:
            name: as in `trace[name]`.
            start, stop: steps, as in a slice of positive numbers; None is the end.

        Returns:
            The values (batch, head, time[, unit]), NaN behind the end of a sequence.
        """
        path = self.find(name)
        pieces = self._pieces[path]
        if pieces[0].time is None:
            return pieces[-1].take(None, None).numpy()
        found, at = [], 0
        for piece in pieces:
            low, high = max(start - at, 0), piece.steps if stop is None else min(stop - at, piece.steps)
            if low < high:
                found.append(piece.take(low, high))
            at += piece.steps
        if not found:
            raise ValueError(f"{path} has {at} steps, and none from {start} to {stop}; ask for steps in 0 ... {at}.")
        return (found[0] if len(found) == 1 else torch.cat(found, pieces[0].time)).numpy()

    def find(self, name: str) -> str:
        """The full path that a name stands for.

        Raises:
            KeyError: none or several; the message lists the nearest, or all that fit.
        """
        if name in self._pieces:
            return name
        fitting = self._fitting(name)
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise KeyError(f"{name!r} could be any of {', '.join(fitting)}.")
        near = get_close_matches(name, self._pieces, 3, 0.3) or list(self._pieces)[:3]
        raise KeyError(f"the trace holds no {name!r}; the nearest are {', '.join(near) or 'none: no cell has run'}.")

    def _fitting(self, name: str) -> list[str]:
        found = [path for path in self._pieces if path.endswith("." + name)]
        own = ours(name, self)
        return found or [path for path in self._pieces if own != name and (path == own or path.endswith("." + own))]

    def __contains__(self, name: str) -> bool:
        return any(path == name or path.endswith("." + name) for path in self._pieces)

    def names(self, *patterns: str) -> list[str]:
        """All full paths, or those that match one of the patterns, such as "*.forget" or "blocks.0.*"."""
        return [path for path in self._pieces if not patterns or matches(path, patterns)]

    def kind(self, name: str) -> Kind:
        """On which scale a quantity is drawn (see workbench.trace.names)."""
        return kind_of(self.find(name))

    @property
    def arrays(self) -> dict[str, Tensor]:
        """All quantities, whole; of a trace on disk, this reads everything."""
        return {name: torch.from_numpy(self.read(name)) for name in self._pieces}

    @property
    def steps(self) -> int:
        """Length of the time axis: of the longest quantity, where cells ran over different ones."""
        return max((sum(p.steps for p in pieces) for pieces in self._pieces.values()), default=0)

    @property
    def cells(self) -> dict[str, dict]:
        """Path of each cell that ran to what it is."""
        return self.about["cells"]

    @property
    def error(self) -> float:
        """The largest difference from the real forward pass, over all cells."""
        return float(torch.tensor([0.0, *self.exactness.values()]).max())  # NaN if any is

    @property
    def notes(self) -> list[str]:
        """What a reader should know before believing a picture, in words: untrained, diverged, not numbers."""
        missing = self.about["missing"]
        count = sum(missing.values())
        where = ", ".join(sorted(missing)[:3]) + (" and others" if len(missing) > 3 else "")
        return [*self.about["notes"], *([f"{count:,} values are not numbers, in {where}"] if count else [])]

    def differences(self, other: "Trace") -> list[str]:
        """Where another trace is of another model, as sentences; an empty list where both are of the same."""
        odd = []
        for path in sorted(self.cells.keys() | other.cells.keys()):
            a, b = (trace.cells.get(path, {}).get("kind", "absent") for trace in (self, other))
            odd += [f"{path} is {a} there and {b} here"] if a != b else []
        configs = [trace.about.get("config") or {} for trace in (self, other)]
        odd += differences(*configs)
        for what in ("workbench", "torch"):
            a, b = (trace.about.get("versions", {}).get(what) for trace in (self, other))
            odd += [f"it was recorded with {what} {a}, and this one with {b}"] if a != b else []
        same = self.about.get("weights") == other.about.get("weights")
        return odd if same or odd else ["the weights differ"]

    def add(self, quantities: Mapping[str, Tensor], *, join: bool) -> None:
        """Take in the quantities of one run of a cell: behind those of its last run, or in their place."""
        if self.folder is None:
            pieces = [Kept(name, tensor) for name, tensor in quantities.items()]
        else:
            pieces = write_piece(self.folder, self._count, quantities)
            self._count += 1
        for piece in pieces:
            before = self._pieces.get(piece.name, []) if join else []
            self._pieces[piece.name] = [*before, piece]

    def save(self, folder: str | Path | None = None) -> Path:
        """Write the trace to a folder, `trace.json` last: once that is there, the trace is whole.

        Args:
            folder: made if it is not there; None is the folder that the trace streams to.
        """
        if folder is None and self.folder is None:
            raise ValueError("this trace has no folder of its own; name one: trace.save(run.traces / 'probe').")
        target = self.folder if folder is None else Path(folder)
        if target != self.folder:
            for old in target.glob("*.safetensors") if target.is_dir() else ():
                old.unlink()
            kept = {name: torch.from_numpy(self.read(name)) for name in self._pieces}
            write_piece(target, 0, kept)
            files = {name: ["00000.safetensors"] for name in kept}
        else:
            files = {name: [piece.file.name for piece in pieces] for name, pieces in self._pieces.items()}
        card = {**self.about, "exactness": {k: v if np.isfinite(v) else None for k, v in self.exactness.items()}}
        write_json(target / CARD, {**card, "files": files})
        return target

    @classmethod
    def load(cls, folder: str | Path) -> "Trace":
        """A trace that was saved; its quantities are read when they are asked for.

        Raises:
            FileNotFoundError: there is no trace, or one that was not finished.
            ValueError: it has another format, or a file of it is damaged.
        """
        folder = Path(folder)
        if not (folder / CARD).is_file():
            begun = " It holds pieces of one that was not finished." if any(folder.glob("*.safetensors")) else ""
            raise FileNotFoundError(f"{folder} holds no trace ({CARD} is missing).{begun}")
        card = read_json(folder / CARD)
        if card.get("format") != FORMAT:
            raise ValueError(f"{folder} has trace format {card.get('format')}, and this version reads {FORMAT}.")
        exactness = {path: np.nan if value is None else value for path, value in card.pop("exactness").items()}
        files = card.pop("files")
        trace = cls(exactness=exactness, about=card, folder=folder)
        try:
            trace._pieces = open_pieces(folder, files)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder} is damaged: {error}. Record it again, or copy it again.") from error
        trace._count = len(list(folder.glob("*.safetensors")))
        return trace

    def __repr__(self) -> str:
        cells = ", ".join(f"{path} ({error:.1e})" for path, error in self.exactness.items())
        notes = "".join(f"; {note}" for note in self.notes)
        return (
            f"Trace of {len(self._pieces)} quantities over {self.steps:,} steps; "
            f"largest difference from the forward pass: {cells or 'none'}{notes}"
        )


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path, or its end behind a dot, matches one of the patterns."""
    return any(fnmatchcase(path, pattern) or fnmatchcase(path, f"*.{pattern}") for pattern in patterns)


def as_json(value: object) -> object:
    """A configuration as JSON types, or None where it has none."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return None
