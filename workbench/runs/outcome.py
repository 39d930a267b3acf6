"""What an ending means: from the error of a cell, or the death of a kernel, to a state with a hint."""

import re
import signal
from dataclasses import dataclass

from workbench.runs.status import Failure, State

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TRACEBACK_LINES = 12
_MEMORY_NAMES = {"MemoryError", "_ArrayMemoryError", "ArrayMemoryError", "OutOfMemoryError"}
_MEMORY_TEXTS = ("can't allocate memory", "CUDA out of memory", "not enough memory", "std::bad_alloc")
_HINTS = {
    "ModuleNotFoundError": "Install it into the environment of this kernel, or run `workbench doctor`.",
    "FileNotFoundError": "Paths are relative to the folder where the run was started; check the path.",
    "NameError": "The notebook may rely on a cell that was run by hand or out of order.",
    "MemoryError": "Use a smaller batch, model or window, or give a larger --memory-limit.",
    "Diverged": "Lower the learning rate, clip gradients more tightly, or warm up for longer.",
    "SystemExit": "A notebook ends with its last cell; take the exit out.",
    "KeyboardInterrupt": "Start again from its checkpoints with `workbench run --from RUN`.",
}


@dataclass(frozen=True)
class Outcome:
    """How a notebook ended: the fields of a Status that the ending decides."""

    state: State
    error: Failure | None = None
    exit_signal: int | None = None


def from_cell_error(name: str, value: str, traceback: list[str], cells_left: int) -> Outcome:
    """The ending by an error that a cell raised."""
    value, short = _clean(value), shorten(traceback)
    if name in _MEMORY_NAMES or (name == "RuntimeError" and any(text in value for text in _MEMORY_TEXTS)):
        return Outcome("oom", Failure(name=name, value=value, traceback=short, hint=_HINTS["MemoryError"]))
    if name == "SystemExit":
        value = f"sys.exit({value}) ended the notebook and left {cells_left} cells unexecuted"
    state = {"Diverged": "diverged", "Pruned": "pruned"}.get(name, "failed")
    return Outcome(state, Failure(name=name, value=value, traceback=short, hint=_HINTS.get(name, "")))


def from_dead_kernel(returncode: int | None, oom_kills_rose: bool, log: str) -> Outcome:
    """The ending by the death of the kernel; `log` is the end of what it wrote to its own standard error."""
    number = -returncode if returncode is not None and returncode < 0 else None
    if number is None:
        value = f"the kernel left with exit code {returncode}"
        return Outcome("failed", Failure(name="KernelExit", value=value, traceback=log))
    name = signal.Signals(number).name
    if number == signal.SIGKILL and oom_kills_rose:
        value = "the system killed the kernel because memory ran out"
        return Outcome("oom", Failure(name="OutOfMemory", value=value, hint=_HINTS["MemoryError"]), number)
    hint = "Someone, or the system, killed the kernel." if number == signal.SIGKILL else ""
    return Outcome(
        "killed", Failure(name=name, value=f"the kernel was killed by {name}", traceback=log, hint=hint), number
    )


def from_stop(reason: State, value: str, traceback: list[str] = (), run: str = "RUN") -> Outcome:
    """The ending that we brought about ourselves, interrupted or timeout; `run` names the run's folder."""
    name = "KeyboardInterrupt" if reason == "interrupted" else "CellTimeout"
    hint = (
        _HINTS["KeyboardInterrupt"]
        if reason == "interrupted"
        else "Give a larger --cell-timeout, or go on from the checkpoints with `workbench run --from RUN`."
    ).replace("RUN", run)
    return Outcome(reason, Failure(name=name, value=value, traceback=shorten(traceback), hint=hint))


def shorten(traceback: list[str]) -> str:
    """The end of a traceback, without colours."""
    lines = _clean("\n".join(traceback)).splitlines()
    return "\n".join(["…", *lines[-_TRACEBACK_LINES:]] if len(lines) > _TRACEBACK_LINES else lines)


def _clean(text: str) -> str:
    return _ANSI.sub("", text)
