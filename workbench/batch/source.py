"""A notebook before it runs: its parameters, its cells as a person counts them, its own estimate of its time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.runs.literals import assignments, literal
from workbench.runs.params import refuse_unknown
from workbench.runs.provenance import sha256

_DESCRIPTION = "papermill_description="


@dataclass(frozen=True)
class Source:
    """A notebook on disk, read and checked: `defaults` are what its parameters cell assigns."""

    path: Path
    nb: object
    defaults: dict[str, object]

    @property
    def minutes(self) -> float | None:
        """How long the notebook says it takes with its own parameters (`metadata.workbench.minutes`)."""
        minutes = self.nb.metadata.get("workbench", {}).get("minutes")
        return minutes if isinstance(minutes, (int, float)) else None

    def describe(self) -> dict[str, str]:
        """What `run.json` keeps of the notebook."""
        return {"path": str(self.path), "name": self.path.name, "sha256": sha256(self.path)}


def read_source(path: str | Path) -> Source:
    """Read a notebook; a ValueError says what is missing when it cannot be run with parameters."""
    import nbformat

    path = Path(path).expanduser()
    if not path.is_file():
        folder = path.parent
        near = sorted(item.name for item in folder.glob("*.ipynb")) if folder.is_dir() else []
        beside = f" In {folder}: {', '.join(near)}." if near else ""
        raise ValueError(f"No notebook {path}.{beside}")
    try:
        nb = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is not a notebook: {str(error).splitlines()[0]}") from None
    cell = next((cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", [])), None)
    if cell is None:
        raise ValueError(
            f"{path} has no parameters cell; tag its first code cell `parameters` (in JupyterLab: "
            f"property inspector, Cell Tags), and assign one literal to each name there."
        )
    defaults = assignments(cell.source)
    if defaults is None:
        raise ValueError(f"The parameters cell of {path} must only assign literals: numbers, text, lists, dicts.")
    return Source(path.resolve(), nb, defaults)


def checked_parameters(source: Source, parameters: Mapping[str, object]) -> dict[str, object]:
    """The parameters in plain Python types, or a ValueError for one that the notebook does not have."""
    refuse_unknown(parameters, source.defaults, f"parameter of {source.path.name}")
    return {name: _plain(value, name) for name, value in parameters.items()}


def typed(text: str, default: object) -> object:
    """A value from the command line, in the type that the parameter's default suggests.

    A parameter whose default is text keeps its text ("007" stays "007"); any other is read as a Python or
    JSON literal where it is one.
    """
    import ast

    if isinstance(default, str):
        return text
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value = literal(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError):
        value = text
    if isinstance(value, str) and isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            return text
    if isinstance(default, int) and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e3 epochs
    return value


def is_counted(cell: Mapping) -> bool:
    """Whether a person counts this cell: it holds code, and it was not injected."""
    injected = "injected-parameters" in cell["metadata"].get("tags", [])
    return cell["cell_type"] == "code" and bool(cell["source"].strip()) and not injected


def title(nb: Mapping, index: int) -> str:
    """What a cell is about: its `# papermill_description=` comment, or the nearest heading above it.

    The second cell of the same title is called "Heading (2)".
    """
    named, cells = _heading(nb, index), nb["cells"]
    before = sum(is_counted(cell) and _heading(nb, place) == named for place, cell in enumerate(cells[:index]))
    return f"{named} ({before + 1})" if before else named


def _heading(nb: Mapping, index: int) -> str:
    cells = nb["cells"]
    for line in cells[index]["source"].splitlines():
        if _DESCRIPTION in line:
            return line.split(_DESCRIPTION)[1].strip().replace("_", " ")
    for cell in reversed(cells[:index]):
        if cell["cell_type"] == "markdown":
            headings = [line.lstrip("# ").strip() for line in cell["source"].splitlines() if line.startswith("#")]
            if headings:
                return headings[-1]
    return "Code"


def _plain(value: object, name: str) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # NumPy arrays and scalars
        value = value.tolist()
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else value
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, name) for key, item in value.items()}
    raise ValueError(
        f"{name}={value!r} is a {type(value).__name__}, which a notebook cannot be given; "
        f"pass numbers, text, None, or lists and dicts of them."
    )
