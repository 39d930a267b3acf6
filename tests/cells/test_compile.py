"""Every cell is one graph: torch.compile without a break and torch.export give what eager gives."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.cells.table import CELLS

ALIKE = {
    "mlstm_large-sigmoid",
    "gated_delta-negative",
    "titans-linear-spans",
    "titans-mlp-spans",
}  # another number only
GRAPHS = [kind for kind in CELLS if kind not in ALIKE]


def differences(root, how, kinds):
    """What tests/cells/compiled.py finds, by kind."""
    command = [sys.executable, "-m", "tests.cells.compiled", how, *kinds]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert answer.returncode == 0, answer.stdout + answer.stderr[-4000:]
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line.pop("kind") for line in lines] == list(kinds)
    return dict(zip(kinds, lines, strict=True))


@pytest.mark.parametrize(("how", "kinds"), [("aot_eager", GRAPHS), ("without-lengths", ["lstm", "gru"])])
def test_one_graph_without_breaks_gives_values_and_gradients_of_eager(root, how, kinds):
    for kind, found in differences(root, how, kinds).items():
        assert set(found) == {"values", "gradients"}
        assert all(difference <= 1e-12 for difference in found.values()), (kind, found)


def test_an_exported_program_takes_and_returns_states_as_eager_does(root):
    for kind, found in differences(root, "export", GRAPHS).items():
        assert set(found) == {"empty", "carried"}
        assert all(difference <= 1e-12 for difference in found.values()), (kind, found)


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler, which inductor calls")
def test_generated_code_gives_values_and_gradients_of_eager(root):
    for kind, found in differences(root, "inductor", ["gru"]).items():
        assert all(difference <= 1e-12 for difference in found.values()), (kind, found)
