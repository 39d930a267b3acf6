"""The kernel child: started from this interpreter, over private sockets, and never outliving its parent."""

import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workbench.runs.current import attach
from workbench.runs.files import read_json, write_json
from workbench.runs.provenance import process_start, this_process

_LONGEST_SOCKET_FOLDER = 80  # a Unix socket's path ends at about 104 characters
_PR_SET_PDEATHSIG = 1


@contextmanager
def kernel_manager() -> Iterator[object]:
    """A kernel manager for this interpreter, whatever kernelspecs are installed.

    It speaks over IPC sockets in a folder of its own: TCP ports are raced for by kernels that start together.
    The folder (`manager.folder`) is gone afterwards; what a killed parent left, the next one sweeps away.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class InterpreterKernel(AsyncKernelManager):
        """Starts `sys.executable -m ipykernel_launcher`."""

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python (workbench)", language="python")

    root = tempfile.gettempdir()
    root = Path(root if len(root) < _LONGEST_SOCKET_FOLDER else "/tmp")
    _sweep(root)
    folder = Path(tempfile.mkdtemp(prefix="wb-kernel-", dir=root))
    write_json(folder / "owner.json", this_process())
    try:
        manager = InterpreterKernel(transport="ipc", ip=f"{folder}/k", connection_file=f"{folder}/kernel.json")
        manager.folder = folder
        yield manager
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    here = platform.node()
    for owner in root.glob("wb-kernel-*/owner.json"):
        with suppress(OSError, ValueError, KeyError):  # another user's, or gone meanwhile
            process = read_json(owner)
            if process["host"] == here and process_start(process["pid"]) != process["process_start"]:
                shutil.rmtree(owner.parent, ignore_errors=True)


def preamble(path: Path | None, memory_limit: int | None) -> str:
    """The code that a kernel runs, unseen, before the first cell: it leaves no names behind."""
    arguments = f"{str(path) if path else None!r}, parent={os.getpid()}, memory_limit={memory_limit!r}"
    return f"__import__('workbench.batch.kernel', fromlist=['begin']).begin({arguments})"


def begin(path: str | None, *, parent: int, memory_limit: int | None) -> None:
    """In the kernel: die with the parent, keep to the memory limit (bytes of data), attach the run."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be watched
            os._exit(1)
    hold_memory(memory_limit)
    if path is not None:
        attach(path)


def hold_memory(limit: int | None) -> None:
    """Let this process hold so many bytes of data and no more, where the system can; None is no limit."""
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def install_kernelspec() -> None:
    """Register this interpreter with Jupyter as "Python (workbench)", unless it is registered already."""
    import json

    from ipykernel.kernelspec import install

    spec = Path(sys.prefix, "share", "jupyter", "kernels", "workbench", "kernel.json")
    if spec.exists() and json.loads(spec.read_text())["argv"][0] == sys.executable:
        return
    install(prefix=sys.prefix, kernel_name="workbench", display_name="Python (workbench)")
