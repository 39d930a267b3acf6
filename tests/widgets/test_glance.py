"""A trace at a glance: thumbnails are means, gaps are told from padding, and colours fit the kind of quantity."""

import numpy as np
import pytest

from tests.widgets.test_tiles import Counted, noise
from workbench.widgets.glance import THUMBNAIL, scale_of, thumbnails


def test_a_thumbnail_is_the_mean_over_units_and_steps():
    values = noise(1, 3, THUMBNAIL * 5, 4)
    glance = thumbnails(Counted(values), "cell.forget", THUMBNAIL * 5, 0, "signed")
    exact = values[0].reshape(3, THUMBNAIL, 5, 4).mean((2, 3))
    np.testing.assert_allclose(glance.columns, exact, atol=1e-6)
    assert glance.whole
    assert glance.missing == glance.infinite == glance.padding == 0


def test_a_gap_is_missing_and_the_end_of_a_short_sequence_is_padding():
    values = noise(2, 1, 50, 4)
    values[0, 0, 10:13], values[0, 0, 40:] = np.nan, np.nan
    values[0, 0, 20, 2] = -np.inf
    glance = thumbnails(Counted(values), "cell.forget", 50, 0, "signed")
    assert (glance.missing, glance.padding, glance.infinite) == (3 * 4, 10, 1)
    assert thumbnails(Counted(values), "cell.forget", 50, 1, "signed").missing == 0


def test_a_cell_that_gave_no_number_is_missing_and_not_padding():
    glance = thumbnails(Counted(np.full((1, 1, 50, 4), np.nan, np.float32)), "cell.forget", 50, 0, "signed")
    assert (glance.missing, glance.padding) == (200, 0)


def test_a_very_long_trace_is_sampled_and_says_so(monkeypatch):
    monkeypatch.setattr("workbench.widgets.glance.GLANCE", THUMBNAIL * 4 * 2)  # two steps of each column
    source = Counted(noise(1, 1, THUMBNAIL * 10, 4))
    glance = thumbnails(source, "cell.forget", THUMBNAIL * 10, 0, "signed")
    assert not glance.whole
    assert max(stop - start for start, stop in source.asked) == 2
    np.testing.assert_allclose(glance.columns[0, 3], source.values[0, 0, 30:32].mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "colours"), [("bounded", "sequential"), ("log", "log"), ("signed", "signed"), ("positive", "sequential")]
)
def test_each_kind_has_its_colours(kind, colours):
    values = np.abs(noise(1, 1, 60, 4)) if kind in ("bounded", "positive") else noise(1, 1, 60, 4)
    values = np.clip(values, 0, 1) if kind == "bounded" else values
    scale = scale_of([(Counted(values), "cell.forget", 60)], kind)
    assert scale.colours == colours
    assert (scale.low, scale.high) == (0, 1) if kind == "bounded" else scale.low in (0, -scale.high)


def test_infinities_and_gaps_do_not_stretch_the_colours():
    values = noise(1, 1, 60, 4)
    plain = scale_of([(Counted(values), "cell.forget", 60)], "signed")
    values[0, 0, 0] = [np.inf, -np.inf, np.nan, values[0, 0, 0, 3]]
    assert scale_of([(Counted(values), "cell.forget", 60)], "signed").high == pytest.approx(plain.high, rel=0.1)
    assert scale_of([(Counted(values * np.nan), "cell.forget", 60)], "signed").high == 1.0
