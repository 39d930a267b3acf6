"""What tracing costs: time beside the forward pass, memory kept and memory at the highest moment, for each family.

Each family runs in a process of its own, whose peak memory is read from the system. A stream is traced to disk in
pieces, to see that memory stays where it is.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from workbench.bench.results import columns
from workbench.models import layouts
from workbench.trace.record import record, stream
from workbench.trace.store import Trace

WIDTH, HEADS, PIECE = 64, 4, 1000
FAMILIES = {
    "lstm": lambda: layouts.LSTMStackConfig(width=WIDTH, layers=1),
    "gru": lambda: layouts.GRUStackConfig(width=WIDTH, layers=1),
    "slstm": lambda: layouts.XLSTMStackConfig(width=WIDTH, layers=1, heads=HEADS, slstm_at=(0,)),
    "mlstm": lambda: layouts.XLSTMStackConfig(width=WIDTH, layers=1, heads=HEADS, slstm_at=()),
    "mlstm_large": lambda: layouts.XLSTMLargeStackConfig(width=WIDTH, layers=1, heads=HEADS),
    "gated_deltanet": lambda: layouts.GatedDeltaStackConfig(width=WIDTH, layers=1, heads=HEADS),
    "rwkv7": lambda: layouts.RWKV7StackConfig(width=WIDTH, layers=1, head_size=WIDTH // HEADS),
    "titans": lambda: layouts.TitansStackConfig(width=WIDTH, layers=1, heads=HEADS),
}


@dataclass(frozen=True)
class Cost:
    """What tracing one block of a family costs, batch 1, width 64, four heads, float32.

    Attributes:
        family: the recurrence.
        steps: length of the sequence.
        forward_ms, traced_ms: without and with a trace, the middle of five, no gradients.
        kept_mb: what the trace holds.
        forward_mb, peak_mb: how far the memory of the process rose, without and with a trace.
        difference: largest difference of the traced output from the real one.
    """

    family: str
    steps: int
    forward_ms: float
    traced_ms: float
    kept_mb: float
    forward_mb: float
    peak_mb: float
    difference: float


@dataclass(frozen=True)
class Streamed:
    """What tracing a long sequence to disk costs.

    Attributes:
        family: the recurrence.
        steps: length of the sequence.
        seconds: for all of it.
        written_mb: on disk.
        growth_mb: rise of the peak memory from the first pieces to the end.
    """

    family: str
    steps: int
    seconds: float
    written_mb: float
    growth_mb: float


def measure(steps: int = 1024, families: list[str] | None = None) -> Iterator[Cost]:
    """The cost of every family, each in a process of its own.

    Raises:
        ValueError: an unknown family.
    """
    for family in known(families):
        yield Cost(**child("cost", family, steps))


def measure_stream(steps: int, families: list[str] | None = None) -> Iterator[Streamed]:
    """The cost of a long stream for every family, each in a process of its own."""
    for family in known(families):
        yield Streamed(**child("stream", family, steps))


def known(families: list[str] | None) -> list[str]:
    """The families asked for, all if none."""
    if unknown := [name for name in families or () if name not in FAMILIES]:
        raise ValueError(f"{', '.join(unknown)} is no family; choose from {', '.join(FAMILIES)}.")
    return list(families or FAMILIES)


def child(what: str, family: str, steps: int) -> dict:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", __name__, what, family, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {family} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def cost(family: str, steps: int) -> Cost:
    """Measure one family in this process, which should be a fresh one."""
    model, x = build(family), torch.randn(1, steps, WIDTH)
    with torch.no_grad():
        trace = traced(model, x)
        kept = sum(tensor.nbytes for tensor in trace.arrays.values()) / 2**20
        error = trace.error
        del trace
        rises = rise(lambda: model(x)), rise(lambda: traced(model, x))
        times = middle(lambda: model(x)), middle(lambda: traced(model, x))
    return Cost(family, steps, *(1000 * seconds for seconds in times), kept, *rises, error)


def traced(model: nn.Module, x: torch.Tensor) -> Trace:
    """Run the model once, and record it."""
    with record(model) as trace:
        model(x)
    return trace


def streamed(family: str, steps: int) -> Streamed:
    """Trace a stream to disk in this process, which should be a fresh one."""
    model, marks, start = build(family), [], time.perf_counter()

    def pieces() -> Iterator[torch.Tensor]:
        early = min(10, -(-steps // PIECE) // 2) * PIECE  # all that is needed once has been allocated
        for at in range(0, steps, PIECE):
            if at == early:
                marks.append(peak_mb())
            yield torch.randn(1, min(PIECE, steps - at), WIDTH)

    with tempfile.TemporaryDirectory() as folder:
        stream(model, pieces(), folder, steps=steps)
        written = sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20
    return Streamed(family, steps, time.perf_counter() - start, written, peak_mb() - marks[0])


def build(family: str) -> nn.Module:
    """The network of a family, from a fixed seed."""
    torch.manual_seed(0)
    return FAMILIES[family]().build()


def middle(call: Callable[[], object], times: int = 5) -> float:
    """The middle of several times that a call takes, in seconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[times // 2]


def rise(call: Callable[[], object]) -> float:
    """How far memory rises while a call runs, in MB; above an earlier peak where that cannot be reset."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    before = peak_mb()
    call()
    return peak_mb() - before


def peak_mb() -> float:
    """The highest memory of this process, since it began or since it was reset."""
    if (status := Path("/proc/self/status")).exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def table(costs: list[Cost], streams: list[Streamed] = ()) -> str:
    """The measurements as text."""
    lines = [["family", "steps", "forward", "traced", "ratio", "kept", "memory, forward", "traced", "difference"]]
    for row in costs:
        times = [f"{row.forward_ms:.1f} ms", f"{row.traced_ms:.1f} ms", f"{row.traced_ms / row.forward_ms:.1f} x"]
        sizes = [f"{row.kept_mb:.1f} MB", f"{row.forward_mb:.1f} MB", f"{row.peak_mb:.1f} MB"]
        lines.append([row.family, f"{row.steps:,}", *times, *sizes, f"{row.difference:.1e}"])
    text = columns(lines)
    if streams:
        lines = [["family", "steps", "seconds", "on disk", "memory grew by"]]
        for row in streams:
            sizes = [f"{row.written_mb:,.0f} MB", f"{row.growth_mb:.1f} MB"]
            lines.append([row.family, f"{row.steps:,}", f"{row.seconds:.0f} s", *sizes])
        text += "\n\n" + columns(lines)
    return text


if __name__ == "__main__":
    what, family, steps = sys.argv[1:]
    print(json.dumps(asdict({"cost": cost, "stream": streamed}[what](family, int(steps)))))
