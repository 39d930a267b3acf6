"""The scope where nothing moves: small, with its numbers, described, and understood by the report."""

import json
import re

import numpy as np
import torch

from tests.widgets.scenes import gates, plain
from workbench.batch.outputs import Outputs
from workbench.batch.prose import Prose
from workbench.trace.store import Trace
from workbench.widgets.scope import Scope


def bundle(scope):
    return scope._repr_mimebundle_()[0]


def test_it_says_how_much_there_is_how_exact_it_is_and_what_warns():
    scope = Scope(
        plain(exactness={"blocks.0.cell": 3e-7}, about={"notes": ["untrained: fresh weights"]}), title="Two gates"
    )
    words = bundle(scope)["text/plain"]
    assert words.startswith("Two gates: 2 quantities of 2 cells over 300 steps, sequence 0. Drawn is forget: ")
    assert "They differ from the real forward pass by at most 3.0e-07. Untrained: fresh weights." in words


def test_its_numbers_are_those_of_the_trace():
    values = torch.linspace(0, 1, 33)[None, None, :32, None].expand(1, 1, 32, 3)
    words = bundle(Scope(Trace({"cell.forget": values})))["text/html"]
    assert "<td>cell</td><td>0</td><td>0</td><td>0.484</td><td>0.969</td>" in words


def test_half_lives_are_said_in_steps():
    words = bundle(Scope(Trace({"cell.half_life": torch.full((1, 1, 60, 2), 40.0)})))["text/plain"]
    assert "cell head 0: 40 to 40." in words


def test_a_large_trace_has_a_small_still_that_says_what_it_leaves_out():
    drawn = bundle(Scope(plain(3000, layers=12, heads=16)))
    size = len(json.dumps(drawn["text/html"]))
    print(f"the still of 12 layers of 16 heads: {size / 1000:.1f} kB")
    assert size <= 12_000
    assert "Shown are 4 of 12 cells and 8 of 16 heads." in drawn["text/plain"]
    assert drawn["text/html"].count("<path") == 4 * 8 + 1


def line(values):
    """The first line of a still as pieces of points [(x, y), ...], in pixels."""
    text = bundle(Scope(Trace({"cell.forget": values})))["text/html"]
    path = re.findall(r'<path d="([^"]+)"/>', text)[0]
    pieces = []
    for piece in path.split("M")[1:]:
        numbers = np.array([int(x) for x in re.findall(r"-?\d+", piece)]).reshape(-1, 2)
        pieces.append(numbers.cumsum(0)[1:])
    return pieces


def test_gaps_are_gaps_and_nothing_at_all_is_said_to_be_missing():
    values = gates(1, 1, 32, 2)
    values[:, :, 10:20] = float("nan")
    assert [len(piece) for piece in line(values)] == [10, 12]
    words = bundle(Scope(Trace({"cell.forget": values * float("nan")})))["text/plain"]
    assert "cell head 0: missing to missing." in words


def test_a_report_shows_the_drawing_its_description_and_its_numbers():
    output = {"output_type": "display_data", "data": bundle(Scope(plain(), title="Gates <b>open</b>")), "metadata": {}}
    shown = Outputs(Prose(), {}).render(output, 1)
    assert '<div class="rich"' in shown
    assert "<svg" in shown
    assert shown.count("<path") == 4 + 1
    [drawing] = re.findall("<svg[^>]*>", shown)
    assert 'role="img"' in drawing
    assert 'aria-label="Gates &lt;b&gt;open' in drawing
    assert "The drawing in numbers" in shown
    assert "<td>blocks.1.cell</td><td>1</td>" in shown
    assert "<b>open</b>" not in shown


def test_the_drawn_heights_follow_the_values():
    values = torch.zeros(1, 1, 64, 1)
    values[:, :, 32:] = 1.0
    [points] = line(values)
    assert (np.diff(points[:, 0]) == 3).all()
    assert set(points[:16, 1]) == {points[0, 1]}
    assert set(points[16:, 1]) == {points[0, 1] - 40}
