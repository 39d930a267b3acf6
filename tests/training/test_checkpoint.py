"""Checkpoints: whole, built from the file alone, and refused when anything differs."""

import json
import os

import pytest
import torch

from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import LSTMStackConfig, XLSTMStackConfig
from workbench.training.checkpoint import load_checkpoint, save_checkpoint

CONFIG = ForecasterConfig(inputs=3, known=2, horizon=4, stack=XLSTMStackConfig(width=8, heads=2))


@pytest.fixture
def saved(tmp_path):
    model = CONFIG.build(3)
    return model, save_checkpoint(tmp_path / "model", model, extra={"step": 7})


def test_a_saved_model_comes_back(saved):
    model, folder = saved
    again, card = load_checkpoint(folder, expect=CONFIG)
    inputs = CONFIG.example(5)
    assert torch.equal(again(*inputs), model.eval()(*inputs))
    assert card["extra"] == {"step": 7}
    assert set(card["roles"]) == set(dict(model.named_parameters()))
    assert not list(folder.parent.glob("*.part"))


def test_it_is_replaced_whole(saved):
    _, folder = saved
    other = CONFIG.build(4)
    save_checkpoint(folder, other)
    assert torch.equal(load_checkpoint(folder)[0].project.weight, other.project.weight)


def test_a_save_that_fails_leaves_the_old_one_and_nothing_else(saved, monkeypatch):
    model, folder = saved
    monkeypatch.setattr("workbench.training.checkpoint.probe", lambda model: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(folder, CONFIG.build(4))
    monkeypatch.undo()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert torch.equal(load_checkpoint(folder)[0].project.weight, model.project.weight)


def test_a_swap_that_fails_puts_the_old_one_back(saved, monkeypatch):
    model, folder = saved
    real = os.replace

    def fail(source, target):
        if str(source).endswith(".part"):
            raise OSError("no space left")
        real(source, target)

    monkeypatch.setattr("workbench.training.checkpoint.os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(folder, CONFIG.build(4))
    monkeypatch.undo()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert torch.equal(load_checkpoint(folder)[0].project.weight, model.project.weight)


def test_a_cut_card_is_refused(saved):
    _, folder = saved
    card = folder / "checkpoint.json"
    card.write_text(card.read_text()[:100])
    with pytest.raises(ValueError, match="is no checkpoint's card"):
        load_checkpoint(folder)


def test_another_configuration_is_named(saved):
    _, folder = saved
    wanted = CONFIG.model_copy(update={"horizon": 9, "stack": LSTMStackConfig(width=8)})
    with pytest.raises(
        ValueError, match=r"another configuration: horizon is 4 there and 9 here; .*stack.kind is xlstm there"
    ):
        load_checkpoint(folder, expect=wanted)


def edit(folder, change):
    card = json.loads((folder / "checkpoint.json").read_text())
    change(card)
    (folder / "checkpoint.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: card["config"].update(horizon=5), "was changed after it was saved"),
        (lambda card: card["probe"].__setitem__(0, 99.0), "answers its probe"),
        (lambda card: card.update(format=2), "checkpoint format 2, and this version reads 1"),
        (lambda card: card.update(weights_sha256="0"), "was changed or cut off"),
        (lambda card: card.pop("probe"), "lacks probe"),
    ],
)
def test_a_changed_card_is_refused(saved, change, says):
    _, folder = saved
    edit(folder, change)
    with pytest.raises(ValueError, match=says):
        load_checkpoint(folder)


def test_changed_weights_and_missing_files_are_refused(saved, tmp_path):
    _, folder = saved
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="was changed or cut off"):
        load_checkpoint(folder)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load_checkpoint(tmp_path / "nothing")
