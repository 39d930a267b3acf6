"""The costs of tracing are measured on every family, and a stream's memory stays where it is."""

import pytest

from workbench.bench.trace import FAMILIES, Cost, Streamed, build, child, cost, measure, rise, table
from workbench.models.layouts import Layout


def test_every_layout_of_the_package_is_measured():
    kinds = {type(make()) for make in FAMILIES.values()}
    assert kinds == {kind for kind in Layout.__subclasses__() if kind.__module__ == Layout.__module__}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_cost(family):
    found = cost(family, 16)
    assert found.traced_ms > found.forward_ms > 0
    assert found.kept_mb > 0
    assert found.difference < 1e-5
    assert build(family)


def test_a_stream_is_measured_in_a_process_of_its_own():
    found = Streamed(**child("stream", "lstm", 4000))
    assert found.steps == 4000
    assert found.written_mb > 4000 * 7 * 64 * 4 / 2**20
    assert found.growth_mb < found.written_mb / 2


def test_memory_that_is_used_is_seen():
    assert rise(lambda: bytearray(64 * 2**20)) == pytest.approx(64, abs=8)


def test_unknown_families_are_refused():
    with pytest.raises(ValueError, match="wavenet is no family; choose from lstm, gru"):
        list(measure(16, ["wavenet"]))


def test_the_table_says_all():
    text = table([Cost("lstm", 1024, 2.0, 5.0, 1.0, 2.0, 3.0, 1e-7)], [Streamed("lstm", 10**6, 9.0, 800.0, 1.5)])
    assert "2.5 x" in text
    assert "1,000,000" in text
    assert "1.5 MB" in text
