"""Live: a training that runs in another process, as it goes: curves, gates of a fixed probe, Stop and Probe now."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from workbench.plots.style import PALETTE
from workbench.runs.folder import Run
from workbench.runs.store import find
from workbench.trace.probe import read_probes
from workbench.trace.store import Trace
from workbench.training.control import ACTIONS, ask
from workbench.widgets.following import Following, Picture, clock
from workbench.widgets.page import lean
from workbench.widgets.scope import COLOURS, Scope

HERE = Path(__file__).parent
SHOWN = 4  # newest requests in the view


class Live(anywidget.AnyWidget):
    """Follow a run: its status, its curves, the gates of its probes; ask it to stop, or to probe now.

    All that it knows is in the run folder: close the tab, restart the kernel, and `Live(run)` shows all of it
    again. It looks at the folder about once a second while the kernel is free, until the run has ended; outside of
    Jupyter, call `refresh()`. A training is followed that logs to the run, and obeys if its `fit` has
    `control=Control(run)`; the gates come from a `Probe` among its observers.

    Args:
        run: the run, its folder, or the beginning of its name.
        seconds: between two looks.

    Raises:
        ValueError: there is no such run.
    """

    _esm = "\n".join(lean((HERE / name).read_text(encoding="utf-8")) for name in ("colours.js", "live.js"))
    _css = lean((HERE / "live.css").read_text(encoding="utf-8"))

    name = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    curves = traitlets.Dict().tag(sync=True)
    requests = traitlets.List().tag(sync=True)
    probes = traitlets.Dict().tag(sync=True)
    palette = traitlets.List(PALETTE[:6]).tag(sync=True)
    scope = traitlets.Instance(ipywidgets.Widget, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(self, run: Run | str | Path, *, seconds: float = 1.0) -> None:
        self.run = run if isinstance(run, Run) else find(run)
        self.following = Following(self.run)
        self._seconds, self._lock = seconds, threading.Lock()
        super().__init__(name=self.run.name)
        self.on_msg(self._receive)
        self.refresh()
        self._task = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel: nothing to follow with
            return
        if not self.finished:
            self._task = loop.create_task(self._follow())

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to wait for."""
        return bool(self.state.get("finished"))

    def refresh(self) -> None:
        """Read what the folder has gained, and show it; what cannot be read is said, and tried again."""
        with self._lock, self.hold_sync():
            try:
                self._show()
            except (OSError, ValueError) as error:
                gone = not self.run.path.is_dir()
                words = f"the folder {self.run.path} is gone" if gone else str(error)
                self.state = {"name": "gone" if gone else "unreadable", "line": words, "finished": gone, "done": None}

    def _show(self) -> None:
        following = self.following
        if not self.run.path.is_dir():
            raise FileNotFoundError(self.run.path)
        following.read()
        done, total = (following.progress.get(name) for name in ("done", "total"))
        share = done / total if isinstance(done, int) and isinstance(total, int) and total else None
        status = following.status
        self.curves = following.curves()
        self.requests = [spoken(request) for request in following.requests[-SHOWN:]]
        self.probes = {
            label: {
                "steps": steps,
                "names": following.quantities(label),
                "sequences": following.sequences(label),
            }
            for label, steps in following.probes.items()
        }
        self.state = {"name": status.state, "line": following.line(), "finished": status.finished, "done": share}

    def ask(self, action: str) -> str:
        """Ask the training to "stop" or to "probe"; return the request's id. The answer comes with a later look."""
        identity = ask(self.run, action)
        self.refresh()
        return identity

    def open_scope(self, label: str | None = "") -> Scope | None:
        """Show a scope below, over the probes that there are now; None closes it."""
        old, self.scope = self.scope, None
        if old is not None:
            old.close()
        if label is not None and (probes := self.read_probes(label)):
            self.scope = Scope(probes, title=f"{self.name}, gates through training")
        return self.scope

    def read_probes(self, label: str = "") -> Mapping[int, Trace]:
        """Training step to trace."""
        return read_probes(self.run, label)

    async def _follow(self) -> None:
        while not self.finished and self.comm is not None:  # no comm: the widget was closed
            await asyncio.sleep(self._seconds)
            self.refresh()

    def _receive(self, _: object, content: dict, __: object) -> None:
        """A button or a slider of the view."""
        if (action := content.get("ask")) in ACTIONS:
            self.ask(action)
        elif (wanted := content.get("picture")) is not None:
            self._send_picture(wanted)
        elif "scope" in content:
            self.open_scope(content["scope"])

    def _send_picture(self, wanted: dict) -> None:
        keys = ("label", "name", "step", "sequence")
        try:
            with self._lock:
                picture = self.following.picture(*(wanted[key] for key in keys))
        except (LookupError, OSError, ValueError) as error:  # replaced or removed meanwhile
            self.send({"picture": wanted, "error": str(error)})
            return
        self.send({"picture": wanted, **described(picture)}, [picture.levels.tobytes()])


def described(picture: Picture) -> dict:
    """What goes beside the levels of a picture."""
    rows, columns = picture.levels.shape
    said = {name: value for name, value in picture._asdict().items() if name not in ("levels", "kind")}
    colours = COLOURS[picture.kind if picture.kind in COLOURS else "sequential"]
    return {"rows": rows, "columns": columns, "colours": colours, **said}


def spoken(request: dict) -> dict:
    """A request as the view shows it: what, its state, and a sentence."""
    action, answer = request.get("action") or "?", request["answer"]
    words = f"{action} asked at {clock(request.get('time'))}" if request.get("time") else f"{action}"
    if answer == "asked":
        words += ", not seen yet"
    else:
        step = f" at step {request['step']:,}" if isinstance(request.get("step"), int) else ""
        why = f": {request['why']}" if request.get("why") else ""
        words += f", {answer}{step}{why}"
    return {"id": request["id"], "action": action, "answer": answer, "words": words}
