"""An exported scope in a real browser, from a file: it draws, keys work, it answers within 60 ms, and asks nobody."""

import re

import pytest
import torch
from playwright.sync_api import expect

from tests.browser.notebook import colours
from tests.widgets.scenes import forecaster, gates, plain
from workbench.trace.store import Trace
from workbench.widgets.scope import Scope

FORGET = "stack.blocks.1.cell.forget"
MOVES = {
    "cursor": ["ArrowRight"] * 60 + ["Shift+ArrowRight"] * 8,
    "unit": ["ArrowDown"] * 40,
    "layer": ["]", "]", "[", "["] * 5,
    "zoom": ["+", "+", "-", "-"] * 5,
    "pan": ["Home", "+", "+", "End", "Home", "End", "0"] * 3,
}


def opened(page, path):
    """The scope of a file, drawn and in focus."""
    page.goto(path.as_uri())
    scope = page.locator(".wb-scope")
    expect(scope).to_have_attribute("aria-label", re.compile(r"step 0: [-−\d]"))
    scope.focus()
    return scope


def says(scope, pattern):
    expect(scope).to_have_attribute("aria-label", re.compile(pattern))


def ink(scope, name):
    return scope.evaluate("(root, name) => getComputedStyle(root).getPropertyValue(name).trim()", name)


def pixel(canvas, x, y):
    """One pixel of a canvas, in CSS pixels."""
    return canvas.evaluate(
        """(canvas, [x, y]) => { const d = devicePixelRatio;
            return [...canvas.getContext("2d").getImageData(Math.round(x * d), Math.round(y * d), 1, 1).data]; }""",
        [x, y],
    )


def download(page, scope, name):
    with page.expect_download() as taking:
        scope.get_by_role("button", name=name, exact=True).click()
    return taking.value


def test_it_draws_from_a_file_and_obeys_keys(page, tmp_path, artefacts):
    steps = plain(400, layers=3, heads=2, units=8)
    path = Scope(steps, series=torch.sin(torch.arange(400) / 9).numpy(), title="Gates").export(tmp_path / "scope.html")
    scope = opened(page, path)
    assert colours(scope.locator(".overview canvas")) > 50
    assert colours(scope.locator(".stage canvas").first) > 50
    for keys, said in {
        "ArrowRight ArrowRight ArrowRight": "unit 0, step 3:",
        "Shift+ArrowRight": "step 43:",
        "ArrowDown ArrowDown ArrowUp": "unit 1, step 43:",
        "] ]": r"blocks\.2\.cell · head 0",
        ".": r"blocks\.2\.cell · head 1",
        "[ ,": r"blocks\.1\.cell · head 0",
        "End": "step 399:",
        "Home + +": r"Shown are 0 to 99 of 400 steps",
        "0": "Shown are all 400 steps",
    }.items():
        for key in keys.split():
            page.keyboard.press(key)
        says(scope, said)
    exact = float(steps.read("blocks.1.cell.forget")[0, 0, 0, 1])
    said = float(re.search(r"step 0: (\d\.\d+)", scope.get_attribute("aria-label"))[1])
    assert said == pytest.approx(exact, abs=6e-4)  # three digits
    page.screenshot(path=artefacts / "page.png")


def test_its_colours_are_the_page_s_and_follow_the_scheme(page, tmp_path, artefacts):
    scope = opened(page, Scope(plain(300, layers=2)).export(tmp_path / "scope.html"))
    seen = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.wait_for_timeout(200)
        base = scope.locator(".stage canvas").first
        box = base.evaluate("(canvas) => [canvas.clientWidth, canvas.clientHeight]")
        row = [pixel(base, box[0] - 75, y) for y in range(box[1] - 140, box[1] - 30)]
        seen[scheme] = {tuple(colour[:3]) for colour in row if colour[3] == 255}
        line = ink(scope, "--line")
        assert tuple(int(line[k : k + 2], 16) for k in (1, 3, 5)) in seen[scheme], f"no hairline has {line}"
        page.screenshot(path=artefacts / f"page-{scheme}.png")
    assert (0, 0, 0) not in seen["light"]
    assert ink(scope, "--page") == "#111418"


def test_a_quantity_of_heads_and_gaps_are_drawn(page, tmp_path):
    values = gates(1, 2, 300, 4)
    values[0, 0, 50:60] = float("nan")
    scope = opened(page, Scope(Trace({"cell.forget": values})).export(tmp_path / "gaps.html"))
    expect(scope.locator(".facts").first).to_contain_text("40 missing values, hatched")
    scope = opened(page, Scope(plain()).export(tmp_path / "heads.html"))
    scope.get_by_label("quantity", exact=True).select_option("write_strength")
    says(scope, r"write_strength, head 0, step 0:")


