"""The live view as a person sees it: a training that runs in another process is followed, probed and stopped."""

import re
import time

import pytest
from playwright.sync_api import expect

from tests.browser.notebook import colours, open_notebook, run_all, save
from tests.widgets import trainee
from workbench.batch.background import background
from workbench.training.control import ask

FOLLOW = "from workbench.widgets.live import Live\nlive = Live({!r})\nlive"


@pytest.fixture
def run(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    run = background(trainee, trainee.Params(pause=0.3), root=tmp_path)
    yield run
    if not run.status().finished:
        ask(run, "stop")


def steps_drawn(page):
    found = re.search(r"up to training step (\d+)", page.locator(".wb-live svg").get_attribute("aria-label"))
    return int(found[1]) if found else 0


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.1)


def test_a_training_is_followed_probed_stopped_and_found_again(page, lab, run, artefacts):
    path = lab.save("live.ipynb", FOLLOW.format(str(run.path)))
    empty = path.stat().st_size
    open_notebook(page, lab, path)
    run_all(page)
    live = page.locator(".wb-live")
    expect(live.get_by_role("status")).to_contain_text("running: xLSTM")
    until(lambda: steps_drawn(page) > 0)
    seen = steps_drawn(page)
    until(lambda: steps_drawn(page) > seen)  # the curve grows while nothing runs in the notebook
    until(lambda: colours(live.locator("canvas.picture")) > 20)

    live.get_by_role("button", name="Probe now").click()
    expect(live.locator(".asked")).to_contain_text("probe asked at")
    expect(live.locator(".asked")).to_contain_text(re.compile(r"done at step \d+"))
    page.screenshot(path=artefacts / "live-running.png")

    slider = live.get_by_role("slider", name="training step")
    before = live.locator("canvas.picture").get_attribute("aria-label")
    slider.focus()
    page.keyboard.press("d")
    page.keyboard.press("d")  # would delete the cell, were the slider not to keep its keys
    page.keyboard.press("Home")
    expect(live.locator(".where")).to_have_text("step 0")
    expect(live.locator("canvas.picture")).to_have_attribute("aria-label", re.compile("at training step 0:"))
    assert live.locator("canvas.picture").get_attribute("aria-label") != before

    live.get_by_role("button", name="Open scope").click()
    scope = live.locator(".wb-scope")
    expect(scope).to_have_attribute("aria-label", re.compile(r"step 0: [-−\d]"))
    page.screenshot(path=artefacts / "live-scope.png")
    live.get_by_role("button", name="Close scope").click()
    expect(scope).to_have_count(0)
    slider.focus()
    page.keyboard.press("Control+S")  # and JupyterLab has its own
    until(lambda: "widget-state" in path.read_text())

    page.close()  # the tab is gone; the training is not
    context = page.context
    again = context.new_page()
    open_notebook(again, lab, path)
    run_all(again)
    live = again.locator(".wb-live").last
    expect(live.get_by_role("status")).to_contain_text("running: xLSTM")
    expect(live.locator(".asked")).to_contain_text("probe asked at")
    until(lambda: steps_drawn(again) > seen)

    live.get_by_role("button", name="Stop").click()
    expect(live.locator(".asked")).to_contain_text(re.compile(r"stop asked at .*, done at step \d+"))
    expect(live.get_by_role("status")).to_contain_text("ok: xLSTM")
    expect(live.get_by_role("button", name="Stop")).to_be_disabled()
    again.screenshot(path=artefacts / "live-stopped.png")
    assert run.outputs()["ended"] == "stopped"

    grown = save(again, path, "widget-state") - empty
    print(f"the notebook file grew by {grown / 1000:.1f} kB")
    assert grown <= 50_000
