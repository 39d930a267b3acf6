"""What holds for every picture of a trace: colours that were tested, words that state facts, gaps that are counted."""

import json
import time

import numpy as np
import plotly.graph_objects as go
import pytest

from workbench import plots
from workbench.plots.style import DIVERGING, DIVERGING_SIGNED, MARK, PALETTE, SEQUENTIAL, faded

STEPS = 120


def bounded(steps=STEPS, units=4):
    return np.random.default_rng(0).uniform(0.1, 0.9, (steps, units))


def holed(array):
    """The array with one value missing."""
    array = array.copy()
    array[(3,) + (0,) * (array.ndim - 1)] = np.nan
    return array


def weights(steps=STEPS):
    return np.full(steps, 1 / steps)


def padded(steps=STEPS):
    """Pooling weights over a sequence whose last step is padding."""
    return np.append(weights(steps - 1), np.nan)


def triangle(steps=40):
    return np.tril(np.random.default_rng(0).normal(size=(steps, steps)))


# Name -> the plot of arrays with nothing missing, and with one value missing.
PICTURES = {
    "gate_heatmap": (lambda gate: plots.gate_heatmap(gate), bounded),
    "gate_overview": (lambda gate: plots.gate_overview({"a": gate}), bounded),
    "half_life": (lambda gate: plots.half_life(np.log(gate)), bounded),
    "head_grid": (lambda gate: plots.head_grid({(0, 0): gate, (1, 0): bounded()}), bounded),
    "head_grid-lines": (lambda gate: plots.head_grid({(0, 0): gate[:, 0], (1, 0): bounded()[:, 0]}), bounded),
    "retention": (lambda gate: plots.retention(np.log(gate)), bounded),
    "memory_reach": (lambda gate: plots.memory_reach(np.log(gate)), bounded),
    "saturation": (lambda gate: plots.saturation(gate), bounded),
    "state_health": (lambda gate: plots.state_health(gate, bounded(), -bounded(), bounded()), bounded),
    "write_lanes": (lambda gate: plots.write_lanes(gate, bounded(), bounded()), bounded),
    "surprise_lanes": (lambda gate: plots.surprise_lanes(gate, forget=bounded(), step_size=bounded()), bounded),
    "pooling_bars": (lambda row: plots.pooling_bars(row), weights),
    "attention_map": (lambda full: plots.attention_map(full), triangle),
    "attention_row": (lambda gate: plots.attention_row(gate[:, 0]), bounded),
    "gates_through_training": (lambda gate: plots.gates_through_training(gate, np.arange(len(gate))), bounded),
    "difference": (lambda gate: plots.difference(gate, bounded() / 2), bounded),
    "matrix": (lambda full: plots.matrix(full), triangle),
}
WHOLE = {name: lambda draw=draw, of=of: draw(of()) for name, (draw, of) in PICTURES.items()}
WHOLE["coverage"] = lambda: plots.coverage({"a": triangle(), "b": triangle()})


@pytest.fixture(params=WHOLE)
def picture(request):
    return WHOLE[request.param]()


def named_colours(node, key=""):
    """Every colour in a figure that is set by name."""
    if isinstance(node, dict):
        return set().union(*(named_colours(value, name) for name, value in node.items() if name != "colorscale"))
    if key not in ("color", "fillcolor") or node is None:
        return set()
    return set(node) if isinstance(node, list | tuple) else {node}


def stored(scale):
    """A colour scale as plotly stores it."""
    return go.Figure(layout={"coloraxis": {"colorscale": scale}}).layout.coloraxis.colorscale


def test_colours_are_the_tested_ones(picture):
    allowed = set(PALETTE) | {faded(colour, alpha) for colour in PALETTE for alpha in (0.18, 0.22, 0.35, 0.45, 0.6)}
    assert set().union(*(named_colours(trace.to_plotly_json()) for trace in picture.data)) <= allowed
    known = [stored(scale) for scale in (SEQUENTIAL, DIVERGING, DIVERGING_SIGNED)]
    used = [trace.colorscale for trace in picture.data if trace.type == "heatmap" and trace.coloraxis is None]
    if any(trace.type == "heatmap" and trace.coloraxis for trace in picture.data):
        used.append(picture.layout.coloraxis.colorscale)
    assert all(scale in known for scale in used)


def test_text_takes_its_colour_from_the_page(picture):
    assert picture.layout.template.layout.uirevision == MARK
    assert all(note.font.color is None for note in picture.layout.annotations)
    assert all(note.font.size is None or note.font.size >= 12 for note in picture.layout.annotations)
    assert all(shape.line.color is None for shape in picture.layout.shapes)
    assert picture.layout.paper_bgcolor is None


