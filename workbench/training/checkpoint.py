"""Trained models on disk: safetensors and JSON, built again from the file alone, checked on the way in."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import workbench
from workbench.cells.roles import parameter_roles
from workbench.models.zoo import config_from
from workbench.runs.params import differences

FORMAT = 1
CARD, WEIGHTS = "checkpoint.json", "model.safetensors"


def save_checkpoint(folder: Path, model: nn.Module, *, extra: dict | None = None) -> Path:
    """Write a model that has a `config`; the folder appears whole or not at all.

    Args:
        folder: replaced if it exists.
        model: any model of the zoo.
        extra: what else belongs to it, as JSON: scaler, metrics, data.
    """
    folder = Path(folder)
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    config, weights = model.config.model_dump(mode="json"), model.state_dict()
    try:
        # Tied weights are one tensor under two names, which safetensors refuses to write.
        save_file({name: x.clone(memory_format=torch.contiguous_format) for name, x in weights.items()}, part / WEIGHTS)
        card = {
            "format": FORMAT,
            "config": config,
            "config_hash": hash_of(config),
            "weights_sha256": hashlib.sha256((part / WEIGHTS).read_bytes()).hexdigest(),
            "probe": probe(model),
            "roles": parameter_roles(model),
            "versions": {"workbench": workbench.__version__, "torch": torch.__version__},
            "extra": extra or {},
        }
        (part / CARD).write_text(json.dumps(card, indent=2, allow_nan=False))
        swap(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def swap(new: Path, folder: Path) -> None:
    """Put a folder in the place of another; if that fails, the old one stays."""
    old = folder.with_name(f"{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, *, expect: object | None = None) -> tuple[nn.Module, dict]:
    """Build the model that a checkpoint describes, and return it with the checkpoint's card.

    Args:
        folder: what `save_checkpoint` wrote.
        expect: a configuration that the checkpoint must have; None takes any.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: another format or configuration, changed weights, or an output that differs from the one
            that was saved.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file() or not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} holds no checkpoint ({CARD} and {WEIGHTS}).")
    card = read_card(folder / CARD)
    if card["format"] != FORMAT:
        raise ValueError(f"{folder} has checkpoint format {card['format']}, and this version reads {FORMAT}.")
    if hash_of(card["config"]) != card["config_hash"]:
        raise ValueError(f"the configuration in {folder / CARD} was changed after it was saved.")
    if expect is not None and (odd := differences(card["config"], expect.model_dump(mode="json"))):
        raise ValueError(f"{folder} was trained with another configuration: {'; '.join(odd)}.")
    if hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() != card["weights_sha256"]:
        raise ValueError(f"{folder / WEIGHTS} was changed or cut off after it was saved.")
    model = config_from(card["config"]).build()
    model.load_state_dict(load_file(folder / WEIGHTS))
    found = probe(model)
    if not torch.allclose(torch.tensor(found), torch.tensor(card["probe"]), rtol=1e-3, atol=1e-4):
        raise ValueError(f"{folder} answers its probe with {found}, and {card['probe']} was saved: the code differs.")
    return model.eval(), card


def read_card(path: Path) -> dict:
    """The card of a checkpoint.

    Raises:
        ValueError: it is cut off, or lacks a part.
    """
    try:
        card = json.loads(path.read_text())
        lacks = [key for key in ("format", "config", "config_hash", "weights_sha256", "probe") if key not in card]
    except ValueError as error:
        raise ValueError(f"{path} is no checkpoint's card: {error}. Train again, or copy it again.") from None
    if lacks:
        raise ValueError(f"{path} lacks {', '.join(lacks)}. Train again, or copy it again.")
    return card


def hash_of(config: dict) -> str:
    """Checksum of a configuration, the same for any order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def probe(model: nn.Module) -> list[float]:
    """The first numbers of the output for a seeded input, without the state that may come with it."""
    training = model.training
    model.eval()
    output = model(*(x.to(next(model.parameters()).device) for x in model.config.example()))
    model.train(training)
    output = output[0] if isinstance(output, tuple) else output
    return [float(x) for x in output.flatten()[:8]]
