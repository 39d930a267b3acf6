"""The scope without a browser: what it holds, what it sends, and what it refuses."""

import json
import time

import numpy as np
import pytest
import torch

from tests.widgets.scenes import forecaster, plain
from workbench import record
from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import XLSTMStackConfig
from workbench.trace.store import Trace
from workbench.widgets.scope import Scope


@pytest.fixture
def sent(monkeypatch):
    """What a scope sends to its view."""
    found = []
    monkeypatch.setattr(Scope, "send", lambda self, content, buffers=None: found.append((content, buffers)))
    return found


def test_its_state_is_small_and_holds_no_data():
    model, inputs, trace = forecaster()
    small = Scope(trace, model=model, inputs=inputs, title="small")
    large = Scope(plain(20_000, layers=3, units=32), series=np.zeros(20_000), title="large")
    sizes = [len(json.dumps(scope.get_state(), default=list)) for scope in (small, large)]
    print(f"state of the widget: {sizes[0] / 1000:.1f} kB, and {sizes[1] / 1000:.1f} kB for 7.7 million values")
    assert max(sizes) < 50_000
    assert len(json.dumps(large.meta)) < 5000


def test_a_notebook_with_twelve_layers_of_sixteen_heads_grows_by_less_than_50_kb():
    stack = XLSTMStackConfig(width=64, layers=12, heads=16, slstm_at=(1, 5))
    model = ForecasterConfig(inputs=1, horizon=4, stack=stack).build(0).eval()
    inputs = torch.zeros(1, 8, 1), torch.zeros(1, 4, 0)
    with torch.no_grad(), record(model) as trace:
        model(*inputs)
    scope = Scope(trace, model=model, inputs=inputs, title="every quantity of every cell")
    parts = len(json.dumps(scope.get_state(), default=list)), len(json.dumps(scope._repr_mimebundle_()[0]))
    print(f"12 layers of 16 heads: {parts[0] / 1000:.1f} kB of state, {parts[1] / 1000:.1f} kB of output")
    assert sum(parts) < 47_000  # and 3 kB around them


def test_it_opens_with_a_gate_and_says_what_the_trace_says():
    about = {"notes": ["untrained: the model has its fresh weights"], "cells": {"blocks.0.cell": {"kind": "MLSTM"}}}
    meta = Scope(plain(exactness={"blocks.0.cell": 3e-7}, about=about)).meta
    assert meta["opening"] == "forget"
    [label] = meta["labels"]
    assert label == {"label": "", "steps": 300, "error": pytest.approx(3e-7), "checked": True, "notes": about["notes"]}
    assert meta["cells"] == [{"path": "blocks.0.cell", "kind": "MLSTM"}, {"path": "blocks.1.cell", "kind": ""}]
    assert meta["quantities"]["forget"]["places"] == [[0, 2, 4], [1, 2, 4]]
    assert meta["quantities"]["write_strength"]["places"] == [[0, 2, 0], [1, 2, 0]]


def test_an_error_that_is_no_number_is_said_as_such():
    [label] = Scope(plain(exactness={"blocks.0.cell": float("nan")})).meta["labels"]
    assert label["error"] is None
    assert label["checked"]


def test_a_trace_of_another_model_is_marked():
    other = plain(about={"cells": {"blocks.0.cell": {"kind": "SLSTM"}}})
    _, label = Scope({"a": plain(), "b": other}).meta["labels"]
    assert label["notes"] == ["not the model of the first trace: blocks.0.cell is absent there and SLSTM here"]


def test_an_answer_goes_back_under_its_number_with_its_bytes(sent):
    ask = {"ask": "tile", "label": "0", "cell": 0, "quantity": "forget", "batch": 0, "head": 0, "level": 0, "index": 0}
    Scope(plain())._receive(None, {**ask, "number": "a-1"}, [])
    [(content, [codes])] = sent
    assert content["number"] == "a-1"
    assert content["said"]["columns"] == 300
    assert len(codes) == 300 * 4 * 2


def test_a_question_that_fails_is_answered_with_its_words(sent):
    scope = Scope(plain())
    scope._receive(None, {"ask": "what_if", "number": 1}, [])
    place = {"cell": 0, "quantity": "forget", "batch": 0, "head": 0, "level": 0, "index": 0}
    scope._receive(None, {"ask": "tile", "label": "9", **place, "number": 2}, [])
    assert [content for content, _ in sent] == [
        {"number": 1, "error": "what-if needs a model; make the scope with model= and inputs=."},
        {"number": 2, "error": "there is no '9' any more; ask again."},
    ]


def test_a_question_that_breaks_is_answered_and_raised(sent):
    with pytest.raises(TypeError):
        Scope(plain())._receive(None, {"ask": "tile", "number": 1}, [])
    assert sent[0][0]["number"] == 1
    assert "missing" in sent[0][0]["error"]


@pytest.mark.parametrize(("odd", "words"), [
    ({"series": np.zeros(299)}, "series has 299 steps, and the trace 300; pass the same stretch"),
    ({"series": np.zeros((1, 1, 300, 1))}, "it needs "),
    ({"tokens": ["a", "b"]}, "there are 2 tokens, and the trace has 300 steps"),
    ({"steps": np.arange(10)}, r"steps has shape \(10,\), and the trace has 300 steps"),
    ({"model": torch.nn.Linear(1, 1)}, "what-if needs both model= and inputs="),
])  # fmt: skip
def test_parts_that_do_not_fit_together_are_refused(odd, words):
    with pytest.raises(ValueError, match=words):
        Scope(plain(), **odd)


def test_no_trace_at_all_is_refused():
    with pytest.raises(ValueError, match="there is no trace in the mapping"):
        Scope({})


def test_the_folder_of_a_trace_is_as_good_as_the_trace_and_an_empty_one_is_refused(tmp_path):
    plain().save(tmp_path / "trace")
    (loaded,) = Scope(tmp_path / "trace").answers.traces.values()
    assert np.array_equal(loaded.read("blocks.0.cell.forget"), plain().read("blocks.0.cell.forget"))
    with pytest.raises(FileNotFoundError, match="holds no trace"):
        Scope(str(tmp_path))


def test_a_million_steps_on_disk_open_and_scroll_in_bounded_memory(tmp_path):
    import tracemalloc

    values = torch.rand(1, 1, 1_000_000, 8, generator=torch.Generator().manual_seed(0))
    trace = Trace.load(Trace({"blocks.0.cell.forget": values}).save(tmp_path / "trace"))
    tile = {"ask": "tile", "label": "0", "cell": 0, "quantity": "forget", "batch": 0, "head": 0}
    tracemalloc.start()
    began = time.monotonic()
    scope = Scope(trace)
    scope.answer({"ask": "overview", "label": "0", "quantity": "forget", "batch": 0})
    scope.answer({**tile, "level": 5, "index": 0})
    opened = time.monotonic() - began
    began = time.monotonic()
    for index in range(100, 120):
        scope.answer({**tile, "level": 0, "index": index})
    scrolled = (time.monotonic() - began) / 20
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    print(f"1,000,000 steps x 8: opened in {opened:.1f} s, {scrolled * 1000:.0f} ms a tile, at most {peak:.0f} MB")
    assert peak < 150  # whatever the length: pieces of 2**22 values, their mask and their sums
    assert scrolled < 0.2
