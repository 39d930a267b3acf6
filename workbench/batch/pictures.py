"""Pictures of a run's figures: a PNG beside each `figure.json`, painted while the run goes on.

A child process holds the browser. It ends with the parent's word on its standard input, and also when
that pipe breaks; its browser ends when the child's own pipe to it breaks. So no browser outlives a run,
whichever of the three is killed.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

WIDTH, HEIGHT, SCALE = 1000, 500, 2
GLANCE_SECONDS = 0.25  # from one look at the folder to the next
FIGURE_SECONDS = 40
STARTS = 3  # a browser that dies is started again this often in all
HURRY_SECONDS = 10  # what is left for painting after Ctrl-C
BROWSERS = ("chromium-headless-shell", "chrome-headless-shell", "headless_shell")  # those that kaleido overlooks
FINISH = "finish"


class Painter:
    """Paints `<figures>/*/figure.json` to `figure.png` beside it while the block runs, and what is left after it.

    It raises nothing: where there is no browser, or painting fails, `problem` says why once the block is left.
    """

    def __init__(self, figures: Path | str, *, limit_seconds: float = 60):
        self.figures = Path(figures)
        self.limit_seconds = limit_seconds
        self.problem: str | None = None
        self._child: subprocess.Popen | None = None
        self._scratch = ""

    def __enter__(self) -> "Painter":
        try:
            self._scratch = tempfile.mkdtemp(prefix="wb-paint-")
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self.figures.resolve()), self._scratch],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent, which then says what to do
                text=True,
            )
        except OSError as error:
            self.problem = f"No pictures: the painter did not start ({error})."
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        limit = self.limit_seconds if kind is None else min(self.limit_seconds, HURRY_SECONDS)
        try:
            if self._child is not None:
                self.problem = self._ask(self._child, limit)
        finally:
            if self._child is not None:
                end(self._child)
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _ask(self, child: subprocess.Popen, limit: float) -> str | None:
        try:
            said, _ = child.communicate(f"{FINISH}\n", timeout=limit)
        except subprocess.TimeoutExpired:
            return f"{len(unpainted(self.figures))} pictures were not painted within {limit:g} s."
        except OSError as error:  # the child is gone, and its pipe with it
            return f"No pictures: the painter ended early ({error})."
        if child.returncode != 0:
            return f"No pictures: the painter ended with status {child.returncode}."
        return said.strip() or None


def end(child: subprocess.Popen) -> None:
    """End the child and wait until it is gone."""
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()


def unpainted(figures: Path) -> list[Path]:
    """The `figure.json` files without a picture that is at least as new, oldest first."""
    found = []
    for path in figures.glob("*/figure.json"):
        with contextlib.suppress(FileNotFoundError):  # rewritten just now
            drawn, picture = path.stat().st_mtime_ns, path.with_name("figure.png")
            if not picture.exists() or picture.stat().st_mtime_ns < drawn:
                found.append((drawn, path))
    return [path for _, path in sorted(found)]


def on_paper(figure: dict) -> dict:
    """The figure on white: our own template in its printed colours, another's left as it is."""
    from plotly.io import templates

    from workbench.plots.style import MARK

    layout = dict(figure.get("layout") or {})
    theme = layout.get("template") or {}
    if isinstance(theme, dict) and (theme.get("layout") or {}).get("uirevision") == MARK:
        layout["template"] = templates[f"{MARK}_paper"].to_plotly_json()
    layout["paper_bgcolor"] = "white"
    return {"data": figure.get("data", []), "layout": layout}


async def paint(browser: object, path: Path) -> None:
    """Paint one figure; the picture appears whole or not at all."""
    figure = on_paper(json.loads(path.read_text()))
    layout = figure["layout"]
    size = {"width": layout.get("width") or WIDTH, "height": layout.get("height") or HEIGHT, "scale": SCALE}
    drawn = path.stat().st_mtime_ns
    picture = await browser.calc_fig(figure, opts={"format": "png", **size})
    if not picture.startswith(b"\x89PNG"):
        raise ValueError("the browser returned no PNG")
    draft = path.with_name(".figure.png.tmp")
    draft.write_bytes(picture)
    os.utime(draft, ns=(drawn, drawn))  # as old as what it shows, so that a newer figure is seen
    os.replace(draft, path.with_name("figure.png"))


