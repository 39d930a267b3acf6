"""A mistyped or impossible parameter is refused, with the closest name and the rule."""

import subprocess
import sys
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from workbench.runs import current
from workbench.runs.literals import assignments
from workbench.runs.params import Params, Search, build, params


class Small(Params):
    """Parameters of a test."""

    epochs: Annotated[int, Field(ge=1)] = 3
    rate: Annotated[float, Search(1e-4, 1e-2, log=True)] = 1e-3
    name: str = "a"


@pytest.fixture(autouse=True)
def no_run(monkeypatch):
    monkeypatch.setattr(current, "_process", current._Process())


def test_params_are_frozen_and_closed():
    with pytest.raises(ValidationError):
        Small().epochs = 4
    with pytest.raises(ValidationError):
        Small(epoch=4)
    assert Small.smoke() == Small.paper() == Small()


def test_values_come_from_the_namespace_and_defaults():
    assert params({"epochs": 7, "_private": 1, "module": sys}, Small) == Small(epochs=7)


def test_unknown_name_is_refused_with_the_closest():
    with pytest.raises(
        ValueError, match=r"Unknown parameter 'epoch'; did you mean 'epochs'\? Known: epochs, rate, name"
    ):
        params({"epoch": 7}, Small)


def test_each_broken_rule_is_told_with_field_and_value():
    with pytest.raises(
        ValueError, match=r"epochs=0: should be greater than or equal to 1; rate='x': should be a valid num"
    ):
        build(Small, {"epochs": 0, "rate": "x"})


def test_an_interactive_notebook_creates_nothing_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params({"epochs": 7}, Small)
    assert list(tmp_path.iterdir()) == []


HISTORY = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from workbench.runs.params import Params, params\\nclass P(Params):\\n    epochs: int = 1")
for cell in sys.argv[1:]:
    result = shell.run_cell(cell, store_history=True)
    error = result.error_before_exec or result.error_in_exec
print("ERROR:", error)
"""
CALL = "found = params(globals(), P); print('epochs', found.epochs)"


def in_ipython(tmp_path, *cells: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", HISTORY, *cells], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    return answer.stdout


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["epochs = 2", CALL], "epochs 2"),
        (["epochs = 2", "epochs = 5  # injected", CALL], "epochs 5"),
        (["other = [1][0]", "epochs = 2", CALL], "epochs 2"),  # no cell of literals: not a parameter
        (["epochs = 2\nepohcs: int = 3", CALL], "did you mean 'epochs'"),
        (["epochs = 2", "# Parameters\nwidth = float('nan')", CALL], "Unknown parameter 'width'"),
        (["epohcs = 6 * 10\nepochs = 2", CALL], "did you mean 'epochs'"),
        (["epochs = 2\nepohcs = 3", "1 + 1", CALL], "did you mean 'epochs'"),  # another cell between
        (["epochs = 2\nepohcs = 3", CALL, "epochs = 4", CALL], "epochs 4"),  # mended, and run again
        (["epochs = 2", CALL, "width = 3", CALL], "epochs 2\nepochs 2"),  # a name of one's own, later
        (["epohcs = 2", "1 + 1", CALL], "did you mean 'epochs'"),  # nothing known in it
        (["epochs = 2\n_note = 'x'", CALL], "epochs 2"),
    ],
)
def test_in_a_notebook_the_cells_of_literals_before_are_checked(tmp_path, cells, said):
    assert said in in_ipython(tmp_path, *cells)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a = 1\nb: float = -2.5  # why", {"a": 1, "b": -2.5}),
        ("import os\na = [1, (2, 'x')]", {"a": [1, (2, "x")]}),
        ("a = {'k': None}\n'''words'''", {"a": {"k": None}}),
        ("a = float('inf')", {"a": float("inf")}),
        ("a = b = True", {"a": True, "b": True}),
        ("a = 4 * 2", None),
        ("a, b = 1, 2", None),
        ("print(1)", None),
        ("a = ", None),
    ],
)
def test_literal_assignments(source, found):
    assert assignments(source) == found


@pytest.mark.parametrize("wrong", [{}, {"low": 1}, {"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}])
def test_impossible_search_is_refused(wrong):
    with pytest.raises(ValueError, match="Search"):
        Search(**wrong)
    assert Search(choices=["a", "b"]).choices == ("a", "b")