def test_a_chosen_layer_is_scrolled_to(page, tmp_path):
    scope = opened(page, Scope(plain(60, layers=24, heads=2)).export(tmp_path / "scope.html"))
    strip = scope.locator(".overview")
    for _ in range(20):
        page.keyboard.press("]")
    says(scope, r"blocks\.20\.cell")
    page.wait_for_function("(strip) => strip.scrollTop > 50", arg=strip.element_handle())


def test_tokens_are_linked_to_the_cursor(page, tmp_path):
    tokens = [f"w{k} " for k in range(300)]
    scope = opened(page, Scope(plain(), tokens=tokens).export(tmp_path / "scope.html"))
    scope.locator(".tokens span").nth(7).click()
    says(scope, "step 7:")
    scope.focus()
    page.keyboard.press("End")
    expect(scope.locator(".tokens span[aria-current]")).to_have_text("w299 ")


def test_labels_are_walked_through_by_a_slider(page, tmp_path):
    traces = {step: Trace({"cell.forget": torch.full((1, 1, 50, 2), step / 100)}) for step in (10, 20, 40)}
    scope = opened(page, Scope(traces).export(tmp_path / "scope.html"))
    says(scope, "10: .*step 0: 0.1")
    scope.get_by_label("training step or run").focus()
    page.keyboard.press("End")
    says(scope, "40: .*step 0: 0.4")


def test_what_if_was_computed_beforehand_and_says_so(page, tmp_path, artefacts):
    model, inputs, trace = forecaster()
    scope = Scope(trace, series=inputs[0], model=model, inputs=inputs)
    path = scope.export(tmp_path / "scope.html", names=["*.forget"], what_if={FORGET: [0.1, 0.5, 0.9]})
    shown = opened(page, path)
    shown.locator("summary", has_text="What if?").click()
    expect(shown.locator(".said")).to_contain_text(f"nothing was computed beforehand; there is {FORGET}")
    shown.focus()
    page.keyboard.press("]")
    expect(shown.locator(".said")).to_have_text("Computed beforehand for 3 values.")
    answers = []
    for key, value in {"End": 0.9, "Home": 0.1}.items():
        shown.get_by_label("value to force").focus()
        page.keyboard.press(key)
        expect(shown.locator(".said")).to_contain_text(f"{FORGET} := {value}: the output moves by up to")
        expect(shown.locator(".said")).to_contain_text("(computed beforehand for 3 values)")
        answers.append(shown.locator(".said").inner_text())
    assert len(set(answers)) == 2
    says(shown, "forget, difference")
    page.screenshot(path=artefacts / "page-what-if.png", full_page=True)


def test_its_table_holds_the_values_in_view(page, tmp_path):
    trace = plain(200)
    scope = opened(page, Scope(trace).export(tmp_path / "scope.html"))
    how, head, *rows = download(page, scope, "CSV").path().read_text().splitlines()
    assert how.startswith("# blocks.0.cell · head 0 · forget; rounded to 16 bits")
    assert len(rows) == 200
    assert head == "step,unit 0,unit 1,unit 2,unit 3"
    found = torch.tensor([[float(x) for x in row.split(",")[1:]] for row in rows])
    exact = torch.from_numpy(trace.read("blocks.0.cell.forget")[0, 0])
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)


def test_its_picture_is_a_png(page, tmp_path):
    scope = opened(page, Scope(plain(200), title="Gates").export(tmp_path / "scope.html"))
    taken = download(page, scope, "PNG").path().read_bytes()
    assert taken[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(taken) > 10_000


def test_a_move_takes_no_more_than_60_ms(page, tmp_path):
    trace = Trace({f"blocks.{k}.cell.forget": gates(1, 1, 10_000, 256, seed=k) for k in range(3)})
    path = Scope(trace).export(tmp_path / "large.html", megabytes=40.0)
    scope = opened(page, path)
    print(f"\n10,000 steps x 256 units x 3 layers: a page of {path.stat().st_size / 1e6:.1f} MB")
    medians = {}
    for name, keys in MOVES.items():
        page.evaluate("performance.clearMeasures('scope:move')")
        for key in keys:
            page.keyboard.press(key)
            page.wait_for_timeout(30)
        page.wait_for_timeout(300)
        times = sorted(page.evaluate("performance.getEntriesByName('scope:move').map((entry) => entry.duration)"))
        medians[name], late = times[len(times) // 2], times[int(len(times) * 0.95)]
        print(
            f"{name}: {len(times)} moves, median {medians[name]:.0f} ms, 95th {late:.0f} ms, slowest {times[-1]:.0f} ms"
        )
        assert len(times) >= 0.8 * len(keys)
    says(scope, "step 9999:")
    assert {name: ms for name, ms in medians.items() if ms > 60} == {}
