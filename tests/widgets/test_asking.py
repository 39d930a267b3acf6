"""What if, without a browser: edits of a slider, the model's answer, and what is refused."""

import math

import pytest
import torch
from torch import nn

from tests.widgets.scenes import forecaster
from workbench.trace.edits import force
from workbench.widgets.asking import Asking, change, edits_of, lines, reach
from workbench.widgets.scope import Scope

CELL = "stack.blocks.1.cell"
ASKED = {"ask": "what_if", "cell": CELL, "force": "forget", "value": 0.2}


@pytest.fixture(scope="module")
def scene():
    return forecaster()


def test_every_cell_says_what_can_be_forced_in_it_and_between_which_ends(scene):
    model, inputs, _ = scene
    options = Asking(model, inputs).options()
    assert list(options) == ["stack.blocks.0.cell", CELL]
    assert options[CELL]["force"]["forget"] == (0.0, 1.0, False)
    assert options[CELL]["stabilizer"] is True


def test_a_model_without_such_cells_is_refused():
    with pytest.raises(ValueError, match="Linear has no cell in which something can be forced; leave model= out"):
        Asking(nn.Linear(1, 1), torch.zeros(1, 1))


@pytest.mark.parametrize(("name", "low", "high", "ends"), [
    ("forget", 0.0, 1.0, (0.0, 1.0, False)),
    ("half_life", 0.0, math.inf, (0.1, 10_000.0, True)),
    ("log_input", -math.inf, math.inf, (-12.0, 12.0, False)),
    ("log_input", -5.0, 15.0, (-5.0, 12.0, False)),
    ("key", -math.inf, math.inf, None),
])  # fmt: skip
def test_a_slider_has_ends_even_where_the_quantity_has_none(name, low, high, ends):
    assert reach(name, low, high) == ends


def test_a_position_becomes_edits():
    found = edits_of({**ASKED, "head": 1, "mask": 0, "stabilizer": False})
    assert [str(edit) for edit in found] == [
        f"{CELL}.forget := 0.2 in head 1", f"{CELL} answers nothing in head 0", f"{CELL} runs without its stabiliser",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="nothing to change: force a quantity, mask a head"):
        edits_of({"cell": CELL})


def test_the_answer_is_the_model_s_own(scene):
    model, inputs, _ = scene
    result = Asking(model, inputs).run([force(f"{CELL}.forget", 0.2)])
    found = change(result, [force(f"{CELL}.forget", 0.2)], 0)
    moved = (result.output_after - result.output_before).abs().reshape(4, -1)
    assert found.said["largest"] == pytest.approx(float(moved.max())) != 0
    assert found.said["channel"] == int(moved.max(0).values.argmax())
    assert found.said["lost"] == 0


def test_outputs_that_are_no_numbers_are_counted(scene):
    model, inputs, _ = scene
    result = Asking(model, inputs).run([force(f"{CELL}.forget", 0.2)])
    broken = result._replace(output_after=result.output_after.clone().index_fill(1, torch.tensor([0]), math.nan))
    found = change(broken, [], 0).said
    assert found["lost"] == result.output_after[0, 0].numel()
    assert found["largest"] is not None
    nothing = change(result._replace(output_after=result.output_after * math.nan), [], 0).said
    assert (nothing["largest"], nothing["mean"]) == (None, None)


def test_lines_are_of_the_first_output_of_one_sequence():
    assert lines((torch.ones(2, 5, 3), None), 1).shape == (5, 3)
    assert lines(torch.ones(2, 5), 7).shape == (5, 1)


def test_a_changed_weight_changes_the_answer():
    model, inputs, trace = forecaster()
    scope = Scope(trace, model=model, inputs=inputs)
    before, lines_before = scope.answer(dict(ASKED))
    again, _ = scope.answer(dict(ASKED))
    assert again["largest"] == before["largest"] > 0
    with torch.no_grad():
        for weight in model.stack.blocks[0].cell.parameters():
            weight.mul_(1.5)
    after, lines_after = scope.answer(dict(ASKED))
    assert after["largest"] != before["largest"]
    assert lines_after != lines_before


def test_the_difference_can_be_looked_at_and_is_the_edit():
    model, inputs, trace = forecaster()
    scope = Scope(trace, model=model, inputs=inputs)
    said, _ = scope.answer(dict(ASKED))
    cell = scope.answers.cells.index(CELL)
    tile = {"ask": "tile", "cell": cell, "quantity": "forget", "batch": 0, "head": 0, "level": 0, "index": 0}
    changed, _ = scope.answer({**tile, "label": f"after{said['label']}"})
    assert (changed["low"], changed["high"]) == pytest.approx((0.2, 0.2), abs=1e-6)
    differs, _ = scope.answer({**tile, "label": f"difference{said['label']}"})
    recorded, _ = scope.answer({**tile, "label": "0"})
    assert differs["high"] == pytest.approx(0.2 - recorded["low"], abs=1e-6)


@pytest.mark.parametrize(("odd", "words"), [
    ({"force": "rain"}, "'rain' of .* cannot be forced; in a .* these can: .*forget"),
    ({"value": 1.5}, r"forget cannot be 1.5; it lies in 0 \.\.\. 1"),
    ({"value": math.nan}, "cannot be NaN"),
    ({"cell": "stack.blocks.7.cell"}, "the model has no cell 'stack.blocks.7.cell'"),
    ({"head": 9}, "forget cannot be set so: .*head"),
])  # fmt: skip
def test_an_edit_that_does_not_fit_says_why(scene, odd, words):
    model, inputs, trace = scene
    with pytest.raises(ValueError, match=words):
        Scope(trace, model=model, inputs=inputs).answer({**ASKED, **odd})
