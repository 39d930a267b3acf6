"""The house rules that a machine can hold: floors, sizes, docstrings, light imports, stripped notebooks."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.runs.literals import assignments

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "workbench").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The first makes growth a decision: eight recurrences with their layers had 15,000 lines; the trace, its plots, the
# scope and the questions of four notebooks brought it to 25,000; batches, searches, training on several processes and
# comparisons to 30,000.
PACKAGE_LINES, FILE_LINES, FUNCTION_LINES, TRITON_LINES = 30_000, 400, 60, 120
EXECUTED = "metadata.papermill cell.metadata.papermill"  # what a run leaves behind, besides outputs and counts
CELL_LINES, WORDS_PER_LINE = 25, 5
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
LIGHT = ("kernels", "data", "runs", "cells", "models", "training", "trace", "experiments")  # plots are plotly's
HEAVY = ("polars", "duckdb", "xarray", "pandas", "plotly", "pooch", "optuna", "papermill", "nbformat")
HEAVY += ("IPython", "ipywidgets", "kaleido", "matplotlib", "xlstm", "jaxtyping")
DEVICES = {"triton", "mlx", "mps"}  # forms that only their own device can import


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def python(code: str) -> str:
    """What this program prints in a Python of its own."""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def defined(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every function and class of a file, methods included, nested functions not, with its dotted name."""

    def below(parent: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield prefix + node.name, node
            if isinstance(node, (ast.ClassDef, ast.If, ast.Try)):
                yield from below(node, prefix + (node.name + "." if isinstance(node, ast.ClassDef) else ""))

    return below(ast.parse(path.read_text()), "")


def test_files_import_from_lower_floors_only():
    done = run(str(Path(sys.executable).with_name("lint-imports")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_has_nothing_to_say(command):
    done = run(sys.executable, "-m", "ruff", *command, ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_sizes_stay_below_the_ceilings():
    lines = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert [f"{path}: {count} lines" for path, count in lines.items() if count > FILE_LINES] == []
    assert sum(lines.values()) <= PACKAGE_LINES


def test_functions_fit_on_a_screen():
    long = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                triton = any("triton" in ast.unparse(decorator) for decorator in node.decorator_list)
                ceiling = TRITON_LINES if triton else FUNCTION_LINES
                if (size := node.end_lineno - node.lineno + 1) > ceiling:
                    long.append(f"{path}: {node.name} has {size} lines")
    assert long == []


def test_names_say_something():
    assert [str(path) for path in MODULES if {path.stem, path.parent.name} & VAGUE] == []


def test_public_things_have_docstrings():
    bare = [str(path) for path in MODULES if not begins_with_a_sentence(ast.parse(path.read_text()))]
    for path in MODULES:
        for name, node in defined(path):
            if not any(part.startswith("_") for part in name.split(".")) and not begins_with_a_sentence(node):
                bare.append(f"{path}:{node.lineno} {name}")
    assert bare == []


def begins_with_a_sentence(node: ast.AST) -> bool:
    first = (ast.get_docstring(node) or "").partition("\n")[0]
    return first.endswith((".", "?", ":"))


def test_import_and_help_do_not_load_torch():
    assert python("import sys, workbench; print('torch' in sys.modules)") == "False\n"
    help = "import sys\nfrom workbench.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
    assert python(help + "print('torch' in sys.modules)").endswith("False\n")


def test_a_machine_that_only_computes_can_import_every_experiment():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    names = [name for name in names if name.split(".")[1:2] in [[floor] for floor in LIGHT]]
    names = [name for name in names if name.rpartition(".")[2] not in DEVICES]
    python(
        "import importlib, sys\n"
        f"for name in {HEAVY}:\n"
        "    sys.modules[name] = None\n"  # makes its import fail
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
    )


def test_there_is_a_first_notebook():
    assert (ROOT / "notebooks" / "00_start_here.ipynb") in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped(path):
    nb = json.loads(path.read_text())
    code = [cell for cell in nb["cells"] if cell["cell_type"] == "code"]
    assert nb["metadata"]["kernelspec"]["name"] == "python3"
    done = run(sys.executable, "-m", "nbstripout", "--verify", "--keep-id", "--extra-keys", EXECUTED, str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "parameters" in code[0]["metadata"]["tags"]
    parameters = "".join(code[0]["source"])
    assert assignments(parameters), "the first code cell assigns literals and does nothing else"
    assert "import" not in parameters


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_essays(path):
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
    code = [source for kind, source in cells if kind == "code"]
    assert [source for source in code if len(source.splitlines()) > CELL_LINES] == []
    plain = ("\n".join(line for line in source.splitlines() if not line.startswith(("%", "!"))) for source in code)
    nodes = [type(node) for source in plain for node in ast.walk(ast.parse(source))]
    assert nodes.count(ast.FunctionDef) <= 2
    assert ast.ClassDef not in nodes
    words = sum(len(source.split()) for kind, source in cells if kind == "markdown")
    lines = sum(bool(line.strip()) for source in code for line in source.splitlines())
    assert words >= WORDS_PER_LINE * lines, f"{words} words for {lines} lines of code"
