"""States as one thing: mapped, detached, moved, written to a file and read again, without pickle."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.cells.table import carried, every_cell, flat, make
from workbench.cells.mlstm import MLSTMCellState
from workbench.cells.states import detach, load_state, map_state, move, save_state
from workbench.kernels.lstm import LSTMState
from workbench.kernels.mlstm import MLSTMState
from workbench.models.layouts import RWKV7StackConfig
from workbench.models.stack import StackState

STATE = MLSTMCellState(torch.ones(1, 3, 4), MLSTMState(torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3), torch.rand(1, 2)))


def write(path, structure, **tensors):
    """A file of our format that somebody else could have written."""
    save_file(tensors, path, {"format": "workbench state 1", "structure": json.dumps(structure)})


@every_cell
def test_a_file_gives_back_every_kind_and_every_bit(kind, tmp_path, monkeypatch):
    cell, inputs = make(kind)
    state = carried(cell, inputs)
    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    save_state(tmp_path / "state", state)
    loaded = load_state(tmp_path / "state")
    assert shape_of(loaded) == shape_of(state)
    assert all(torch.equal(a, b) for a, b in zip(flat(loaded), flat(state), strict=True))
    assert not any(x.requires_grad for x in flat(loaded))


def shape_of(state):
    """The kinds of a state, and what its tensors are like."""
    if isinstance(state, torch.Tensor):
        return state.shape, state.dtype
    return type(state), [shape_of(part) for part in state]


def test_a_stack_is_written_with_all_its_blocks_and_what_is_empty(tmp_path):
    _, state = RWKV7StackConfig(width=16, head_size=8).build()(torch.randn(1, 3, 16))
    state = StackState((*state.blocks, None))
    save_state(tmp_path / "state", state)
    loaded = load_state(str(tmp_path / "state"))
    assert isinstance(loaded, StackState)
    assert loaded.blocks[-1] is None
    assert shape_of(loaded.blocks[:2]) == shape_of(state.blocks[:2])


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    zero = torch.zeros(2, 1, 4)
    save_state(tmp_path / "state", LSTMState(zero, zero.transpose(1, 2).transpose(1, 2)))
    h, c = load_state(tmp_path / "state")
    h += 1
    assert c.abs().max() == 0


def test_the_format_is_what_it_was(tmp_path):
    """Files outlive versions: names and structure are fixed; a change needs another format number."""
    save_state(tmp_path / "state", STATE)
    with safe_open(tmp_path / "state", "pt") as file:
        assert set(file.keys()) == {"state.0", "state.1.0", "state.1.1", "state.1.2"}
        metadata = file.metadata()
    assert metadata["format"] == "workbench state 1"
    memory = ["workbench.kernels.mlstm.reference:MLSTMState", "tensor", "tensor", "tensor"]
    assert json.loads(metadata["structure"]) == ["workbench.cells.mlstm:MLSTMCellState", "tensor", memory]


def test_files_that_hold_no_state_are_refused(tmp_path):
    save_file({"state": torch.ones(1)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="weights holds no state: its format is None; save_state writes one"):
        load_state(tmp_path / "weights")
    (tmp_path / "text").write_text("this is not a state")
    with pytest.raises(ValueError, match=r"text cannot be read: .*; save the state again with save_state"):
        load_state(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "nothing")


def test_files_that_hold_less_than_they_say_are_refused(tmp_path):
    structure = ["workbench.kernels.lstm.reference:LSTMState", "tensor", "tensor"]
    write(tmp_path / "half", structure, **{"state.0": torch.ones(1)})
    with pytest.raises(ValueError, match=r"half cannot be read: .*state\.1"):
        load_state(tmp_path / "half")
    write(tmp_path / "older", structure[:2], **{"state.0": torch.ones(1)})
    with pytest.raises(ValueError, match="LSTMState' of 1 fields, and this version's has 2: h, c; load it with"):
        load_state(tmp_path / "older")


@pytest.mark.parametrize(
    "name",
    [
        "os:stat_result",
        "collections:namedtuple",
        "workbench.cells.nothing:State",
        "workbench.kernels.lstm.reference:Nothing",
        "workbench.kernels.lstm.reference:lstm",
        "workbench.cells.lstm:LSTM",
        "workbench_other:State",
        "LSTMState",
    ],
)
def test_kinds_that_are_none_of_ours_are_refused(name, tmp_path):
    write(tmp_path / "state", [name, "tensor"], **{"state.0": torch.ones(1)})
    with pytest.raises(ValueError, match=f"holds a state of kind '{name}', which this version does not know"):
        load_state(tmp_path / "state")


def test_a_map_keeps_the_structure():
    doubled = map_state(lambda x: 2 * x, STATE)
    assert shape_of(doubled) == shape_of(STATE)
    assert torch.equal(doubled.memory.n, 2 * STATE.memory.n)
    plain = map_state(lambda x: x + 1, (STATE.tail, (None, STATE.tail)))
    assert (type(plain), type(plain[1]), plain[1][0]) == (tuple, tuple, None)
    assert map_state(lambda x: x, None) is None


@every_cell
def test_detach_cuts_the_graph_and_keeps_the_numbers(kind):
    cell, inputs = make(kind)
    for x in inputs.values():
        x.requires_grad_()
    _, state = cell(**inputs)
    cut = detach(state)
    assert any(x.requires_grad for x in flat(state))
    assert not any(x.requires_grad for x in flat(cut))
    assert all(torch.equal(a, b) for a, b in zip(flat(cut), flat(state), strict=True))
    assert detach(None) is None


def test_move_to_a_type_leaves_whole_numbers():
    cell, inputs = make("titans-mlp-spans")
    _, state = cell(**inputs)
    moved = move(state, torch.float32)
    assert {x.dtype for x in flat(moved)} == {torch.float32, torch.int64}
    assert torch.equal(moved.memory.position, state.memory.position)
    assert move(None, torch.float32) is None
    y, _ = cell.float()(inputs["x"].float(), moved)
    assert y.dtype == torch.float32


@pytest.mark.parametrize("place", ["meta", torch.device("meta")], ids=["name", "device"])
def test_move_to_a_device_takes_everything(place):
    cell, inputs = make("titans-mlp-spans")
    _, state = cell(**inputs)
    moved = move(state, place)
    assert {x.device.type for x in flat(moved)} == {"meta"}
    assert [x.dtype for x in flat(moved)] == [x.dtype for x in flat(state)]
