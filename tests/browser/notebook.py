"""What a person does with an open notebook: wait for the kernel, run all cells, save."""

import json
from pathlib import Path


def open_notebook(page, lab, path: Path) -> None:
    """Open a notebook and wait until its kernel is idle."""
    page.goto(lab.address(path))
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for(timeout=60_000)


def run_all(page) -> None:
    """Run every cell from the menu, wait for the last to get its number, and fail where one wrote an error."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    page.wait_for_function(
        """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]
            .every((prompt) => /\\[\\d+\\]/.test(prompt.textContent))"""
    )
    for kind in ("error", "stderr"):
        wrong = page.locator(f'.jp-OutputArea [data-mime-type="application/vnd.jupyter.{kind}"]')
        assert wrong.count() == 0, wrong.first.inner_text()


def save(page, path: Path, has: str) -> int:
    """Save, wait until the file holds a text, and return its size in bytes."""
    page.locator('[data-command="docmanager:save"]').first.click()
    for _ in range(100):
        if has in path.read_text():
            return path.stat().st_size
        page.wait_for_timeout(100)
    raise AssertionError(f"{path.name} was saved without {has!r}: {list(json.loads(path.read_text())['metadata'])}")


def colours(canvas) -> int:
    """How many different colours a canvas holds: one, where nothing was drawn."""
    return canvas.evaluate(
        """(canvas) => { const d = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return new Set(new Uint32Array(d.buffer)).size; }"""
    )
