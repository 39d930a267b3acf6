"""A scope where nothing can move: a drawing with its numbers, for reports and for notebooks without a kernel."""

import html
from typing import NamedTuple

import numpy as np

from workbench.plots.style import PALETTE, counted, number
from workbench.trace.names import kind_of
from workbench.widgets.answers import Answers
from workbench.widgets.glance import thumbnails
from workbench.widgets.tiles import pool

CELLS, HEADS = 4, 8  # panels at most
POINTS = 32  # of one line; a saved notebook holds the drawing
WIDE, HIGH, LEFT, TOP, GAP = 96, 40, 120, 20, 8  # px of a panel, beside and above all of them, between them


class Panel(NamedTuple):
    """One head of one cell: its mean over units through time (point,)."""

    row: int
    cell: str
    head: int
    line: np.ndarray


def still(answers: Answers, meta: dict) -> tuple[str, str]:
    """The first quantity of a scope as words, and as HTML with an inline drawing of a few kilobytes."""
    quantity = answers.opening
    panels = panels_of(answers, quantity)
    scale = answers.scale("0", quantity)
    label = meta["labels"][0]
    log = kind_of(quantity) == "steps"
    shown = len({panel.cell for panel in panels}), max(panel.head for panel in panels) + 1
    there = len(answers.places[quantity]), max(place.heads for place in answers.places[quantity])
    part = "" if shown == there else f" Shown are {shown[0]} of {there[0]} cells and {shown[1]} of {there[1]} heads."
    words = [
        f"{meta['title'] or 'Scope'}: {quantities(len(answers.places))} of {counted(len(answers.cells), 'cell')} "
        f"over {counted(label['steps'], 'step')}, sequence 0.",
        f"Drawn is {quantity}{': ' if meta['quantities'][quantity]['meaning'] else ''}"
        f"{meta['quantities'][quantity]['meaning']}; the mean over units, from {said(scale.low, log)} "
        f"to {said(scale.high, log)}.{part}",
        exactness(label),
        *(f"{note[:1].upper()}{note[1:]}." for note in label["notes"]),
    ]
    spans = [span(panel, log) for panel in panels]
    pairs = list(zip(panels, spans, strict=True))
    text = " ".join([*words, *(f"{p.cell} head {p.head}: {low} to {high}." for p, (low, _, high) in pairs)])
    rows = "".join(
        f"<tr><td>{html.escape(p.cell)}</td><td>{p.head}</td><td>{'</td><td>'.join(numbers)}</td></tr>"
        for p, numbers in pairs
    )
    table = (
        "<details><summary>The drawing in numbers</summary><table><thead><tr><th>cell</th><th>head</th><th>lowest</th>"
        f"<th>mean</th><th>highest</th></tr></thead><tbody>{rows}</tbody></table></details>"
    )
    alt = f"{' '.join(words[:2])} The table below has the numbers."
    drawing = svg(panels, scale.low, scale.high, alt)
    caption = html.escape(" ".join(words))
    return text, f"<figure>{drawing}<figcaption>{caption}{table}</figcaption></figure>"


def panels_of(answers: Answers, quantity: str) -> list[Panel]:
    """A line for each of the first cells and heads."""
    found = []
    trace = answers.first
    for row, place in enumerate(answers.places[quantity][:CELLS]):
        path = answers.path(place.cell, quantity)
        columns = thumbnails(trace, path, trace.steps, 0, kind_of(quantity)).columns
        size = -(-columns.shape[1] // POINTS)
        thin = pool(columns.T, size)[0].T  # (head, point)
        name = answers.cells[place.cell] or "cell"
        found += [Panel(row, name, head, line) for head, line in enumerate(thin[:HEADS])]
    return found


def exactness(label: dict) -> str:
    """How far the traced quantities are from the real forward pass."""
    if not label["checked"]:
        return "It is not known how far they are from the real forward pass."
    if label["error"] is None:
        return "They differ from the real forward pass: not every value is a number."
    return f"They differ from the real forward pass by at most {label['error']:.1e}."


def span(panel: Panel, log: bool) -> tuple[str, str, str]:
    """Lowest, mean and highest value of a line."""
    there = panel.line[np.isfinite(panel.line)]
    if not there.size:
        return ("missing",) * 3
    return said(there.min(), log), said(there.mean(), log), said(there.max(), log)


def said(value: float, log: bool) -> str:
    """A value for people."""
    return number(10.0 ** float(value)) if log else number(float(value))


def quantities(count: int) -> str:
    """A count of quantities, whose plural is its own."""
    return "1 quantity" if count == 1 else f"{count} quantities"


def short(cell: str) -> str:
    """The path of a cell, its end where it is long."""
    name = cell.removesuffix(".cell") or cell
    return name if len(name) <= 17 else f"…{name[-16:]}"


def svg(panels: list[Panel], low: float, high: float, words: str) -> str:
    """Small multiples, cells down and heads across, on one scale; the strokes have the page's colour."""
    rows, heads = max(panel.row for panel in panels) + 1, max(panel.head for panel in panels) + 1
    width, height = LEFT + heads * (WIDE + GAP), TOP + rows * (HIGH + GAP)
    parts = [f'<text x="{LEFT + head * (WIDE + GAP)}" y="12">head {head}</text>' for head in range(heads)]
    frames, lines = [], []
    for panel in panels:
        x, y = LEFT + panel.head * (WIDE + GAP), TOP + panel.row * (HIGH + GAP)
        if panel.head == 0:
            parts.append(f'<text x="0" y="{y + HIGH // 2 + 4}">{html.escape(short(panel.cell))}</text>')
        frames.append(f"M{x} {y}h{WIDE}v{HIGH}h-{WIDE}z")
        heights = np.clip((panel.line - low) / ((high - low) or 1.0), 0, 1)
        lines.append(f'<path d="{outline(heights, x, y)}"/>')
    parts.append(f'<g fill="none"><path d="{"".join(frames)}" stroke="#8b8b8b" opacity=".5"/>')
    parts.append(f'<g stroke="{PALETTE[4]}" stroke-width="1.5">{"".join(lines)}</g></g>')
    return (
        f'<svg role="img" aria-label="{html.escape(words, quote=True)}" viewBox="0 0 {width} {height}" width="{width}" '
        f'style="max-width:100%;height:auto;font:12px system-ui,sans-serif" fill="currentColor">{"".join(parts)}</svg>'
    )


def outline(heights: np.ndarray, x: int, y: int) -> str:
    """A line in whole pixels, each relative to the last; with gaps where a height is not a number."""
    path, last = [], None
    for at, height in enumerate(heights):
        if np.isnan(height):
            last = None
            continue
        here = x + int((at + 0.5) * WIDE / len(heights)), round(y + (1 - float(height)) * HIGH)
        if last is None:
            path.append(f"M{here[0]} {here[1]}l0 0")  # a point of its own is seen, too
        else:
            across, down = here[0] - last[0], here[1] - last[1]
            path.append(f" {across}{'' if down < 0 else ' '}{down}")
        last = here
    return "".join(path)
