"""Measurements as text in columns, and as JSON with where they come from."""

import datetime
import json
import os
from importlib import metadata
from pathlib import Path

import torch

from workbench.runs.provenance import commit


def columns(lines: list[list[str]]) -> str:
    """Lines of cells as text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = (zip(line, widths, strict=True) for line in lines)
    return "\n".join("  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in cells)


def write(
    path: str | Path,
    question: str,
    unit: str,
    rows: list,
    *,
    device: str = "cpu",
    packages: tuple[str, ...] = (),
    settings: dict[str, object] | None = None,
) -> None:
    """Write rows as JSON.

    Args:
        path: the file.
        question: the module that measured.
        unit: of the numbers.
        rows: dataclasses.
        device: "cpu" or "cuda", which is written by its name.
        packages: whose versions matter.
        settings: what was set.
    """
    found = {
        "question": question,
        "unit": unit,
        **(settings or {}),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else f"{os.cpu_count()} CPU cores",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit()["commit"],
        "versions": {name: found for name in packages if (found := version(name))},
        "rows": [vars(row) for row in rows],
    }
    Path(path).write_text(json.dumps(found, indent=1) + "\n")


def version(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
