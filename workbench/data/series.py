"""Time series on a regular grid: from a person's CSV file, or from the detectors that ship."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.data.registry import fetch, sha256

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class Series:
    """Values on a regular grid of times.

    Attributes:
        times: start of each step, rising by a constant (T,), datetime64[s].
        values: one column for each channel (T, C), float64; NaN where nothing was measured.
        names: of the channels.
        unit: of the values.
        source: where they come from, for provenance.
        sha256: checksum of the file.
    """

    times: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]
    unit: str
    source: str
    sha256: str

    @property
    def step_hours(self) -> float:
        """Length of a step in hours."""
        return float((self.times[1] - self.times[0]) / np.timedelta64(3600, "s"))

    @property
    def missing(self) -> int:
        """Steps at which at least one channel was not measured."""
        return int(np.isnan(self.values).any(1).sum())


def detectors() -> Series:
    """Counts of 22 traffic detectors at one intersection, vehicles per 15 minutes, 26 days of spring 2024.

    Steps that the recording lacks are NaN. Source and licence: data/README.md.
    """
    import polars as pl

    path = fetch("detector_counts")
    wide = pl.read_parquet(path).pivot(on="detector", index="timestamp", values="total").sort("timestamp")
    wide = wide.upsample("timestamp", every="15m")
    names = tuple(sorted((name for name in wide.columns if name != "timestamp"), key=int))
    return Series(
        times=wide["timestamp"].to_numpy().astype("datetime64[s]"),
        values=wide.select(names).to_numpy().astype(np.float64),
        names=tuple(f"detector {name}" for name in names),
        unit="vehicles / 15 min",
        source="traffic-anomaly 2.5.4, sample_counts (MIT)",
        sha256=sha256(path),
    )


def read_csv(path: str | Path, *, time: str, target: str) -> Series:
    """Read one series from a CSV file with a header.

    Args:
        path: the file, UTF-8.
        time: name of the column of times (ISO dates, or what polars recognises).
        target: name of the column of numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing or holds something else; times repeat, go backwards or leave gaps;
            values are missing. The message says where and what to do.
    """
    import polars as pl

    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (looked in {Path.cwd()}).")
    text = path.read_bytes()
    head = text.partition(b"\n")[0]
    if head.count(b";") > head.count(b","):
        raise ValueError(f"{path.name} separates its columns by semicolons; save it with commas and decimal points.")
    try:
        text.decode()
        table = pl.read_csv(text, try_parse_dates=True, infer_schema_length=None, null_values=["", "NA", "NaN", "nan"])
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text; save it as UTF-8.") from error
    except (pl.exceptions.ComputeError, pl.exceptions.NoDataError) as error:
        raise ValueError(f"{path.name} is not a CSV file that can be read: {str(error).splitlines()[0]}") from error
    times, values = _times(table, time, path.name), _numbers(table, target, path.name)
    _check_grid(times, path.name, time)
    if (holes := np.flatnonzero(np.isnan(values))).size:
        raise ValueError(
            f"{path.name}: {holes.size} of {len(values)} values of {target!r} are missing, the first in row "
            f"{holes[0] + 2} ({times[holes[0]]}); fill them, or cut the file to a stretch without holes."
        )
    return Series(times, values[:, None], (target,), target, path.name, sha256(path))


def _column(table: "polars.DataFrame", name: str, file: str) -> "polars.Series":
    if not name:
        raise ValueError(f"{file} has the columns {', '.join(table.columns)}: name one with --time, one with --target.")
    if name not in table.columns:
        near = get_close_matches(name, table.columns, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{file} has no column {name!r}; {hint}It has {', '.join(table.columns)}.")
    return table[name]


def _times(table: "polars.DataFrame", name: str, file: str) -> np.ndarray:
    import polars as pl

    column = _column(table, name, file)
    if column.dtype == pl.String:
        parsed = column.str.to_datetime(strict=False)
        bad = (parsed.is_null() & column.is_not_null()).arg_true()
        if len(bad):
            row = bad[0]
            raise ValueError(
                f"{file}: {column[row]!r} in column {name!r}, row {row + 2}, is not a time; write 2024-05-01 13:45:00."
            )
        column = parsed
    if column.dtype not in (pl.Date, pl.Datetime):
        raise ValueError(f"{file}: column {name!r} holds {column.dtype}, not times; write them as 2024-05-01 13:45:00.")
    if getattr(column.dtype, "time_zone", None):
        raise ValueError(
            f"{file}: times in {name!r} carry an offset from UTC; write local clock time without it: "
            "the hour of the day and the weekday are read from it."
        )
    if column.null_count():
        raise ValueError(f"{file}: column {name!r} is empty in row {column.is_null().arg_true()[0] + 2}.")
    times = column.cast(pl.Datetime("us")).to_numpy()
    if (times != times.astype("datetime64[s]")).any():
        raise ValueError(f"{file}: times in {name!r} are finer than a second; resample to whole seconds.")
    return times.astype("datetime64[s]")


def _numbers(table: "polars.DataFrame", name: str, file: str) -> np.ndarray:
    import polars as pl

    column = _column(table, name, file)
    if not len(column):
        raise ValueError(f"{file} has 0 rows behind its header.")
    if column.dtype == pl.String:
        parsed = column.str.strip_chars().cast(pl.Float64, strict=False)
        bad = (parsed.is_null() & column.is_not_null()).arg_true()
        if len(bad):
            raise ValueError(f"{file}: {column[bad[0]]!r} in column {name!r}, row {bad[0] + 2}, is not a number.")
        column = parsed
    if not column.dtype.is_numeric():
        raise ValueError(f"{file}: column {name!r} holds {column.dtype}, such as {column[0]!r}, not numbers.")
    values = column.to_numpy().astype(np.float64)
    if np.isinf(values).any():
        raise ValueError(f"{file}: column {name!r} is infinite in row {np.flatnonzero(np.isinf(values))[0] + 2}.")
    return values


def _check_grid(times: np.ndarray, file: str, name: str) -> None:
    """Refuse times that do not rise by a constant."""
    if len(times) < 3:
        raise ValueError(f"{file} has {len(times)} rows; a series needs more.")
    steps = np.diff(times)
    if (back := np.flatnonzero(steps < np.timedelta64(0, "s"))).size:
        raise ValueError(
            f"{file}: times in {name!r} go backwards {back.size} times, first from row {back[0] + 2} "
            f"({times[back[0]]}) to the next ({times[back[0] + 1]}); sort the rows by {name!r}."
        )
    if (same := np.flatnonzero(steps == np.timedelta64(0, "s"))).size:
        raise ValueError(
            f"{file}: {same.size} times in {name!r} appear twice, the first {times[same[0]]} in rows {same[0] + 2} and "
            f"{same[0] + 3}; keep one row for each time."
        )
    usual = np.median(steps.astype(np.int64)).astype("timedelta64[s]")
    if (odd := np.flatnonzero(steps != usual)).size:
        raise ValueError(
            f"{file}: {odd.size} steps are not the usual {usual.astype(int)} s, the first after {times[odd[0]]} "
            f"({steps[odd[0]].astype(int)} s, row {odd[0] + 3}); fill or resample to a regular grid first "
            "(months are none: they differ in length)."
        )
