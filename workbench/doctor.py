"""`workbench doctor`: what this installation has, what it lacks, and what to do about it."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("jupyterlab", "ipywidgets", "plotly", "optuna", "papermill")  # torch and xlstm have lines of their own
DEMO = ("papermill", "nbclient", "nbformat", "ipykernel", "plotly", "polars", "xarray", "psutil", "mistune")
DEMO += ("pygments", "latex2mathml", "tqdm", "safetensors", "pydantic", "numpy")  # it imports these, and torch
COMPILERS = ("cc", "gcc", "clang")
INSTALL = "run `make run` in the project's folder, or: pip install -c constraints.txt -e '.[lab,nxai]'"


class Finding(NamedTuple):
    """One line of the table.

    Attributes:
        subject: what was looked at.
        found: what was seen.
        advice: what to do; empty when all is well.
        fatal: whether the demo cannot work without it.
    """

    subject: str
    found: str
    advice: str = ""
    fatal: bool = False


def main() -> int:
    """Print the table and a closing sentence; 1 when something that the demo needs is missing, else 0."""
    findings = list(examine())
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = "ok" if not finding.advice else "MISSING" if finding.fatal else "note"
        print(f"{mark:8}{finding.subject:{width}}  {finding.found}")
        if finding.advice:
            print(f"{'':8}{'':{width}}  → {finding.advice}")
    fatal = [finding.subject for finding in findings if finding.fatal and finding.advice]
    notes = sum(bool(finding.advice) for finding in findings) - len(fatal)
    print()
    if fatal:
        print(f"Not ready: {', '.join(fatal)}. Follow the arrows, then run `workbench doctor` again.")
        return 1
    print("Ready: `workbench demo` can run." + (f" Notes: {notes}, none of them in its way." if notes else ""))
    return 0


def examine() -> Iterator[Finding]:
    """Every finding, in the order of the table."""
    yield Finding("Python", f"{platform.python_version()} at {sys.executable}")
    yield from look_at_torch()
    for name in PACKAGES:
        yield look_at_package(name)
    yield look_at_xlstm()
    others = map(look_at_package, (name for name in DEMO if name not in PACKAGES))
    yield from (found for found in others if found.advice)
    yield look_at_kernel()
    yield look_at_browser()
    yield look_at_compiler()
    yield look_at_runs(Path("runs"))
    yield from look_at_data()


def look_at_torch() -> Iterator[Finding]:
    """torch with its threads, and the GPU."""
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", "not installed", INSTALL, fatal=True)
        return
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    slow = f"unset OMP_NUM_THREADS, or set it to {cores}: one thread per core" if threads > cores else ""
    yield Finding("torch", f"{torch.__version__}, {threads} threads on {cores} cores", slow)
    if torch.cuda.is_available():
        yield Finding("GPU", torch.cuda.get_device_name())
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "Apple (mps)")
    else:
        yield Finding("GPU", "none; everything here runs on the CPU")


def look_at_package(name: str) -> Finding:
    """The version of an installed package, or how to get it; fatal where the demo imports it."""
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", INSTALL, fatal=name in DEMO)


def look_at_xlstm() -> Finding:
    """The official xLSTM package, which nothing here depends on."""
    found = look_at_package("xlstm")
    if not found.advice:
        return found
    return Finding("xlstm", "not installed", "only for comparisons with the official package: pip install xlstm")


def look_at_kernel() -> Finding:
    """Whether JupyterLab's kernel `workbench` is this Python."""
    subject, advice = "Jupyter kernel", "`workbench lab` registers it"
    if importlib.util.find_spec("jupyter_client") is None:
        return Finding(subject, "jupyter_client is not installed", INSTALL)
    from jupyter_client.kernelspec import KernelSpecManager

    folder = KernelSpecManager().find_kernel_specs().get("workbench")
    if folder is None:
        return Finding(subject, "`workbench` is not registered yet", advice)
    python = json.loads(Path(folder, "kernel.json").read_text())["argv"][0]
    if python != sys.executable:
        return Finding(subject, f"`workbench` is another Python: {python}", advice)
    return Finding(subject, f"`workbench`, in {folder}")


def look_at_browser() -> Finding:
    """The browser that paints figures as PNG."""
    subject, advice = "Browser", "install chromium or Chrome, or set BROWSER_PATH; only PNG files need it"
    if importlib.util.find_spec("choreographer") is None:
        return Finding(subject, "kaleido is not installed", INSTALL)
    from choreographer.browsers.chromium import Chromium

    from workbench.batch.pictures import BROWSERS

    path = Chromium.find_browser(skip_local=False) or next(filter(None, map(shutil.which, BROWSERS)), None)
    return Finding(subject, str(path)) if path else Finding(subject, "none found", advice)


def look_at_compiler() -> Finding:
    """The C compiler that `torch.compile` and compiled kernels use."""
    path = next(filter(None, map(shutil.which, COMPILERS)), None)
    if path:
        return Finding("C compiler", path)
    return Finding("C compiler", "none", "only for torch.compile: apt install gcc, or xcode-select --install")


def look_at_runs(runs: Path) -> Finding:
    """Whether run folders can be written."""
    folder = runs if runs.exists() else runs.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        advice = f"change to a folder of yours, or: chmod u+w {folder.resolve()}"
        return Finding("Run folders", f"{runs.resolve()} cannot be written: {problem.strerror}", advice, fatal=True)
    free = shutil.disk_usage(folder).free / 1e9
    advice = "free some space; a run takes some 10 MB" if free < 1 else ""
    return Finding("Run folders", f"{runs.resolve()}, {free:.1f} GB free", advice)


def look_at_data() -> Iterator[Finding]:
    """Each data set that ships with the project: there, and with the right bytes."""
    from workbench.data.registry import DATASETS, fetch

    for name, dataset in DATASETS.items():
        if dataset.url is not None:
            continue  # downloaded when it is asked for
        try:
            path = fetch(name)
        except (FileNotFoundError, ValueError) as problem:
            yield Finding(f"Data: {name}", "missing or changed", str(problem).replace("\n", " "), fatal=True)
        else:
            yield Finding(f"Data: {name}", f"{path}, checksum right")
