"""The outputs of a cell as HTML: figures, tables, text, pictures, errors."""

import base64
import html
import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from workbench.batch.prose import Prose, formula
from workbench.batch.sanitise import has_substance, sanitise

PLOTLY = "application/vnd.plotly.v1+json"
LONGEST = 20_000  # characters of one text output; the notebook has the rest
SHORT_ALT = 420  # characters of a description that stands open
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")


class Figure(NamedTuple):
    """A figure of the page: what its script block holds."""

    number: int
    json: str


class Outputs:
    """Renders the outputs of one page; `figures` grows as it goes.

    Args:
        prose: renders markdown outputs.
        captions: alt text of a figure -> the caption that it was saved with.
    """

    def __init__(self, prose: Prose, captions: Mapping[str, str]):
        self.figures: list[Figure] = []
        self._prose = prose
        self._captions = captions

    def render(self, output: Mapping, cell: int | None) -> str:
        """One output of the code cell number `cell`."""
        kind = output.get("output_type")
        if kind == "stream":
            return preformatted(
                joined(output.get("text", "")), "stderr" if output.get("name") == "stderr" else "stream"
            )
        if kind == "error":
            return self._error(output)
        return self._bundle(output.get("data", {}), cell)

    def _bundle(self, data: Mapping, cell: int | None) -> str:
        if PLOTLY in data and isinstance(data[PLOTLY], Mapping):
            return self._figure(data[PLOTLY])
        text = joined(data.get("text/plain", ""))
        if "text/html" in data:
            rich = sanitise(joined(data["text/html"]))
            if has_substance(rich):
                return f'<div class="rich" tabindex="0">{rich}</div>'
        for kind in ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp"):
            if kind in data:
                return picture(kind, joined(data[kind]), cell)
        if "text/latex" in data:
            latex = joined(data["text/latex"]).strip()
            return f'<div class="math">{formula(latex.strip("$"), "block")}</div>'
        if "text/markdown" in data:
            return f'<div class="prose">{self._prose.render(joined(data["text/markdown"]))}</div>'
        if "application/json" in data and not text:
            text = json.dumps(data["application/json"], indent=2, ensure_ascii=False)
        return preformatted(text, "result") if text else ""

    def _figure(self, drawing: Mapping) -> str:
        number = len(self.figures) + 1
        layout = dict(drawing.get("layout") or {})
        meta = layout.get("meta") if isinstance(layout.get("meta"), Mapping) else {}
        theme = layout.get("template")
        ours = isinstance(theme, Mapping) and (theme.get("layout") or {}).get("uirevision") == "workbench"
        if ours:
            layout.pop("template")  # the page brings it, once, light and dark
        height = layout.get("height") or 450
        spec = {"data": drawing.get("data", []), "layout": layout | {"height": height}, "ours": ours}
        self.figures.append(Figure(number, as_script(spec)))
        alt = str(meta.get("alt") or "") or "An interactive figure without a description."
        caption = self._captions.get(alt, "")
        label = f"<b>Figure {number}.</b> "
        said = f'<p class="caption">{label}{html.escape(caption)}</p>' if caption else ""
        label = "" if caption else label
        if len(alt) <= SHORT_ALT:
            said += f"<p>{label}{html.escape(alt)}</p>"
        else:
            said += f"<details><summary>{label}The figure in words</summary><p>{html.escape(alt)}</p></details>"
        return (
            f'<figure id="figure-{number}" aria-labelledby="words-{number}">'
            f'<div class="scroll"><div class="canvas" data-figure="{number}" style="height:{int(height)}px">'
            "<noscript>A script inside this file draws this figure; scripts are switched off.</noscript></div></div>"
            f'<figcaption id="words-{number}">{said}</figcaption></figure>'
        )

    @staticmethod
    def _error(output: Mapping) -> str:
        name, value = (html.escape(without_ansi(str(output.get(key, "")))) for key in ("ename", "evalue"))
        lines = without_ansi("\n".join(output.get("traceback") or [])).split("\n")
        trace = "\n".join(line for line in lines if line.strip("-") or not line)
        details = f"<details open><summary>Traceback</summary>{preformatted(trace, 'trace')}</details>" if trace else ""
        return f'<div class="error" role="note"><p><strong>{name}</strong>: {value}</p>{details}</div>'


def joined(text: str | list[str]) -> str:
    """Notebook files may hold text as a list of lines."""
    return text if isinstance(text, str) else "".join(map(str, text))


def without_ansi(text: str) -> str:
    """Text without terminal colours, and with lines as they looked at the end where they were overwritten."""
    text = _ANSI.sub("", text).replace("\r\n", "\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))


def preformatted(text: str, kind: str) -> str:
    """Text as it was printed; the end is cut where it is very long."""
    text = without_ansi(text).rstrip()
    if not text:
        return ""
    left = len(text) - LONGEST
    if left > 0:
        text = f"{text[:LONGEST]}\n… {left:,} more characters in notebook.ipynb"
    return f'<pre class="{kind}" tabindex="0">{html.escape(text)}</pre>'


def picture(kind: str, content: str, cell: int | None) -> str:
    """A picture inside the file; drawings too come as pictures, so that they cannot run scripts."""
    if kind == "image/svg+xml":
        content = base64.b64encode(content.encode()).decode()
    where = f"Picture from cell {cell}" if cell else "Picture"
    return f'<img alt="{where}" src="data:{kind};base64,{"".join(content.split())}">'


def as_script(value: object) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
