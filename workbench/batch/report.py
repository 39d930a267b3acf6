"""A run as one HTML file: what was asked, how it ended, the essay with its figures. It needs no network.

The page forbids itself to load anything (its content security policy), besides containing nothing to load.
"""

import html
import json
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Protocol

from workbench.batch.outputs import Outputs, as_script
from workbench.batch.prose import Prose
from workbench.runs.files import read_json, write_bytes
from workbench.runs.status import Status, read

MOST_ROWS = 80
# plotly's WebGL traces compile their loops with eval; only scripts that carry the page's nonce run at all.
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)
WORDS = {
    "queued": "Not started",
    "running": "Still running",
    "ok": "Finished",
    "failed": "Failed",
    "diverged": "Diverged",
    "oom": "Out of memory",
    "timeout": "Took too long",
    "interrupted": "Interrupted",
    "killed": "Killed",
    "skipped": "Skipped",
}
SIGNS = {"ok": "✓", "running": "…", "queued": "…", "skipped": "–", "interrupted": "■"}


class HasPath(Protocol):
    """Anything with the path of a run folder: a Run."""

    path: Path


def write_report(run: HasPath) -> Path:
    """Write `report.html` into the run's folder, whatever is there of the run; returns its path."""
    folder = Path(run.path)
    target = folder / "report.html"
    write_bytes(target, page(folder).encode())
    return target


def page(folder: Path) -> str:
    """The whole report of the run in `folder`."""
    record, outputs = tolerant(folder / "run.json"), tolerant(folder / "outputs.json")
    status = status_of(folder)
    notebook, problem = notebook_of(folder)
    prose = Prose()
    rendered = Outputs(prose, captions(folder))
    essay = "".join(cells(notebook, prose, rendered, status)) if notebook else f'<p class="note">{problem}</p>'
    title = prose.title or str(record.get("name") or folder.name)
    nonce = secrets.token_urlsafe(12)
    body = [
        '<a class="skip" href="#main">Skip to the report</a>',
        header(folder, title, record, status, f'id="cell-{status.cell}"' in essay),
        contents(prose, bool(outputs), bool(record.get("params"))),
        '<main id="main">',
        f'<article aria-label="Notebook">{essay}</article>',
        table("results", "Results", outputs),
        table("parameters", "Parameters", record.get("params") or {}),
        provenance(record),
        "</main>",
    ]
    policy = POLICY.format(nonce=nonce)
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{html.escape(title)} · {WORDS[status.state]}</title><style>{asset('report.css')}</style>"
    )
    drawn = scripts(rendered, nonce)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{"".join(body)}{drawn}</body></html>\n'


def asset(name: str) -> str:
    """A file that lies beside this one in the package."""
    return resources.files("workbench.batch").joinpath(name).read_text(encoding="utf-8")


def tolerant(path: Path) -> dict:
    """The JSON object in a file; empty when the file is missing or damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def status_of(folder: Path) -> Status:
    """The status of the run; queued when nothing readable says so."""
    try:
        return read(folder)
    except (OSError, ValueError):
        return Status(state="queued")


def notebook_of(folder: Path) -> tuple[Mapping | None, str]:
    """The executed notebook, or why there is none."""
    import nbformat

    path = folder / "notebook.ipynb"
    if not path.exists():
        return None, "The run ended before its notebook was saved for the first time: there is nothing to show yet."
    try:
        return nbformat.read(path, as_version=4), ""
    except Exception as error:  # nbformat raises whatever its schema library raises
        return None, f"The saved notebook could not be read ({html.escape(type(error).__name__)}); it may be cut short."


def captions(folder: Path) -> dict[str, str]:
    """Captions of the saved figures, by the alt text that names them in the notebook's outputs."""
    records = (tolerant(path) for path in folder.glob("figures/*/provenance.json"))
    return {str(record["alt"]): str(record.get("caption") or "") for record in records if record.get("alt")}


