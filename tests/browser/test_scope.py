"""The scope in a real JupyterLab: it draws, keys and sliders work, it answers within 60 ms, and stays small."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.notebook import colours, open_notebook, run_all, save

MODEL = """import torch
from workbench import record
from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import XLSTMStackConfig
from workbench.widgets.scope import Scope
stack = XLSTMStackConfig(width=32, layers=3, heads=4, slstm_at=(0,))
model = ForecasterConfig(inputs=1, horizon=4, stack=stack).build(0).eval()
x = torch.sin(torch.arange(300.0) / 9)[None, :, None].repeat(2, 1, 1)
inputs = x, torch.zeros(2, 4, 0)
with torch.no_grad(), record(model) as trace:
    model(*inputs)"""
SHOW = """Scope(trace, series=x, model=model, inputs=inputs, title="An untrained xLSTM on a sine")"""
LARGE = """import torch
from workbench.trace.store import Trace
from workbench.widgets.scope import Scope
g = torch.Generator().manual_seed(0)
def gate(): return torch.sigmoid(torch.randn(1, 1, 10_000, 256, generator=g).cumsum(2) / 20)
trace = Trace({f"blocks.{k}.cell.{name}": gate() for k in range(3) for name in ("forget", "input")})
Scope(trace, series=torch.sin(torch.arange(10_000) / 99).numpy(), title="10,000 steps of 256 units")"""


def scope_of(page, lab, name, *cells):
    """Run the cells and return the scope that they show, drawn."""
    path = lab.save(name, *cells)
    empty = path.stat().st_size
    open_notebook(page, lab, path)
    run_all(page)
    scope = page.locator(".wb-scope")
    expect(scope).to_have_attribute("aria-label", re.compile(r"step 0: [-−\d]"))
    assert colours(scope.locator(".stage canvas").first) > 50
    assert colours(scope.locator(".overview canvas")) > 50
    return scope, path, empty


def says(scope, pattern):
    """Wait until the text that stands in for the picture matches."""
    expect(scope).to_have_attribute("aria-label", re.compile(pattern))


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


@pytest.fixture
def moves(page):
    """How long moves took, from the event to the drawn frame, since the last call, in ms."""

    def read():
        times = page.evaluate(
            """() => { const found = performance.getEntriesByName("scope:move").map((entry) => entry.duration);
                performance.clearMeasures("scope:move"); return found; }"""
        )
        return sorted(times)

    return read


def test_it_draws_and_obeys_keys_and_mouse(page, lab, artefacts):
    scope, path, empty = scope_of(page, lab, "scope.ipynb", MODEL, SHOW)
    scope.focus()
    says(scope, r"blocks\.0\.cell · head 0 · forget, unit 0, step 0:")
    page.screenshot(path=artefacts / "scope.png")
    press(page, "ArrowRight", "ArrowRight", "ArrowDown")
    says(scope, r"unit 1, step 2:")
    press(page, "End")
    says(scope, r"step 299:")
    press(page, "]")
    says(scope, r"blocks\.1\.cell")
    press(page, "[", ".")
    says(scope, r"blocks\.0\.cell · head 1")
    press(page, "Home", "+", "+")
    says(scope, r"Shown are 0 to 74 of 300 steps")
    press(page, "0")
    says(scope, r"Shown are all 300 steps")
    stage = scope.locator(".stage").bounding_box()
    page.mouse.move(stage["x"] + 300, stage["y"] + 60)
    page.mouse.down()
    page.mouse.move(stage["x"] + 500, stage["y"] + 60, steps=4)
    page.mouse.up()
    says(scope, r"Shown are \d+ to \d+ of 300 steps")
    page.screenshot(path=artefacts / "scope-zoomed.png")
    scope.get_by_label("quantity", exact=True).select_option("half_life")
    says(scope, r"half_life")
    scope.focus()
    press(page, "?")
    expect(scope.get_by_role("dialog", name="keys")).to_be_visible()
    press(page, "Escape")
    grown = save(page, path, "widget-state") - empty
    print(f"the notebook file grew by {grown / 1000:.1f} kB")
    assert grown <= 50_000


def test_its_slider_runs_the_model_again_and_a_changed_weight_changes_the_answer(page, lab, artefacts):
    scope, _, _ = scope_of(page, lab, "what_if.ipynb", MODEL, SHOW)
    scope.locator("summary", has_text="What if?").click()
    slider = scope.get_by_label("value to force")

    def answer(key):
        slider.focus()
        before = scope.locator(".said").inner_text()
        press(page, key)
        expect(scope.locator(".said")).not_to_have_text(before)
        expect(scope.locator(".said")).to_contain_text("the output moves by up to")
        return scope.locator(".said").inner_text()

    low, high = answer("Home"), answer("End")
    assert low != high
    page.screenshot(path=artefacts / "scope-what-if.png", full_page=True)
    assert answer("Home") == low
    change = "with torch.no_grad():\n    model.project.weight.mul_(3)"
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(0).click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(change)
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "() => document.querySelector('.jp-CodeCell .jp-InputArea-prompt').textContent.includes('3')"
    )
    answer("End")
    assert answer("Home") != low


def test_it_is_dark_in_a_dark_lab(page, lab, artefacts):
    theme = lab.folder.parent / "settings" / "@jupyterlab" / "apputils-extension" / "themes.jupyterlab-settings"
    theme.parent.mkdir(parents=True, exist_ok=True)
    theme.write_text('{"theme": "JupyterLab Dark"}')
    try:
        scope, _, _ = scope_of(page, lab, "dark.ipynb", MODEL, SHOW)
        page.wait_for_selector('body[data-jp-theme-light="false"]', state="attached")
        page.wait_for_timeout(300)
        shades = scope.locator(".overview canvas").evaluate(
            """(canvas) => {
                const image = canvas.getContext("2d").getImageData(0, 0, canvas.width * 0.08, canvas.height);
                return Array.from({ length: image.width * image.height }, (_, k) => image.data.slice(4 * k, 4 * k + 4))
                    .filter((pixel) => pixel[3] > 200).map(([r, g, b]) => (r + g + b) / 3); }"""
        )  # the names of the layers, and nothing else
        page.screenshot(path=artefacts / "scope-dark.png")
        assert len(shades) > 50
        assert min(shades) > 130
        red, green, blue = map(
            int, re.findall(r"\d+", scope.evaluate("(root) => getComputedStyle(root).backgroundColor"))[:3]
        )
        assert max(red, green, blue) < 60
    finally:
        theme.unlink()


def test_a_move_takes_no_more_than_60_ms(page, lab, artefacts, moves):
    scope, path, empty = scope_of(page, lab, "large.ipynb", LARGE)
    page.screenshot(path=artefacts / "scope-large.png")
    scope.focus()
    found = {}
    for name, keys in {
        "cursor": ["ArrowRight"] * 20 + ["ArrowLeft"] * 10,
        "unit": ["ArrowDown"] * 20,
        "layer": ["]", "[", "]", "]", "[", "["],
        "zoom": ["+", "-"] * 6,
    }.items():
        moves()
        for key in keys:
            page.keyboard.press(key)
            page.wait_for_timeout(40)
        page.wait_for_timeout(400)
        found[name] = moves()
    for name, times in found.items():
        print(f"{name}: {len(times)} moves, median {times[len(times) // 2]:.0f} ms, slowest {times[-1]:.0f} ms")
    assert len(found["cursor"]) >= 25
    assert {name: times[len(times) // 2] for name, times in found.items() if times[len(times) // 2] > 60} == {}
    assert save(page, path, "widget-state") - empty <= 50_000
