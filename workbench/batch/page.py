"""The page of a batch: what is done, what came out, side by side; one HTML file without anything from outside."""

import html
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.batch.progress_view import duration
from workbench.batch.standing import Row
from workbench.runs.files import now, write_bytes

if TYPE_CHECKING:
    from workbench.batch.batches import Batch

PAGE = "index.html"
_METRICS = ("mae", "error", "accuracy", "loss")  # of a model's scores, the first that is there is shown
_STYLE = Path(__file__).with_name("page.css")


def write_page(batch: "Batch") -> None:
    """Write `index.html` of a batch as it stands now."""
    write_bytes(batch.folder / PAGE, page(batch.plan.name, batch.rows()).encode())


def embedded(name: str, standing: list[Row]) -> str:
    """The summary and the tables, for a notebook."""
    return f"<p>{html.escape(name)}: {summary(standing)}</p>{_tables(standing)}"


def page(name: str, standing: list[Row]) -> str:
    """The whole page."""
    body = f"<h1>{html.escape(name)}</h1><p>{summary(standing)} · as of {now()[:19].replace('T', ' ')} UTC</p>"
    head = (
        f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{html.escape(name)}</title>"
    )
    refresh = "<meta http-equiv='refresh' content='5'>" if any(row.state == "running" for row in standing) else ""
    style = f"<style>{_STYLE.read_text()}</style>"
    body += _tables(standing)
    return f"<!doctype html><html lang='en'><head>{head}{refresh}{style}</head><body>{body}</body></html>"


def _tables(standing: list[Row]) -> str:
    groups = dict.fromkeys(row.job.group for row in standing)
    return "".join(table(group, [row for row in standing if row.job.group == group]) for group in groups)


def summary(standing: list[Row]) -> str:
    """How many runs are in which state, in words."""
    states = [row.state for row in standing]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != "ok"]
    return ", ".join([f"{states.count('ok')} of {len(states)} done", *counts])


def table(group: str, standing: list[Row]) -> str:
    """The runs of a group: what varies, how each stands, what it found."""
    varied = list(dict.fromkeys(name for row in standing for name in row.job.varied))
    found = {row.job.name: results(row) for row in standing}
    columns = list(dict.fromkeys(name for each in found.values() for name in each))
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in ["run", *varied, "state"])
    heads += "".join(f"<th class='number'>{html.escape(name)}</th>" for name in ["time", *columns]) + "<th></th>"
    body = "".join(_row(row, varied, columns, found[row.job.name]) for row in standing)
    return f"<div class='wide'><table><caption>{html.escape(group)}</caption><tr>{heads}</tr>{body}</table></div>"


def results(row: Row) -> dict[str, float]:
    """One number for each model among the scores of a run."""
    scores = row.run.outputs().get("scores") if row.run else None
    found = {}
    for model, values in scores.items() if isinstance(scores, dict) else ():
        metric = next((name for name in _METRICS if isinstance(values, dict) and name in values), None)
        if metric is not None and isinstance(values[metric], (int, float)):
            found[f"{model} {metric}"] = values[metric]
    return found


def _row(row: Row, varied: list[str], columns: list[str], found: dict[str, float]) -> str:
    folder = f"runs/{row.job.name}"
    report = f"{folder}/report.html" if row.run and (row.run.path / "report.html").is_file() else f"{folder}/"
    name = f"<a href='{report}'>{row.job.key}</a>" if row.run else row.job.key
    kind = row.state if row.state in ("ok", "running", "queued") else "bad"
    cells = [f"<td>{name}</td>", *(f"<td>{html.escape(str(row.job.varied.get(key, '')))}</td>" for key in varied)]
    took = "" if row.status.seconds is None else duration(row.status.seconds)
    cells += [f"<td class='{kind}'>{row.state}</td>", f"<td class='number'>{took}</td>"]
    cells += [f"<td class='number'>{found[key]:.4g}</td>" if key in found else "<td></td>" for key in columns]
    why = f"{row.status.error.name}: {row.status.error.value}".splitlines()[0] if row.status.error else ""
    return f"<tr>{''.join(cells)}<td class='why'>{html.escape(why)}</td></tr>"
