"""A scope as one HTML file: the same view, with every answer computed beforehand."""

import base64
import html
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.runs.files import plain
from workbench.trace.edits import force
from workbench.trace.names import ours
from workbench.trace.store import matches
from workbench.widgets.asking import change
from workbench.widgets.still import still
from workbench.widgets.tiles import COLUMNS, FACTOR, Difference, levels

if TYPE_CHECKING:
    from workbench.widgets.answers import Answer
    from workbench.widgets.scope import Scope

HERE = Path(__file__).parent
MODULE = ("colours.js", "sources.js", "drawing.js", "panes.js", "asking.js", "controls.js", "scope.js")  # one, in order
# A saved notebook holds the module of each widget: it goes there deflated; anywidget itself loads modules from blobs.
UNPACK = """const packed = Uint8Array.from(atob("{packed}"), (c) => c.charCodeAt(0));
const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
const blob = new Blob([await new Response(stream).blob()], {{ type: "text/javascript" }});
const url = URL.createObjectURL(blob);
const {{ render, rules }} = await import(url);
URL.revokeObjectURL(url);
export default {{
  render(given) {{
    given.el.appendChild(document.createElement("style")).textContent = rules;
    return render(given);
  }},
}};
"""


def script() -> str:
    """The view as one ES module."""
    return "\n".join(lean((HERE / name).read_text(encoding="utf-8")) for name in MODULE)


def style() -> str:
    """The view's rules."""
    return lean((HERE / "scope.css").read_text(encoding="utf-8"))


def packed_script() -> str:
    """A module that unpacks the view's, and its rules."""
    module = f"{script()}\nexport const rules = {json.dumps(style())};"
    return UNPACK.format(packed=base64.b64encode(zlib.compress(module.encode(), 9)).decode())


def lean(text: str) -> str:
    """Code without lines that only comment, and without what indents the others."""
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not re.match(r"//|/\*.*\*/$", line))


