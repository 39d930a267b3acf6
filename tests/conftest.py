"""What holds for every test: shapes are checked, memory starts as NaN, seeds are set, missing tools are failures."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: parallel workers, and the processes that they start, share the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_NEIGHBOUR = Path(__file__).resolve().parents[2] / "shared" / "data"
if _NEIGHBOUR.is_dir():
    os.environ.setdefault("WORKBENCH_DATA", str(_NEIGHBOUR))

import jaxtyping  # noqa: E402  (the environment comes first)
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

_CHECKED = ("kernels", "cells", "models", "data", "training", "trace", "experiments")
jaxtyping.install_import_hook([f"workbench.{folder}" for folder in _CHECKED], "beartype.beartype")

_MISSING = ("needs ", "could not import ")


def pytest_configure() -> None:
    """Make torch repeatable, and every uninitialised tensor NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random numbers."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (libraries under test may still use it)
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations go unchecked, as they do for a user: for tests of our own errors at the door."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With CI=true, a test skipped because a tool is missing ("needs ...") fails."""
    return _without_excuse((yield), call)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """The same for a whole file."""
    report = yield
    return _without_excuse(report, getattr(report, "call", None))


def _without_excuse(report, call):
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = str(call.excinfo.value) if call and call.excinfo else str(report.longrepr[2])
    reason = reason.removeprefix("Skipped: ")
    if reason.startswith(_MISSING):
        report.outcome = "failed"
        report.longrepr = f"With CI=true nothing may be missing, and this test was skipped: {reason}"
    return report
