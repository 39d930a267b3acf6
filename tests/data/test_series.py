"""Reading series: the detectors that ship, a person's CSV, and every way in which it can be wrong."""

import numpy as np
import pytest

from workbench.data.series import detectors, read_csv


def test_detectors_are_the_published_counts():
    series = detectors()
    assert series.values.shape == (2496, 22)
    assert series.step_hours == 0.25
    assert series.missing == 4
    assert series.times[0] == np.datetime64("2024-04-18T00:00:00")
    assert np.nansum(series.values) == 1_051_756
    assert series.sha256.startswith("29746e4a")


def write(tmp_path, rows, header="when,count"):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def stamps(n=6):
    return [f"2024-05-01 {hour:02d}:00:00,{hour * 1.5}" for hour in range(n)]


def test_a_good_file_is_read(tmp_path):
    series = read_csv(write(tmp_path, stamps()), time="when", target="count")
    assert series.values[:, 0].tolist() == [0, 1.5, 3, 4.5, 6, 7.5]
    assert (series.step_hours, series.names, series.unit) == (1.0, ("count",), "count")


def test_dates_are_times_too(tmp_path):
    series = read_csv(write(tmp_path, [f"2024-05-{d:02d},{d}" for d in range(1, 9)]), time="when", target="count")
    assert series.step_hours == 24


def changed(row, text):
    rows = stamps()
    rows[row : row + 1] = [text] if text else []
    return rows


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            changed(2, "2024-05-01 02:00:00,"),
            r"1 of 6 values of 'count' are missing, the first in row 4 \(2024-05-01T02",
        ),
        (changed(2, "2024-05-01 02:00:00,NaN"), "1 of 6 values of 'count' are missing"),
        (changed(3, ""), r"1 steps are not the usual 3600 s, the first after 2024-05-01T02:00:00 \(7200 s, row 5\)"),
        (
            changed(3, "2024-05-01 02:00:00,9"),
            r"1 times in 'when' appear twice, the first 2024-05-01T02:00:00 in rows 4 and 5",
        ),
        (changed(3, "2024-05-01 00:30:00,9"), r"go backwards 1 times, first from row 4 .* sort the rows by 'when'"),
        (changed(3, "yesterday,9"), "'yesterday' in column 'when', row 5, is not a time"),
        (changed(3, "2024-05-01 03:00:00,many"), r"'many' in column 'count', row 5, is not a number"),
        (changed(3, "2024-05-01 03:00:00,inf"), "column 'count' is infinite in row 5"),
        (changed(3, ",9"), "column 'when' is empty in row 5"),
        (stamps(2), "has 2 rows; a series needs more"),
        ([], "has 0 rows behind its header"),
    ],
)
def test_a_bad_file_says_where_and_what_to_do(tmp_path, rows, says):
    with pytest.raises(ValueError, match=says):
        read_csv(write(tmp_path, rows), time="when", target="count")


def test_wrong_columns_name_the_nearest(tmp_path):
    path = write(tmp_path, stamps())
    with pytest.raises(ValueError, match=r"no column 'counts'; did you mean 'count'\? It has when, count"):
        read_csv(path, time="when", target="counts")
    with pytest.raises(ValueError, match="name one with --time, one with --target"):
        read_csv(path, time="", target="count")
    with pytest.raises(ValueError, match="column 'count' holds Float64, not times"):
        read_csv(path, time="count", target="count")


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_csv(tmp_path / "none.csv", time="a", target="b")
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(ValueError, match=r"noise\.csv"):
        read_csv(tmp_path / "noise.csv", time="a", target="b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("when;count\n2024-05-01;1,5\n", "separates its columns by semicolons"),
        ("when,count\n13:45:00,1\n13:50:00,2\n13:55:00,3\n", "column 'when' holds Time, not times"),
        (
            "when,count\n2024-05-01T00:00:00.1,1\n2024-05-01T00:00:00.2,2\n2024-05-01T00:00:00.3,3\n",
            "finer than a second",
        ),
        ("when,count\n2024-05-01T00:00:00+02:00,1\n2024-05-01T01:00:00+02:00,2\n", "carry an offset from UTC"),
        ("when,count\n2024-05-01,\n2024-05-02,\n2024-05-03,\n", "3 of 3 values of 'count' are missing"),
        ("when,count\n2024-01-01,1\n2024-02-01,2\n2024-03-01,3\n2024-04-01,3\n", "months are none"),
        ("when,count\n2024-05-01,n/a\n2024-05-02,2\n2024-05-03,3\n", "'n/a' in column 'count', row 2, is not a number"),
    ],
)
def test_other_habits_of_writing_are_named(tmp_path, text, says):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_csv(tmp_path / "mine.csv", time="when", target="count")


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "mine.csv").write_bytes("when,Zähler\n2024-05-01,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_csv(tmp_path / "mine.csv", time="when", target="Zähler")