def cells(notebook: Mapping, prose: Prose, rendered: Outputs, status: Status) -> Iterator[str]:
    """The cells one after the other, numbered as `status.json` numbers them."""
    count = 0
    for cell in notebook.get("cells", []):
        tags = cell.get("metadata", {}).get("tags", [])
        if "papermill-error-cell-tag" in tags or not cell.get("source", "").strip():
            continue
        if cell["cell_type"] == "markdown":
            shown = prose.render(cell["source"], cell.get("attachments"))
            yield f'<section class="prose">{shown}</section>' if shown.strip() else ""
        elif cell["cell_type"] == "code":
            injected = "injected-parameters" in tags
            count += not injected
            yield code_cell(cell, None if injected else count, rendered, status)


def code_cell(cell: Mapping, number: int | None, rendered: Outputs, status: Status) -> str:
    """A code cell: the code folded away, the outputs open."""
    ended = number is not None and number == status.cell and status.state not in ("ok", "running", "queued", "skipped")
    waiting = cell.get("metadata", {}).get("papermill", {}).get("status") == "pending" and not cell.get("outputs")
    label = f"Code of cell {number}" if number else "Parameters given to this run"
    notes = (" · the run ended here" if ended else "") + (" · not run" if waiting and not ended else "")
    shown = "".join(rendered.render(output, number) for output in cell.get("outputs", []))
    anchor = f' id="cell-{number}"' if number else ""
    kind = "cell ended" if ended else "cell waiting" if waiting else "cell"
    return (
        f'<section class="{kind}"{anchor}><details class="code"{" open" if ended else ""}>'
        f"<summary>{label}{notes}</summary>{highlighted(cell['source'])}</details>{shown}</section>"
    )


