"""Where a training stands: one file that is replaced whole, so that a kill at any moment loses little."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.training.distributed import inside, like, team, whole


def progress_file(folder: Path, model: nn.Module, settings: dict, sample: object) -> Path:
    """Where the progress of one training is kept: its name tells trainings apart that share a folder.

    Args:
        folder: of the progress files.
        model: with the weights that training starts from.
        settings: all else that decides where training ends, as JSON.
        sample: some of the data.
    """
    mark = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, x in model.state_dict().items():
        mark.update(f"{name} {tuple(x.shape)}".encode())
        mark.update(raw(whole(x)))
    for x in tensors_in(sample):
        mark.update(raw(x))
    return folder / f"progress-{mark.hexdigest()[:12]}.safetensors"


def save_progress(
    path: Path, model: nn.Module, best: dict[str, Tensor], optimizer: torch.optim.Optimizer, notes: dict
) -> None:
    """Write weights, best weights so far, optimiser, random state and notes: one file, however many processes train.

    All processes call; the first one writes. Tensors in shards are put together one at a time.
    """
    found = {f"model.{name}": x for name, x in inside(model).state_dict().items()}
    found |= {f"best.{name}": x for name, x in best.items()}
    for number, memory in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{name}": torch.as_tensor(x) for name, x in memory.items()}
    tensors = {"random": torch.get_rng_state()}
    for name, x in found.items():
        x = whole(x)  # together, also where it is not kept
        if team().first:
            tensors[name] = x.cpu().contiguous()
    if not team().first:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata={"notes": json.dumps(notes)})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_progress(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict, dict[str, Tensor]] | None:
    """Put a training back to where it stood; return its notes and the best weights, or None if there is nothing.

    The first process reads the file, and the others get it from there, so that any number of them can go on.
    """
    found = team().agree(read_progress(path) if team().first else None)
    if found is None:
        return None
    notes, tensors = found
    layout = inside(model).state_dict()
    inside(model).load_state_dict({name: like(x, layout[name]) for name, x in below("model.", tensors).items()})
    state, order = optimizer.state_dict(), [x for group in optimizer.param_groups for x in group["params"]]
    for name, x in below("optimizer.", tensors).items():
        number, key = name.split(".")
        shaped = x.shape == order[int(number)].shape
        state["state"].setdefault(int(number), {})[key] = like(x, order[int(number)]) if shaped else x
    optimizer.load_state_dict(state)
    if team().first:
        torch.set_rng_state(tensors["random"])
    return notes, {name: like(x, layout[name]) for name, x in below("best.", tensors).items()}


def read_progress(path: Path) -> tuple[dict, dict[str, Tensor]] | None:
    """The notes and tensors of a progress file; None if there is none."""
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
        return notes, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def tensors_in(batch: object) -> Iterator[Tensor]:
    """Every tensor of a batch, however it is nested."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from tensors_in(part)
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from tensors_in(part)


def raw(x: Tensor) -> bytes:
    """The bytes of a tensor, whatever its dtype."""
    return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
