"""Pictures painted beside the figures: at once, whole, and with nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from workbench import plots
from workbench.batch import pictures
from workbench.batch.pictures import Painter, on_paper, unpainted

WAIT_SECONDS = 90


@pytest.fixture
def chromium():
    """The tests of painting need a browser; without one they cannot run, which on CI is a failure."""
    if not any(map(shutil.which, ("chromium", "google-chrome", "chromium-headless-shell"))):
        pytest.skip("needs chromium")
    if not Path("/proc/self/stat").exists():
        pytest.skip("only where /proc tells of processes")


def put(folder, name, fig):
    """Save a figure as a run does: whole, or not at all."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    draft = folder / name / ".figure.json.tmp"
    draft.write_text(fig if isinstance(fig, str) else fig.to_json())
    os.replace(draft, folder / name / "figure.json")
    return folder / name / "figure.png"


def gates(value=0.5):
    return plots.gate_heatmap(np.full((50, 4), value), title="t")


def until(true, what):
    end = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < end, f"waited {WAIT_SECONDS} s for {what}"
        time.sleep(0.05)


def processes(mark):
    """Living processes whose command line holds `mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if mark in (path / "cmdline").read_text() and state not in "ZX":
                found.append(int(path.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found


def size(path):
    """Width and height of a PNG in pixels."""
    head = path.read_bytes()
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    assert head.rstrip().endswith(b"IEND\xaeB`\x82")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


@pytest.mark.usefixtures("chromium")
def test_figures_are_painted_while_the_block_runs_and_after(tmp_path):
    with Painter(tmp_path) as painter:
        first = put(tmp_path, "first", gates())
        until(first.exists, "the first picture")
        scratch = painter._scratch
        assert processes(scratch)
        last = put(tmp_path, "last", gates())
    assert painter.problem is None
    assert size(first) == size(last) == (2000, 2 * gates().layout.height)
    assert processes(scratch) == []
    assert not Path(scratch).exists()
    assert not list(tmp_path.glob("*/.*"))


@pytest.mark.usefixtures("chromium")
def test_a_figure_drawn_again_is_painted_again(tmp_path):
    with Painter(tmp_path):
        path = put(tmp_path, "gates", gates(0.0))
        until(path.exists, "the first picture")
        before = path.read_bytes()
        put(tmp_path, "gates", gates(1.0))
    assert path.read_bytes() != before


@pytest.mark.usefixtures("chromium")
def test_one_bad_figure_does_not_stop_the_others(tmp_path):
    with Painter(tmp_path) as painter:
        put(tmp_path, "cut", '{"data": [')
        put(tmp_path, "odd", json.dumps({"data": [{"type": "no such trace"}], "layout": {"height": -5}}))
        good = put(tmp_path, "good", gates())
    assert size(good)
    assert not (tmp_path / "cut" / "figure.png").exists()
    assert "has no picture" in painter.problem


@pytest.mark.usefixtures("chromium")
def test_a_browser_that_dies_is_started_again(tmp_path):
    with Painter(tmp_path) as painter:
        until(put(tmp_path, "first", gates()).exists, "the first picture")
        for pid in processes(f"--user-data-dir={painter._scratch}"):
            os.kill(pid, signal.SIGKILL)
        second = put(tmp_path, "second", gates())
    assert size(second)
    assert painter.problem is None


def test_without_a_browser_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with Painter(tmp_path / "figures") as painter:
        put(tmp_path / "figures", "gates", gates())
    assert "no browser was found. Install chromium" in painter.problem


def test_without_figures_there_is_no_browser_and_no_problem(tmp_path):
    with Painter(tmp_path / "never made") as painter:
        pass
    assert painter.problem is None


def test_a_painter_that_cannot_start_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures.sys, "executable", str(tmp_path / "no-python"))
    with Painter(tmp_path) as painter:
        pass
    assert "the painter did not start" in painter.problem


def test_the_limit_holds_and_says_what_is_missing(tmp_path):
    painter = Painter(tmp_path, limit_seconds=0.01)
    with painter:
        put(tmp_path, "gates", gates())
    assert "1 pictures were not painted within 0.01 s" in painter.problem
    assert processes(painter._scratch) == []


def test_errors_of_the_block_come_through(tmp_path):
    with pytest.raises(KeyError, match="mine"), Painter(tmp_path):
        raise KeyError("mine")


@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_browser_outlives_the_process(tmp_path, number):
    script = (
        "import sys, time\nfrom workbench.batch.pictures import Painter\n"
        "with Painter(sys.argv[1]) as painter:\n    print(painter._scratch, flush=True)\n    time.sleep(300)\n"
    )
    path = put(tmp_path, "gates", gates())
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    scratch = parent.stdout.readline().strip()
    until(path.exists, "the picture")
    assert processes(scratch)
    parent.send_signal(number)
    parent.wait(30)
    parent.stdout.close()
    until(lambda: not processes(scratch), "the browser to end")


@pytest.mark.usefixtures("chromium")
def test_no_browser_outlives_a_painter_that_is_killed(tmp_path):
    with Painter(tmp_path) as painter:
        until(put(tmp_path, "gates", gates()).exists, "the picture")
        painter._child.kill()
        until(lambda: not processes(painter._scratch), "the browser to end")
    assert "the painter ended" in painter.problem


def test_pictures_are_printed_on_white():
    paper = on_paper(json.loads(gates().to_json()))["layout"]
    assert paper["paper_bgcolor"] == "white"
    assert paper["template"]["layout"]["font"]["color"] == "#2A2D31"
    other = on_paper({"data": [], "layout": {"template": {"layout": {"font": {"color": "red"}}}}})["layout"]
    assert other["template"]["layout"]["font"]["color"] == "red"


def test_a_picture_older_than_its_figure_is_to_be_painted(tmp_path):
    picture = put(tmp_path, "gates", gates())
    assert len(unpainted(tmp_path)) == 1
    picture.write_bytes(b"")
    assert unpainted(tmp_path) == []
    os.utime(picture, (0, 0))
    assert len(unpainted(tmp_path)) == 1
