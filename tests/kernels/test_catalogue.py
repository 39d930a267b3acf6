"""The catalogue lists every table of forms there is, and what its rows say can be held to."""

import re
from pathlib import Path

import pytest
import torch

import workbench.kernels
from workbench.kernels.backends import load
from workbench.kernels.catalogue import TABLES, describe

KERNELS = Path(workbench.kernels.__file__).parent


def test_no_table_is_left_out():
    source = "".join(path.read_text() for path in KERNELS.glob("*/__init__.py"))
    assert len(TABLES) == len(re.findall(r"BACKENDS = Backends\(", source))


def test_every_form_can_be_imported():
    assert all(callable(load(row.path)) for table in TABLES.values() for row in table.rows.values())


def test_every_recurrence_has_a_reference_that_takes_all():
    for table in TABLES.values():
        *_, (name, last) = table.rows.items()
        assert name == "reference"
        assert not last.limits


def test_a_form_that_can_refuse_says_its_limits():
    inputs = torch.zeros(4, 1, 2, 1, 1), torch.zeros(4, 2, 1, 1)
    for table in TABLES.values():
        for row in table.rows.values():
            if table.recurrence in ("lstm", "gru"):
                assert bool(row.refuse(*inputs)) == bool(row.limits)


def test_rows_name_what_a_person_asks():
    rows = describe(["mlstm", "lstm"])
    assert [row["form"] for row in rows] == ["chunkwise", "parallel", "reference", "fused", "reference"]
    assert set(rows[0]) == {"recurrence", "form", "devices", "widest", "needs", "limits", "gradients", "auto"}
    with pytest.raises(ValueError, match="recurrence hopfield is unknown; choose from lstm, gru"):
        describe(["hopfield"])