def test_the_words_stand_in_for_the_picture(picture):
    meta = picture.layout.meta
    assert meta["title"]
    assert len(meta["alt"]) > 60
    assert meta["alt"].endswith(".")
    assert "nan" not in (meta["alt"] + meta["title"] + meta["subtitle"]).split()
    assert isinstance(picture.layout.height, int)


@pytest.mark.parametrize("name", PICTURES)
def test_a_missing_value_is_counted(name):
    draw, of = PICTURES[name]
    fig = draw(padded()) if name == "pooling_bars" else draw(holed(of()))
    assert "1 missing" in fig.layout.meta["alt"]
    assert "1 missing" in fig.layout.meta["subtitle"]
    whole = draw(of())
    assert "missing" not in whole.layout.meta["alt"] + whole.layout.meta["subtitle"]


@pytest.mark.parametrize("name", sorted(PICTURES.keys() - {"pooling_bars"}))
def test_nothing_but_missing_values_is_no_accident(name):
    draw, of = PICTURES[name]
    fig = draw(np.full_like(of(), np.nan))
    assert "missing" in fig.layout.meta["alt"]


@pytest.mark.parametrize(
    "draw",
    [
        plots.gate_heatmap,
        plots.saturation,
        plots.matrix,
        plots.attention_map,
        plots.coverage,
        plots.write_lanes,
        plots.surprise_lanes,
        plots.state_health,
        lambda one: plots.difference(one, one),
        lambda one: plots.retention(np.log(one)),
        lambda one: plots.gates_through_training(one, [10]),
        lambda one: plots.head_grid({(0, 0): one}),
        lambda one: plots.attention_row(one[0]),
        lambda one: plots.pooling_bars(one[0] / one[0]),
    ],
)
def test_one_value_can_be_drawn(draw):
    assert draw(np.array([[0.5]])).layout.meta["alt"]


MILLION = np.random.default_rng(1).uniform(0.05, 0.95, 1_000_000)
LONG, WIDE = MILLION[:, None], MILLION.reshape(10_000, 100)
LARGE = {
    "gate_heatmap-long": lambda: plots.gate_heatmap(LONG),
    "gate_heatmap-wide": lambda: plots.gate_heatmap(WIDE),
    "gate_heatmap-steps": lambda: plots.gate_heatmap(100 * WIDE, kind="steps"),
    "gate_heatmap-log": lambda: plots.gate_heatmap(100 * LONG, kind="log"),
    "gate_overview": lambda: plots.gate_overview({str(i): WIDE[:, 25 * i : 25 * i + 25] for i in range(4)}),
    "half_life": lambda: plots.half_life(-LONG),
    "head_grid": lambda: plots.head_grid({(i // 8, i % 8): MILLION[i * 15_625 : (i + 1) * 15_625] for i in range(64)}),
    "retention": lambda: plots.retention(-LONG / 100, at=[0, 1000], lag=96),
    "memory_reach": lambda: plots.memory_reach(-LONG / 100),
    "saturation": lambda: plots.saturation(WIDE),
    "state_health": lambda: plots.state_health(LONG, LONG, -LONG, LONG, bound=LONG / 2),
    "write_lanes": lambda: plots.write_lanes(LONG, LONG, LONG),
    "surprise_lanes": lambda: plots.surprise_lanes(LONG, LONG, forget=LONG, momentum=LONG, step_size=LONG),
    "pooling_bars": lambda: plots.pooling_bars(MILLION / MILLION.sum()),
    "attention_row": lambda: plots.attention_row(MILLION - 0.5),
    "coverage": lambda: plots.coverage(WIDE.T),
    "gates_through_training": lambda: plots.gates_through_training(WIDE.T, np.arange(100)),
    "difference": lambda: plots.difference(LONG, LONG / 2),
    "matrix": lambda: plots.matrix(MILLION[: 512 * 512].reshape(512, 512)),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_million_points_draw_within_a_second(name):
    spent = []
    for _ in range(3):
        start = time.process_time()
        written = LARGE[name]().to_json()
        spent.append(time.process_time() - start)
    print(f"{name}: {min(spent):.3f} s of one core, {len(written) / 1e3:,.0f} kB")
    assert min(spent) < 1
    assert len(written) < 4e6
    assert json.loads(written)["layout"]["meta"]["alt"]
