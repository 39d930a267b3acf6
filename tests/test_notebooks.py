"""Every notebook runs, with tiny parameters and through the engine that users run it with."""

import importlib
import json
from pathlib import Path

import pytest

from workbench.batch.execute import execute
from workbench.runs.literals import assignments

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def params_of(path: Path) -> type:
    """The Params class of the experiment that the notebook names in its metadata."""
    nb = json.loads(path.read_text())
    return importlib.import_module(nb["metadata"]["workbench"]["experiment"]).Params


@each_notebook
def test_the_parameters_cell_equals_the_experiment(path):
    cells = json.loads(path.read_text())["cells"]
    cell = next(cell for cell in cells if cell["cell_type"] == "code")
    Params = params_of(path)
    assert Params(**assignments("".join(cell["source"]))) == Params()
    assert list(assignments("".join(cell["source"]))) == list(Params.model_fields)


@each_notebook
def test_the_notebook_runs(path, tmp_path):
    Params = params_of(path)
    default = Params().model_dump()
    smoke = {name: value for name, value in Params.smoke().model_dump().items() if value != default[name]}
    assert smoke, "a notebook needs parameters that run in seconds"
    run = execute(path, smoke, root=tmp_path)
    status = run.status()
    assert status.state == "ok", status
    assert (run.path / "report.html").stat().st_size > 0
    assert list(run.path.glob("figures/*/figure.json"))
