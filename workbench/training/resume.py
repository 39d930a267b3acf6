"""Where a training stands: one file that is replaced whole, so that a kill at any moment loses little."""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FILE = "progress.safetensors"


def save_progress(
    folder: Path, model: nn.Module, best: dict[str, Tensor], optimizer: torch.optim.Optimizer, notes: dict
) -> None:
    """Write weights, best weights so far, optimiser, random state and notes to folder/progress.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": x for name, x in model.state_dict().items()}
    tensors |= {f"best.{name}": x for name, x in best.items()}
    for number, memory in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(x) for name, x in memory.items()}
    tensors["random"] = torch.get_rng_state()
    tensors = {name: x.detach().contiguous().clone() for name, x in tensors.items()}
    part = folder / f"{FILE}.{os.getpid()}.part"
    try:
        save_file(tensors, part, metadata={"notes": json.dumps(notes)})
        os.replace(part, folder / FILE)
    finally:
        part.unlink(missing_ok=True)


def load_progress(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict, dict[str, Tensor]] | None:
    """Put a training back to where it stood; return its notes and the best weights, or None if there is nothing.

    Raises:
        ValueError: the file belongs to another model.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights = _below("model.", tensors)
    have = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    found = {name: tuple(x.shape) for name, x in weights.items()}
    if have != found:
        odd = sorted(name for name in have.keys() | found.keys() if have.get(name) != found.get(name))
        raise ValueError(
            f"{path} belongs to another model: {odd[0]} is {found.get(odd[0], 'absent')} there and "
            f"{have.get(odd[0], 'absent')} here ({len(odd)} differ). Remove the folder to start anew."
        )
    model.load_state_dict(weights)
    state = optimizer.state_dict()
    for name, x in _below("optimizer.", tensors).items():
        number, key = name.split(".")
        state["state"].setdefault(int(number), {})[key] = x
    optimizer.load_state_dict(state)
    torch.set_rng_state(tensors["random"])
    return notes, _below("best.", tensors)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