class Work:
    """What the child knows: where to look, whether to finish, and what went wrong."""

    def __init__(self, figures: Path):
        self.figures = figures
        self.finish = False
        self.failed: dict[Path, int] = {}  # figure -> its time when it could not be painted
        self.problem = ""
        self.browser_problem = ""

    def todo(self) -> list[Path]:
        """Figures to paint now, without those that failed and did not change since."""
        found = []
        for path in unpainted(self.figures):
            with contextlib.suppress(FileNotFoundError):
                if self.failed.get(path) != path.stat().st_mtime_ns:
                    found.append(path)
        return found

    def fail(self, path: Path, error: BaseException) -> None:
        """Keep a figure from being tried again, and remember why."""
        with contextlib.suppress(FileNotFoundError):
            self.failed[path] = path.stat().st_mtime_ns
        self.problem = f"{path.parent.name} has no picture ({type(error).__name__}: {one_line(error)})."


def one_line(error: BaseException) -> str:
    """The beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:300]


async def serve(work: Work) -> None:
    """Paint figures as they appear until told to finish; a browser is started for the first one."""
    for _ in range(STARTS):
        while not work.todo():
            if work.finish:
                return
            await asyncio.sleep(GLANCE_SECONDS)
        try:
            async with await open_browser() as browser:
                await paint_all(browser, work)
                return
        except Exception as error:  # whatever a browser does, the run goes on
            work.browser_problem = f"No pictures: the browser failed ({type(error).__name__}: {one_line(error)})."
            if type(error).__name__ == "ChromeNotFoundError":
                work.browser_problem = (
                    "No pictures: no browser was found. Install chromium or Chrome, or set BROWSER_PATH to one; "
                    "the interactive figures in the report need none."
                )
                return


async def paint_all(browser: object, work: Work) -> None:
    """Paint with this browser until told to finish; raises when the browser itself is gone."""
    while True:
        for path in work.todo():
            try:
                await paint(browser, path)
                work.browser_problem = ""
            except (ValueError, KeyError, TypeError, FileNotFoundError, TimeoutError) as error:
                work.fail(path, error)
            except Exception as error:  # kaleido's own: a figure that plotly refuses, or a browser that died
                if browser.subprocess.poll() is not None:
                    raise
                work.fail(path, error)
        if work.finish and not work.todo():
            return
        await asyncio.sleep(GLANCE_SECONDS)


async def open_browser() -> object:
    """A kaleido browser that fetches nothing; found by kaleido, or among the names that it overlooks."""
    import kaleido
    from choreographer.errors import ChromeNotFoundError

    settings = {"n": 1, "timeout": FIGURE_SECONDS, "mathjax": False}  # its MathJax would come from the net
    try:
        return kaleido.Kaleido(**settings)
    except ChromeNotFoundError:
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        if path is None:
            raise
        return kaleido.Kaleido(path=path, **settings)


async def child(figures: Path) -> str:
    """The life of the child process; returns what went wrong, or nothing."""
    work = Work(figures)
    loop = asyncio.get_running_loop()
    main = asyncio.create_task(serve(work))

    def listen() -> None:
        if sys.stdin.readline().strip() == FINISH:
            work.finish = True
        else:  # the parent is gone
            loop.call_soon_threadsafe(stop)

    def stop() -> None:
        late = threading.Timer(8, os._exit, (1,))  # should closing hang
        late.daemon = True
        late.start()
        main.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    threading.Thread(target=listen, daemon=True).start()
    with contextlib.suppress(asyncio.CancelledError):
        await main
    return work.browser_problem or work.problem


def run_child(figures: str, scratch: str) -> None:
    """Paint in this process; all that the browser leaves behind goes into `scratch`, which is removed."""
    tempfile.tempdir = scratch
    os.environ["TMPDIR"] = scratch
    try:
        print(asyncio.run(child(Path(figures))), flush=True)
        status = 0
    except Exception:  # the parent is gone, or will read the status
        status = 1
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(status)  # threads of the browser's client may still wait


if __name__ == "__main__":
    run_child(*sys.argv[1:])
