"""The measurement of searches: workers that are killed lose no trial."""

from workbench.search.speed import Row, measure


def test_killed_workers_are_replaced_and_lose_nothing():
    quick, killed = measure(8, [2], 2)
    assert (quick.storage, quick.workers, quick.trials, quick.kills, quick.lost) == ("journal", 2, 8, 0, 0)
    assert quick.trials_per_minute > 60
    assert (killed.kills, killed.lost) == (2, 0)
    assert isinstance(killed, Row)