def page(
    scope: "Scope",
    *,
    names: Sequence[str] = ("*",),
    what_if: Mapping[str, Sequence[float]] | None = None,
    megabytes: float = 20.0,
) -> str:
    """The page; see `Scope.export`."""
    parts = Parts(scope, names, megabytes)
    parts.fill(what_if or {})
    meta = {**scope.meta, "quantities": parts.quantities, "page": parts.said()}
    title = html.escape(meta["title"] or "Scope")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<style>{lean((HERE / "page.css").read_text(encoding="utf-8"))}
{style()}</style></head>
<body><main id="scope"></main><noscript>{still(scope.answers, scope.meta)[1]}</noscript>
<script type="application/json" id="meta">{as_script(meta)}</script>
<script type="application/json" id="answers">{as_script(parts.answers)}</script>
<script type="module">
{script()}
mount(document.getElementById("scope"), fromPage(document));
</script></body></html>
"""


class Parts:
    """The answers that a page holds, from coarse to fine until it is full.

    Args:
        scope: whose.
        names: which quantities.
        megabytes: about how large the page may become.
    """

    def __init__(self, scope: "Scope", names: Sequence[str], megabytes: float) -> None:
        self.scope, self.left = scope, megabytes * 1e6
        self.answers: dict[str, list] = {}
        self.finest: dict[str, int] = {}
        self.tried: dict[str, dict] = {}
        self.megabytes = megabytes
        self.quantities = {}
        answers = scope.answers
        for name, about in scope.meta["quantities"].items():
            places = [place for place in about["places"] if matches(answers.path(place[0], name), names)]
            if places:
                self.quantities[name] = {**about, "places": places}
        if not self.quantities:
            raise ValueError(f"no quantity has a name like {', '.join(names)}; there are {', '.join(answers.places)}.")

    def fill(self, what_if: Mapping[str, Sequence[float]]) -> None:
        """Compute the answers; of the room, what-ifs get at most half."""
        meta, reserved = self.scope.meta, self.left / 2 if what_if else 0
        if meta["tokens"]:
            self.keep_all({"ask": "tokens", "batch": batch} for batch in range(meta["batch"]))
        if meta["axis"] and "step" not in meta["axis"]:
            self.keep_all([{"ask": "axis"}])
        labels = [str(at) for at in range(len(meta["labels"]))]
        self.keep_all(request for label in labels for request in self.overviews(label))
        self.left -= reserved
        steps = max(label["steps"] for label in meta["labels"])
        self.keep_levels([*labels, *(["series"] if meta["series"] else [])], steps)
        if not self.finest:
            raise ValueError(f"megabytes={self.megabytes:g} is not enough; allow more, or choose fewer with names=.")
        self.left += reserved
        for path, values in what_if.items():
            self.try_out(path, values)

    def try_out(self, path: str, values: Sequence[float]) -> None:
        """Answers of the model with one quantity forced to each of the values."""
        asking, answers = self.scope.asking, self.scope.answers
        if asking is None:
            raise ValueError("what_if needs a model; make the scope with model= and inputs=.")
        cell, _, name = path.rpartition(".")
        fitting = [known for known in asking.options() if known == cell or known.endswith(f".{cell}")]
        cell = fitting[0] if len(fitting) == 1 else cell
        name = ours(name, asking.options().get(cell, {}).get("force", {}))
        tried = {"values": [float(value) for value in values], "labels": []}
        for at, value in enumerate(tried["values"]):
            edits = [force(f"{cell}.{name}" if cell else name, value)]
            result = asking.run(edits)
            label = f"difference#{cell}.{name}={value:g}"
            answers.add(label, Difference(result.after, result.before), result.after.steps)
            for batch in range(self.scope.meta["batch"]):
                found = change(result, edits, batch)
                said = found.said | {"label": label.removeprefix("difference"), "steps": result.after.steps}
                lines = [line.astype("<f4").tobytes() for line in found[1:]]
                key = key_of({"ask": "what_if", "label": f"{cell}.{name}", "batch": batch, "index": at})
                self.put({key: stored((said, lines))})
            self.keep_all(self.overviews(label))
            self.keep_levels([label], result.after.steps)
            tried["labels"].append(label)
        self.tried[f"{cell}.{name}"] = tried

    def overviews(self, label: str) -> Iterator[dict]:
        """What the strip of thumbnails asks."""
        for quantity in self.quantities:
            for batch in range(self.scope.meta["batch"]):
                yield {"ask": "overview", "label": label, "quantity": quantity, "batch": batch}

    def tiles(self, label: str, level: int) -> Iterator[dict]:
        """What the maps ask at one level."""
        _, steps = self.scope.answers.source(label)
        if level >= levels(steps):
            return
        columns = -(-steps // FACTOR**level)
        for index in range(-(-columns // COLUMNS)):
            for batch in range(self.scope.meta["batch"]):
                place = {"ask": "tile", "label": label, "batch": batch, "level": level, "index": index}
                if label == "series":
                    yield place | {"cell": 0, "quantity": "series", "head": 0}
                    continue
                for quantity, about in self.quantities.items():
                    for cell, heads, units in about["places"]:
                        for head in range(heads if units else 1):
                            yield place | {"cell": cell, "quantity": quantity, "head": head}

    def keep_levels(self, labels: Sequence[str], steps: int) -> None:
        """Tiles of all labels, level by level, as long as a whole level has room."""
        for level in reversed(range(levels(steps))):
            found, size = {}, 0
            for label in labels:
                for request in self.tiles(label, level):
                    found[key_of(request)] = blob = stored(self.scope.answers.answer(request))
                    size += weight(blob)
                    if size > self.left:
                        return
            self.put(found)
            self.finest |= dict.fromkeys(labels, level)

    def keep_all(self, requests: Iterator[dict] | Sequence[dict]) -> None:
        """Answers that every page has; a quantity that a later trace lacks has none."""
        for request in requests:
            try:
                self.put({key_of(request): stored(self.scope.answers.answer(request))})
            except KeyError:
                continue

    def put(self, blobs: dict[str, list]) -> None:
        """Keep answers, and count them."""
        self.answers |= blobs
        self.left -= sum(weight(blob) for blob in blobs.values())

    def said(self) -> dict:
        """What the page knows of itself."""
        coarse = max(level for label, level in self.finest.items() if not label.startswith("difference"))
        note = f"columns pool {FACTOR**coarse} steps or more, to stay below {self.megabytes:g} MB" if coarse else ""
        return {"finest": self.finest, "what_if": self.tried, "note": note}


def key_of(request: Mapping[str, object]) -> str:
    """A request as a string; sources.js makes the same."""
    return "|".join(
        str(request[part])
        for part in ("ask", "label", "cell", "quantity", "batch", "head", "level", "index")
        if part in request
    )


def stored(answer: "Answer") -> list:
    """An answer as JSON: its bytes deflated, those of 16-bit numbers with all high bytes first."""
    said, buffers = answer
    return [said, [base64.b64encode(zlib.compress(split(buffer), 6)).decode() for buffer in buffers]]


def split(buffer: bytes) -> bytes:
    """Pairs of bytes as all first ones, then all second ones: smooth numbers deflate better so."""
    return buffer[0::2] + buffer[1::2]


def weight(blob: list) -> int:
    """About how many bytes of the page an answer takes."""
    return 120 + sum(map(len, blob[1]))


def as_script(value: object) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
