"""What a matrix memory holds: the whole experiment, on the smallest scale, and its words."""

import numpy as np
import pytest

from workbench.experiments import memory
from workbench.experiments.memory import Params
from workbench.runs.folder import Run
from workbench.runs.params import build


def test_run_answers_all_three_parts(tmp_path):
    run = Run.create("test", root=tmp_path)
    params = Params.smoke()
    result = memory.run(params, run)
    assert {"outer product", "delta rule", "mLSTM", "surprise", "chance", "Titans, 10 pairs"} <= set(result.scores)
    assert all(np.isfinite(value) for row in result.scores.values() for value in row.values())
    assert f"squared error {result.scores['outer product']['full']:.2f} by the outer product" in result.findings[0]
    assert "at a chance of 0.33" in result.findings[1]
    assert len(result.findings) == 5
    assert sorted(path.name for path in run.checkpoints.iterdir())[-2:] == ["waves-0", "waves-1"]


def test_the_store_has_theory_for_the_rules_that_have_one():
    measured, expected = memory.store(Params.smoke())
    assert list(measured) == ["outer product", "mLSTM", "delta rule", "delta rule, 8 passes"]
    assert list(expected) == ["outer product", "delta rule", "best matrix"]
    assert {rows.shape for rows in measured.values()} == {(16, 6)}
    assert expected["outer product"].tolist() == pytest.approx([(n - 1) / 8 for n in Params.smoke().loads])
    assert expected["best matrix"][-1] == pytest.approx(1 - 8 / 32)


def test_an_overfull_memory_has_theory_for_every_age_that_is_shown():
    ages, measured, expected = memory.overfull(Params.smoke().model_copy(update={"sets": 100}))
    assert ages == [0, 1, 2, 4, 8, 16]
    assert list(measured) == list(expected) == ["outer product", "outer product, keep 0.9", "delta rule"]
    for name, errors in measured.items():
        assert errors.shape == (400, 6)
        np.testing.assert_allclose(errors.mean(0), expected[name], rtol=0.2, atol=1e-12)


@pytest.mark.parametrize("loads", [(1,), (4, 2), (2, 2), (0, 1)])
def test_loads_that_do_not_rise_are_refused(loads):
    with pytest.raises(ValueError, match="must be two or more numbers of pairs, each larger than the last"):
        build(Params, {"loads": loads})


def test_presets_are_valid_and_differ():
    assert Params.smoke() != Params() != Params.paper()
    assert Params().fit(400, 32).evaluate_every == 100
