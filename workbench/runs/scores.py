"""The scores of a run as text: a table with ranks, and what was found."""

import math
from collections.abc import Mapping

SHARES = ("coverage",)  # scores that have no unit


def summary(outputs: Mapping[str, object]) -> str:
    """The table of `outputs["scores"]` and the sentences of `outputs["findings"]`, as far as they are there."""
    scores, findings = outputs.get("scores"), outputs.get("findings")
    parts = [table(scores)] if isinstance(scores, Mapping) and scores else ["The run put out no scores."]
    if isinstance(findings, str):
        findings = [findings]
    if isinstance(findings, list):
        parts.append("\n".join(f"- {sentence}" for sentence in findings))
    return "\n\n".join(part for part in parts if part)


def table(scores: Mapping[str, object]) -> str:
    """Errors per model, best first, ranked by the first error; smaller is better, ties share a rank.

    `scores` maps a model to its errors by name; `scores["unit"]` is their unit. A missing or null error is
    shown as a dash and comes last.
    """
    unit = scores.get("unit") or ""
    models = {name: errors for name, errors in scores.items() if isinstance(errors, Mapping)}
    metrics = list(dict.fromkeys(metric for errors in models.values() for metric in errors))
    if not models or not metrics:
        return "The run put out no scores."
    first = {name: _number(errors.get(metrics[0])) for name, errors in models.items()}
    order = sorted(models, key=lambda name: first[name])
    rows = [
        ["rank", "model", *(metric if metric in SHARES or not unit else f"{metric} [{unit}]" for metric in metrics)]
    ]
    for name in order:
        better = sum(value < first[name] for value in first.values())
        rank = str(better + 1) if math.isfinite(first[name]) else "–"
        rows.append([rank, name, *(_text(models[name].get(metric)) for metric in metrics)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _number(value: object) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    return float(value) if good else math.inf


def _text(value: object) -> str:
    return f"{value:.4g}" if math.isfinite(_number(value)) else "–"
