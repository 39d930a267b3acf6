"""The measured errors are those of the forms: small for ours, and seen where something is wrong."""

import json
import math

import pytest
import torch

from workbench.bench import results
from workbench.bench.exact import CASES, DTYPES, Row, errors, forgiven, measure, prepare, relative, save, table
from workbench.bench.peers import MLSTM_KERNELS, peers
from workbench.kernels.catalogue import TABLES
from workbench.kernels.mlstm import MLSTMState, mlstm

BOUNDS = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 1e-2}


def test_every_recurrence_is_measured():
    assert CASES.keys() == TABLES.keys()


@pytest.mark.parametrize("name", CASES)
def test_our_forms_stay_within_the_contract(name):
    rows = [row for row in measure(64, names=[name]) if row.form in TABLES[name].rows]
    assert {row.form for row in rows} == TABLES[name].rows.keys()
    assert {row.dtype for row in rows} == DTYPES.keys()
    for row in rows:
        assert max(row.values, row.gradients, row.carried) < BOUNDS[row.dtype], row


def wrong(change):
    """Errors of an mLSTM that is changed."""
    return errors(change, prepare(CASES["mlstm"], torch.float64, 64, "cpu"))


def test_a_wrong_output_is_seen():
    values, _, _ = wrong(lambda *a: (mlstm(*a)[0] * 1.01, mlstm(*a)[1]))
    assert values == pytest.approx(0.01, rel=0.1)


def test_a_state_that_passes_no_gradient_is_seen():
    def cut(*inputs):
        y, state = mlstm(*inputs)
        return y, MLSTMState(*(x.detach() for x in state))

    values, gradients, carried = wrong(cut)
    assert max(values, gradients) < 1e-12
    assert carried > 0.01


def test_what_another_package_refuses_is_left_open():
    def refuses(*inputs):
        raise NotImplementedError("no state")

    assert wrong(forgiven(refuses)) == (None, None, None)
    assert wrong(forgiven(lambda *a: refuses() if a[-1] else mlstm(*a)))[2] is None


def test_nan_counts_as_infinitely_wrong():
    assert relative(torch.tensor([math.nan]), torch.ones(1).double()) == math.inf


def test_official_kernels_are_measured_on_the_same_inputs():
    pytest.importorskip("mlstm_kernels")
    assert set(peers("mlstm")) == {f"mlstm_kernels {name}" for name in MLSTM_KERNELS}
    rows = {(row.form, row.dtype): row for row in measure(64, names=["mlstm"])}
    right = rows["mlstm_kernels chunkwise--native_autograd", "float64"]
    assert max(right.values, right.gradients, right.carried) < 1e-10
    assert rows["mlstm_kernels chunkwise--native_custbw", "float32"].carried > 0.1


def test_unknown_recurrences_lengths_and_devices_are_refused():
    with pytest.raises(ValueError, match="recurrence foo is unknown; choose from lstm"):
        next(measure(names=["foo"]))
    with pytest.raises(ValueError, match="steps=100 must be a positive multiple of 64; try 128"):
        next(measure(100))
    with pytest.raises(ValueError, match=r"device=.gpu. cannot be used here: .*; try --device cpu"):
        next(measure(device="gpu"))


def test_table_and_file(tmp_path):
    rows = [Row("mlstm", "parallel", "float64", 1e-15, None, 0.0)]
    assert table(rows).splitlines()[1].split() == ["mlstm", "parallel", "float64", "1.0e-15", "-", "0.0e+00"]
    save(tmp_path / "rows.json", rows, 64, "cpu")
    found = json.loads((tmp_path / "rows.json").read_text())
    assert found["rows"] == [vars(rows[0])]
    assert found["versions"]["torch"] == results.version("torch")
