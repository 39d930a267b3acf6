"""Gates through training: the same few inputs, traced again and again while a model learns."""

import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from workbench.runs.folder import Run
from workbench.trace.record import record
from workbench.trace.store import CARD, Trace

GATES = ("*.forget", "*.input", "*.write_strength", "*.half_life", "*.surprise")
STEM = "probe-"


class Probe:
    """An observer of `fit` that traces a fixed batch, at every look or every so many, and when it is asked to.

    The training goes on as if nobody had looked: same weights, same random numbers, same modes of the modules.
    Each trace goes to `traces/[label/]probe-<step>/` of the run, whole or not at all. Call `probe(0)` before the
    training for the gates of the fresh model.

    Args:
        model: any module with cells below it.
        inputs: what `model(*inputs)` takes; a tensor is the only one. They are copied.
        run: whose folder the traces go to.
        every: looks at the validation data between two probes.
        names: what to keep, as patterns, see `workbench.trace.record.record`.
        label: tells the probes of several trainings of one run apart.

    Raises:
        ValueError: every is less than 1, or the label is no name of a folder.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor | Sequence[Tensor | None],
        run: Run,
        *,
        every: int = 1,
        names: Iterable[str] = GATES,
        label: str = "",
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} never probes; give 1 for each look, or more.")
        self.model, self.every, self.names, self.label = model, every, tuple(names), label
        inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
        self.inputs = tuple(x.detach().clone() if isinstance(x, Tensor) else x for x in inputs)
        self.folder = folder_of(run, label)
        self.looks = 0

    def __call__(self, record: dict) -> None:
        """Count one look of a training, and probe when it is time."""
        self.looks += 1
        if self.looks % self.every == 0:
            self.probe(record["step"])

    def probe(self, step: int) -> Path:
        """Trace the inputs now; return the folder of the trace, under the run's.

        Raises:
            ValueError: nothing of what was asked for is in the model.
        """
        trace = self.trace()
        if not trace.names():
            kinds = ", ".join(sorted({cell["kind"] for cell in trace.cells.values()})) or "nothing that ran"
            raise ValueError(f"no quantity matches {', '.join(self.names)} in {kinds}; give other names to Probe.")
        trace.about |= {"step": step, "label": self.label}
        target = self.folder / f"{STEM}{step:08d}"
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            trace.save(draft)
            if target.exists():  # of an earlier attempt at this step
                shutil.rmtree(target)
            os.replace(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    @torch.no_grad()
    def trace(self) -> Trace:
        """The trace of the inputs, with nothing of the model or of torch's random numbers changed."""
        device = next((x.device for x in self.model.parameters()), torch.device("cpu"))
        modes = {module: module.training for module in self.model.modules()}
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            try:
                self.model.eval()
                with record(self.model, names=self.names) as trace:
                    self.model(*(x.to(device) if isinstance(x, Tensor) else x for x in self.inputs))
            finally:
                for module, mode in modes.items():
                    module.training = mode
        return trace


def folder_of(run: Run, label: str = "") -> Path:
    """Where the probes of a label lie.

    Raises:
        ValueError: the label is no name of a folder.
    """
    if label != Path(label).name or label.startswith((".", STEM)):
        raise ValueError(f"label={label!r} is no name of a folder; give one word, as 'xLSTM'.")
    return run.traces / label


def probe_folders(run: Run, label: str = "") -> dict[int, Path]:
    """Step of each finished probe of a run to its folder, in order; nothing is read."""
    found = {}
    for folder in folder_of(run, label).glob(f"{STEM}*"):
        step = folder.name.removeprefix(STEM)
        if step.isdecimal() and (folder / CARD).is_file():
            found[int(step)] = folder
    return dict(sorted(found.items()))


def read_probes(run: Run, label: str = "") -> dict[int, Trace]:
    """Step of each finished probe of a run to its trace, in order; quantities are read when they are asked for.

    Raises:
        ValueError: a probe is damaged.
    """
    return {step: Trace.load(folder) for step, folder in probe_folders(run, label).items()}


def labels(run: Run) -> list[str]:
    """The labels under which a run has probes, the one with the newest first; "" is none."""
    folders = [run.traces, *(path for path in run.traces.iterdir() if path.is_dir() and path.name[0] != ".")]
    newest = {}
    for folder in folders:
        times = [card.stat().st_mtime for card in folder.glob(f"{STEM}*/{CARD}")]
        if times:
            newest["" if folder == run.traces else folder.name] = max(times)
    return sorted(newest, key=newest.get, reverse=True)
