"""The measurement of what a batch costs sees the work itself, and takes it out."""

from workbench.batch.overhead import measure


def test_own_time_is_that_of_the_cells_and_the_rest_is_overhead():
    rows = {row.kind: row for row in measure(runs=1)}
    assert list(rows) == ["papermill", "notebook", "experiment"]
    for row in rows.values():
        assert 0.5 <= row.own_seconds < 1.0  # half a second of sleep
        assert abs(row.wall_seconds - row.own_seconds - row.overhead_seconds) < 0.011
        assert row.overhead_seconds > 0.3  # no process starts faster
