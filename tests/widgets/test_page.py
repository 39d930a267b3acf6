"""The scope as one file: self-contained, within its budget, and with the numbers of the trace."""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from tests.widgets.scenes import forecaster, plain
from workbench.widgets.page import as_script, script, split, style
from workbench.widgets.scope import Scope

FORGET = "stack.blocks.1.cell.forget"


def part(text, name):
    """What a page holds in one of its data blocks."""
    return json.loads(re.search(f'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)[1])


def unpack(blob):
    halves = np.frombuffer(zlib.decompress(base64.b64decode(blob)), np.uint8)
    return np.stack(halves.reshape(2, -1), 1).reshape(-1).view("<u2")


def test_it_is_one_file_that_asks_for_nothing(tmp_path):
    path = Scope(plain(), title="Gates").export(tmp_path / "deep" / "scope.html")
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    assert "<title>Gates</title>" in text
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|href)=|@import|url\(", text.split("<script")[0])
    assert not re.search(r"\bfetch\(['\"]|XMLHttpRequest|\beval\(|new Function|import\(", script())
    assert "default-src 'none'" in text


def test_it_holds_the_trace_s_numbers(tmp_path):
    trace = plain()
    answers = part(Scope(trace).export(tmp_path / "x.html").read_text(), "answers")
    said, [blob] = answers["tile|0|1|forget|0|1|0|0"]
    values = said["low"] + unpack(blob).reshape(4, 300) / 65534 * (said["high"] - said["low"])
    exact = trace.read("blocks.1.cell.forget")[0, 1].T
    np.testing.assert_allclose(values, exact, atol=(said["high"] - said["low"]) / 65534)


def test_the_same_scope_gives_the_same_page(tmp_path):
    one, two = (Scope(plain()).export(tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert one == two


@pytest.mark.parametrize(("megabytes", "finest"), [(20.0, 0), (0.4, 2)])
def test_it_stays_within_its_budget_and_says_what_it_pools(tmp_path, megabytes, finest):
    path = Scope(plain(5000, layers=2, heads=2)).export(tmp_path / "x.html", megabytes=megabytes)
    about = part(path.read_text(), "meta")["page"]
    assert path.stat().st_size <= megabytes * 1e6 + 60_000  # and the view itself
    assert about["finest"]["0"] == finest
    assert about["note"] == (f"columns pool {4**finest} steps or more, to stay below 0.4 MB" if finest else "")


def test_a_budget_that_fits_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"megabytes=0\.01 is not enough; allow more, or choose fewer with names="):
        Scope(plain(5000)).export(tmp_path / "x.html", megabytes=0.01)
    assert not (tmp_path / "x.html").exists()


def test_names_choose_what_it_holds(tmp_path):
    text = Scope(plain()).export(tmp_path / "x.html", names=["blocks.1.cell.forget"]).read_text()
    assert {name: about["places"] for name, about in part(text, "meta")["quantities"].items()} == {
        "forget": [[1, 2, 4]]
    }
    assert not [key for key in part(text, "answers") if key.startswith("tile") and "|1|forget|" not in key]
    with pytest.raises(ValueError, match=r"no quantity has a name like rain; there are .*forget"):
        Scope(plain()).export(tmp_path / "x.html", names=["rain"])


def test_what_if_is_computed_beforehand_for_the_values_given(tmp_path):
    model, inputs, trace = forecaster()
    scope = Scope(trace, model=model, inputs=inputs)
    text = scope.export(tmp_path / "x.html", names=["*.forget"], what_if={FORGET: [0.1, 0.9]}).read_text()
    assert part(text, "meta")["page"]["what_if"][FORGET]["values"] == [0.1, 0.9]
    live, _ = scope.answer({"ask": "what_if", "cell": FORGET.removesuffix(".forget"), "force": "forget", "value": 0.9})
    said, _ = part(text, "answers")[f"what_if|{FORGET}|0|1"]
    assert said["largest"] == live["largest"]
    assert said["words"] == [f"{FORGET} := 0.9"]


def test_what_if_of_an_exported_page_follows_the_weights(tmp_path):
    model, inputs, trace = forecaster()
    scope = Scope(trace, model=model, inputs=inputs)

    def tile():
        text = scope.export(tmp_path / "x.html", names=["*.forget"], what_if={FORGET: [0.5]}).read_text()
        [label] = part(text, "meta")["page"]["what_if"][FORGET]["labels"]
        return part(text, "answers")[f"tile|{label}|{scope.answers.cells.index(FORGET[:-7])}|forget|0|0|0|0"]

    before = tile()
    for weight in model.stack.blocks[1].cell.parameters():
        weight.data.mul_(1.5)
    assert tile() != before


def test_what_if_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="what_if needs a model; make the scope with model= and inputs="):
        Scope(plain()).export(tmp_path / "x.html", what_if={"blocks.0.cell.forget": [0.5]})


def test_the_view_is_small_enough_for_a_saved_notebook():
    packed, plain_size = len(Scope._esm), len(script()) + len(style())
    print(f"the view: {plain_size / 1000:.1f} kB, {packed / 1000:.1f} kB packed")
    assert packed < 27_000


def test_words_cannot_end_the_block_that_holds_them(tmp_path):
    text = (
        Scope(plain(), title="</script><script>alert(1)</script>", tokens=["</script>"] * 300)
        .export(tmp_path / "x.html")
        .read_text()
    )
    assert text.count("<script") == 3
    assert "alert(1)</script>" not in text
    assert part(text, "meta")["title"] == "</script><script>alert(1)</script>"
    assert as_script({"x": float("nan")}) == '{"x":null}'


def test_smooth_numbers_are_stored_high_bytes_apart():
    assert split(b"\x01\xaa\x02\xbb") == b"\x01\x02\xaa\xbb"