def highlighted(source: str) -> str:
    """Python with its tokens marked; the page's style gives them colours."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    marked = highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))
    return f'<pre class="source" tabindex="0"><code>{marked}</code></pre>'


def header(folder: Path, title: str, record: Mapping, status: Status, linked: bool) -> str:
    """Title, state in words, and the facts in one line."""
    facts = [moment(record.get("created")), f"took {duration(status.seconds)}" if status.seconds else ""]
    facts += [f"seed {record['seed']}" if record.get("seed") is not None else "", commit(record)]
    line = " · ".join(html.escape(fact) for fact in facts if fact)
    kind = {"ok": "good", "queued": "open", "running": "open", "skipped": "open"}.get(status.state, "bad")
    sign = SIGNS.get(status.state, "✕")
    return (
        f'<header><p class="eyebrow">Run {html.escape(folder.name)}</p><h1>{html.escape(title)}</h1>'
        f'<div class="state {kind}">'
        f'<p><span aria-hidden="true">{sign}</span> <strong>{state_words(status, linked)}</strong></p>'
        f'{ending(status)}</div><p class="facts">{line}</p></header>'
    )


def state_words(status: Status, linked: bool) -> str:
    """How the run stands, in words; `linked` where the page has the cell to go to."""
    said = WORDS[status.state]
    if status.state == "ok":
        return f"{said}: all {status.cells} cells ran" if status.cells else said
    if status.cell is None:
        return said
    of = f" of {status.cells}" if status.cells else ""
    place = f"cell {status.cell}{of}"
    return f'{said}, in <a href="#cell-{status.cell}">{place}</a>' if linked else f"{said}, in {place}"


def ending(status: Status) -> str:
    """The error that ended the run, and what to try."""
    if status.error is None:
        return ""
    said = f"<p><b>{html.escape(status.error.name)}</b>: {html.escape(status.error.value)}</p>"
    return said + (f"<p>{html.escape(status.error.hint)}</p>" if status.error.hint else "")


def commit(record: Mapping) -> str:
    """The commit, and whether files differed from it."""
    if not record.get("commit"):
        return ""
    return f"commit {str(record['commit'])[:10]}" + (" with uncommitted changes" if record.get("dirty") else "")


def moment(text: object) -> str:
    """An ISO time for people; as it is when it is no time."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text or "")
    zone = f" {when.tzname()}" if when.tzname() else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def duration(seconds: float) -> str:
    """A duration for people."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def contents(prose: Prose, results: bool, parameters: bool) -> str:
    """The table of contents."""
    entries = [(heading.anchor, heading.text, heading.level) for heading in prose.headings if heading.level <= 3]
    entries += [("results", "Results", 2)] if results else []
    entries += [("parameters", "Parameters", 2)] if parameters else []
    entries += [("provenance", "Where it comes from", 2)]
    items = "".join(
        f'<li class="level-{level}"><a href="#{html.escape(anchor)}">{html.escape(text)}</a></li>'
        for anchor, text, level in entries
    )
    return f'<nav aria-label="Contents"><details open><summary>Contents</summary><ol>{items}</ol></details></nav>'


def table(anchor: str, title: str, values: Mapping) -> str:
    """Names and values; a mapping of like mappings becomes a table of its own, others get dotted names."""
    grids = {name: value for name, value in values.items() if is_grid(value)}
    rows = list(flat({name: value for name, value in values.items() if name not in grids}))
    if not rows and not grids:
        return ""
    shown = "".join(map(grid, grids, grids.values()))
    if rows:
        shown += f"<table><tbody>{''.join(row(name, [value]) for name, value in rows[:MOST_ROWS])}</tbody></table>"
    left = f"<p>{len(rows) - MOST_ROWS} more in the run folder.</p>" if len(rows) > MOST_ROWS else ""
    return f'<section class="facts-table"><h2 id="{anchor}">{title}</h2>{shown}{left}</section>'


def is_grid(value: object) -> bool:
    """Whether a value is a mapping of at least two mappings with the same names and no deeper ones."""
    if not isinstance(value, Mapping) or len(value) < 2:
        return False
    rows = list(value.values())
    return all(
        isinstance(row, Mapping) and row and list(row) == list(rows[0])
        and not any(isinstance(cell, Mapping) for cell in row.values())
        for row in rows
    )  # fmt: skip


def grid(name: str, values: Mapping[str, Mapping]) -> str:
    """A table with a row per name and a column per inner name."""
    columns = "".join(f'<th scope="col">{html.escape(str(column))}</th>' for column in next(iter(values.values())))
    body = "".join(row(line, list(cells.values())) for line, cells in list(values.items())[:MOST_ROWS])
    head = f"<thead><tr><td></td>{columns}</tr></thead>"
    return f"<table><caption>{html.escape(name)}</caption>{head}<tbody>{body}</tbody></table>"


def row(name: str, values: list[object]) -> str:
    """A row of a table."""
    cells = "".join(f"<td>{html.escape(said(value))}</td>" for value in values)
    return f'<tr><th scope="row">{html.escape(str(name))}</th>{cells}</tr>'


def flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The leaves of nested mappings, with dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def said(value: object) -> str:
    """A value for people: numbers with four significant digits, long lists cut."""
    if isinstance(value, list):
        words = ", ".join(said(entry) for entry in value[:12])
        return f"{words}, … ({len(value)} in all)" if len(value) > 12 else words
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return "none" if value is None else str(value)


def provenance(record: Mapping) -> str:
    """Where the run comes from: notebook, data, versions, machine."""
    notebook = record.get("notebook") or {}
    facts = {
        "notebook": notebook.get("path") or notebook.get("name") if isinstance(notebook, Mapping) else notebook,
        "commit": record.get("commit"),
        "data (SHA-256)": record.get("data") or None,
        "host": record.get("host"),
        "platform": record.get("platform"),
        "versions": record.get("versions") or None,
    }
    shown = table("provenance", "Where it comes from", {name: fact for name, fact in facts.items() if fact})
    return (
        shown or '<section class="facts-table"><h2 id="provenance">Where it comes from</h2><p>No record.</p></section>'
    )


def scripts(rendered: Outputs, nonce: str) -> str:
    """The figures' data, plotly once, and the script that draws; nothing where there are no figures."""
    if not rendered.figures:
        return ""
    from plotly.io import templates
    from plotly.offline import get_plotlyjs

    from workbench.plots.style import CONFIG

    themes = {name: templates[f"workbench_{name}"].to_plotly_json() for name in ("light", "dark", "paper")}
    data = "".join(
        f'<script type="application/json" id="data-{figure.number}">{figure.json}</script>'
        for figure in rendered.figures
    )
    settings = as_script({"themes": json.loads(json.dumps(themes)), "config": CONFIG})
    return (
        f'{data}<script type="application/json" id="settings">{settings}</script>'
        f'<script nonce="{nonce}">{get_plotlyjs()}</script><script nonce="{nonce}">{asset("report.js")}</script>'
    )
