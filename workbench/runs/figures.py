"""A figure as a bundle of files: the drawing, the numbers in it, and where they come from."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.runs.files import now, write_bytes, write_json
from workbench.runs.provenance import sha256

if TYPE_CHECKING:
    import polars as pl

    from workbench.runs.folder import Run

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_AXES = ("x", "y", "z", "r", "theta", "lat", "lon", "a", "b", "c", "open", "high", "low", "close")
_COLUMNS = (*_AXES, "values", "labels", "base")


def save_bundle(run: "Run", fig: object, name: str, caption: str = "") -> Path:
    """Save a plotly figure in `figures/<name>/`, replacing one of that name; returns the folder.

    `figure.json` is written last: once it is there, the bundle is complete.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a figure; use letters, digits, '-' and '_', as in 'gates-block-0'.")
    if not hasattr(fig, "to_json") or not hasattr(fig, "data"):
        raise TypeError(f"figure {name!r} is a {type(fig).__name__}; give a plotly go.Figure.")
    folder = run.figures / name
    folder.mkdir(exist_ok=True)
    (folder / "figure.json").unlink(missing_ok=True)
    draft = folder / ".data.parquet.tmp"
    plotted_data(fig).write_parquet(draft)
    draft.replace(folder / "data.parquet")
    drawing = fig.to_json().encode()
    record = run.record
    provenance = {
        "figure": name,
        "caption": caption,
        "alt": (fig.layout.meta or {}).get("alt", "") if isinstance(fig.layout.meta, dict) else "",
        "made": now(),
        "run": run.name,
        "cell": _cell_number(),
        "data_sha256": sha256(folder / "data.parquet"),
    }
    kept = ("notebook", "params", "seed", "data", "commit", "dirty", "versions", "host")
    write_json(folder / "provenance.json", provenance | {key: record.get(key) for key in kept})
    write_bytes(folder / "figure.json", drawing)
    return folder


def plotted_data(fig: object) -> "pl.DataFrame":
    """The numbers of a figure in long form: one row per point (per cell of a heat map), traces below each other.

    Columns: trace (its place in the figure), name, and those of x, y, z … that some trace has.
    """
    import polars as pl

    frames = [_trace_frame(place, trace) for place, trace in enumerate(fig.data)]
    frames = [frame for frame in frames if frame is not None]
    if not frames:
        return pl.DataFrame(schema={"trace": pl.Int64, "name": pl.String})
    for column in _COLUMNS:
        kinds = {frame.schema[column].is_numeric() for frame in frames if column in frame.columns}
        temporal = {frame.schema[column] for frame in frames if column in frame.columns}
        if len(kinds) > 1 or (kinds == {False} and len(temporal) > 1):  # dates beside numbers or text
            frames = [
                frame.with_columns(pl.col(column).cast(pl.String)) if column in frame.columns else frame
                for frame in frames
            ]
    return pl.concat(frames, how="diagonal_relaxed")


def _trace_frame(place: int, trace: object) -> "pl.DataFrame | None":
    import numpy as np
    import polars as pl

    arrays = dict(_arrays(trace))
    grid = arrays.get("z")
    if grid is not None and grid.ndim == 2:
        rows, columns = grid.shape
        x = arrays.get("x", np.arange(columns))
        y = arrays.get("y", np.arange(rows))
        arrays["z"] = grid.ravel()
        arrays["x"] = np.tile(x[:columns], rows) if x.ndim == 1 else x.ravel()
        arrays["y"] = np.repeat(y[:rows], columns) if y.ndim == 1 else y.ravel()
    flat = {name: array for name, array in arrays.items() if array.ndim == 1}
    length = max((len(array) for array in flat.values()), default=0)
    if length == 0:
        return None
    columns = {name: _column(name, array, length) for name, array in flat.items()}
    return pl.DataFrame({"trace": [place] * length, "name": [trace.name or ""] * length, **columns})


def _arrays(trace: object) -> Iterator[tuple[str, object]]:
    import numpy as np

    for name in _COLUMNS:
        value = getattr(trace, name, None)
        if value is not None and not isinstance(value, str) and hasattr(value, "__len__"):
            yield name, np.asarray(value)


def _column(name: str, array: object, length: int) -> "pl.Series":
    import polars as pl

    if array.dtype.kind == "M":
        array = array.astype("datetime64[us]")
    values = array.tolist() if array.dtype == object else array
    series = pl.Series(name, values, strict=False)
    if series.dtype == pl.Object:
        series = pl.Series(name, [None if value is None else str(value) for value in values])
    if len(series) < length:
        series = series.extend_constant(None, length - len(series))
    return series


def _cell_number() -> int | None:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return len(shell.history_manager.input_hist_parsed) - 1 if shell else None
