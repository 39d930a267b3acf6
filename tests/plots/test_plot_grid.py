"""Thumbnails of all heads: places, one scale, ranks."""

import numpy as np
import pytest

from workbench import plots


def gate(seed, spread=0.1, steps=60, units=3):
    return np.clip(0.5 + np.random.default_rng(seed).normal(0, spread, (steps, units)), 0, 1)


def captions(fig):
    return [note.text for note in fig.layout.annotations]


def test_layers_go_down_and_heads_across():
    fig = plots.head_grid({(1, 1): gate(0), (0, 0): gate(1), (0, 1): gate(2)})
    places = [
        (axis.domain[0], fig.layout[f"yaxis{key}"].domain[1]) for key, axis in zip(("", 2, 3), axes(fig), strict=True)
    ]
    assert places[0][0] == places[2][0] > places[1][0] == 0
    assert places[1][1] == places[2][1] == 1 > places[0][1]
    assert "layer 1 has 1 of 2 heads" in fig.layout.meta["alt"]


def axes(fig):
    return [fig.layout[f"xaxis{key}"] for key in ("", 2, 3)]


def test_all_thumbnails_share_one_scale():
    fig = plots.head_grid({(0, 0): gate(0), (0, 1): 0.01 * gate(1)})
    assert {trace.coloraxis for trace in fig.data} == {"coloraxis"}
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 1)
    lines = plots.head_grid({(0, 0): gate(0)[:, 0], (0, 1): 0.01 * gate(1)[:, 0]})
    assert lines.layout.yaxis.range == lines.layout.yaxis2.range


def test_heads_are_ranked_by_variance_over_time():
    heads = {(0, 0): gate(0, 0.05), (0, 1): gate(1, 0.2), (1, 0): np.tile([[0.0, 0.5, 1.0]], (60, 1))}
    fig = plots.head_grid(heads)
    assert "head 1 <b>#1</b>" in captions(fig)
    assert [text for text in captions(fig) if "#3" in text] == ["head 0 <b>#3</b>"]
    variance = heads[0, 1].var(axis=0).mean()
    assert f"layer 0, head 1 ({variance:.3g})" in fig.layout.meta["alt"]
    assert "rank by variance over time, mean over units: layer 0, head 1" in fig.layout.meta["subtitle"]
    assert fig.layout.meta["title"] == "Layer 0, head 1 changes most"


def test_heads_are_ranked_by_saturation():
    heads = {("a", "x"): np.full((10, 2), 0.5), ("b", "x"): np.array([[0.001, 0.5]] * 10)}
    fig = plots.head_grid(heads, by="saturation")
    assert "layer b, head x (0.5)" in fig.layout.meta["alt"]
    assert "below 0.01 or above 0.99" in fig.layout.meta["subtitle"]


def test_where_nothing_changes_no_head_stands_out():
    fig = plots.head_grid({(0, 0): np.full((9, 2), 0.25), (0, 1): np.full((9, 2), 0.5)})
    assert fig.layout.meta["title"] == "No head stands out"


def test_thumbnails_are_small():
    fig = plots.head_grid({(0, head): gate(head, steps=5000, units=100) for head in range(4)})
    assert fig.data[0].z.shape == (20, 239)
    assert "steps pooled 21:1 (mean), units pooled 5:1 (mean)" in fig.layout.meta["alt"]


def test_half_lives_are_ranked_in_decades():
    heads = {(0, 0): np.geomspace(1, 10, 50), (0, 1): np.linspace(100, 109, 50)}
    fig = plots.head_grid(heads, kind="steps")
    assert "Ranked by variance over time, mean over units: layer 0, head 0" in fig.layout.meta["alt"]
    assert "Values from 1 to 50" in fig.layout.meta["alt"]


def test_bad_input_is_said():
    with pytest.raises(ValueError, match=r"heads has the key 3; pass \(layer, head\)"):
        plots.head_grid({3: gate(0)})
    with pytest.raises(ValueError, match="heads has 0 entries"):
        plots.head_grid({})
    with pytest.raises(ValueError, match=r"over the same steps; \(0, 0\) has \(60, 3\), \(0, 1\) has \(50, 3\)"):
        plots.head_grid({(0, 0): gate(0), (0, 1): gate(0, steps=50)})
    with pytest.raises(ValueError, match="by='saturation' cannot rank kind='signed'"):
        plots.head_grid({(0, 0): gate(0)}, kind="signed", by="saturation")
