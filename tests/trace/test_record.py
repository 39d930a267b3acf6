"""Tracing: it changes nothing, leaves nothing behind, and names what it holds."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from workbench.models import encoders
from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import LSTMStackConfig, XLSTMStackConfig
from workbench.trace.gates import duration, memory_spans, movers
from workbench.trace.names import NAMES, derive
from workbench.trace.record import record
from workbench.trace.store import Trace

STACKS = {"lstm": LSTMStackConfig(width=8), "xlstm": XLSTMStackConfig(width=8, heads=2, layers=3, slstm_at=(1,))}


def make(stack):
    config = ForecasterConfig(inputs=3, known=2, horizon=4, stack=STACKS[stack])
    return config.build(), config.example()


@pytest.mark.parametrize("stack", STACKS)
def test_tracing_changes_no_bit_and_leaves_nothing_behind(stack):
    model, inputs = make(stack)
    before = model(*inputs)
    with record(model) as trace:
        during = model(*inputs)
    assert torch.equal(before, during)
    assert not any(module._forward_hooks for module in model.modules())
    held = {name: x.clone() for name, x in trace.arrays.items()}
    model(*(x + 1 for x in inputs))
    assert all(torch.equal(trace.arrays[name], x) for name, x in held.items())


@pytest.mark.parametrize("stack", STACKS)
def test_it_says_how_exact_it_is(stack):
    model, inputs = make(stack)
    with record(model) as trace:
        model(*inputs)
    cells = {f"stack.blocks.{k}.cell" for k in range(len(model.stack.blocks))}
    assert trace.exactness.keys() == {*cells, "head.pool"}
    assert trace.error == max(trace.exactness.values()) < 1e-5
    model.stack.blocks[0].cell.trace = broken(model.stack.blocks[0].cell.trace)
    with record(model) as trace:
        model(*inputs)
    assert trace.exactness["stack.blocks.0.cell"] == pytest.approx(0.5, rel=1e-3)


def broken(function):
    """A trace whose output is off by one half."""
    return lambda *inputs, **options: (lambda y, named: (y + 0.5, named))(*function(*inputs, **options))


def test_gates_are_kept_when_an_error_ends_the_block():
    model, inputs = make("xlstm")

    def stop(*_):
        raise RuntimeError("stop")

    model.head.register_forward_hook(stop)
    with pytest.raises(RuntimeError, match="stop"), record(model) as trace:
        model(*inputs)
    assert "blocks.0.cell.forget" in trace
    model.head._forward_hooks.clear()
    assert not any(module._forward_hooks for module in model.modules())


def test_arrays_are_labelled_and_found_by_the_end_of_their_path():
    model, inputs = make("xlstm")
    with record(model) as trace:
        model(*inputs)
    forget = trace["blocks.1.cell.forget"]
    assert forget.dims == ("batch", "head", "time", "unit")
    assert forget.shape == (2, 2, 32, 4)
    assert trace["blocks.0.cell.forget"].dims == ("batch", "head", "time")
    assert forget.name == "stack.blocks.1.cell.forget"
    with pytest.raises(KeyError, match=r"'forget' could be any of stack\.blocks\.0"):
        trace["forget"]
    with pytest.raises(KeyError, match=r"holds no 'blocks.0.cell.forgt'; the nearest are .*blocks\.0\.cell\.forget"):
        trace["blocks.0.cell.forgt"]


def test_half_life_is_when_half_is_left():
    model, inputs = make("xlstm")
    with record(model) as trace:
        model(*inputs)
    for block in (0, 1):
        forget, half = (
            trace[f"blocks.{block}.cell.{name}"].values.astype(np.float64) for name in ("forget", "half_life")
        )
        assert_close(forget**half, np.full_like(forget, 0.5), rtol=1e-4, atol=1e-4)


def test_all_names_are_in_the_vocabulary():
    for stack in STACKS:
        model, inputs = make(stack)
        with record(model) as trace:
            model(*inputs)
        assert {name.split(".")[-1] for name in trace.names()} <= set(NAMES)
    with pytest.raises(ValueError, match="add it to NAMES"):
        derive({"wobble": torch.zeros(1, 1, 1)})


def test_ragged_batches_and_streams_are_traced_as_they_ran():
    model, _ = make("xlstm")
    x = torch.randn(2, 10, 8)
    with record(model.stack) as trace:
        _, state = model.stack(x[:, :6], lengths=torch.tensor([6, 3]))
        model.stack(x[:, 6:], state)
    assert trace.error < 1e-5
    assert trace["blocks.0.cell.forget"].sizes["time"] == 4
    with record(model.stack) as trace:
        model.stack(x, lengths=torch.tensor([10, 3]))
    for block in range(3):
        for name in ("forget", "input", "half_life"):
            seen = trace[f"blocks.{block}.cell.{name}"]
            assert np.isfinite(seen[0]).all()
            assert np.isfinite(seen[1, :, :3]).all()
            assert np.isnan(seen[1, :, 3:]).all()


def test_a_model_without_cells_is_refused():
    with pytest.raises(ValueError, match="Linear holds no cell that can be traced"), record(torch.nn.Linear(2, 2)):
        pass


def test_spans_in_words():
    log_forget = np.log(0.5) / np.array([[0.5, 4.0, 400.0]] * 5)  # half-lives in steps of a quarter of an hour
    said = memory_spans(log_forget, 0.25)
    assert said == "of its 3 memories the shortest halves in 8 minutes, the middle in 60 minutes, the longest in 4 days"
    assert memory_spans(np.zeros((3, 1)), 1.0) == "its one memory halves in more than a year"
    assert memory_spans(np.array([[0.0, -1.0]] * 3), 1.0).endswith("the longest in more than a year")
    assert duration(30 / 3600) == "30 seconds"


def test_movers_finds_the_unit_that_follows():
    signal = np.sin(np.arange(50.0))
    gate = np.random.default_rng(0).normal(size=(50, 3))
    gate[:, 1] = -2 * signal + 5
    unit, strength = movers(gate, signal)
    assert unit == 1
    assert strength == pytest.approx(-1)
    assert movers(np.ones((50, 2)), signal) == (0, 0.0)


def test_a_cell_that_cannot_be_traced_exactly_is_not_hidden():
    trace = Trace(exactness={"a": 1e-7, "b": float("nan")})
    assert np.isnan(trace.error)


def test_an_open_gate_has_a_long_half_life():
    found = derive({"log_forget": torch.tensor([[[0.0, -1e-3]]])})["half_life"]
    assert found[0, 0, 0] > 1e20
    assert found[0, 0, 1] == pytest.approx(693.1, rel=1e-3)


def test_only_what_is_asked_for_is_kept():
    model, inputs = make("xlstm")
    with record(model, names=("*.forget", "blocks.0.cell.half_life")) as trace:
        model(*inputs)
    ends = sorted(name.removeprefix("stack.blocks.") for name in trace.names())
    assert ends == ["0.cell.forget", "0.cell.half_life", "1.cell.forget", "2.cell.forget"]
    assert trace.error < 1e-5


def test_an_untrained_model_is_said_to_be_one_until_a_weight_moves():
    model, inputs = make("lstm")
    with record(model) as trace:
        model(*inputs)
    assert trace.notes == ["untrained: the model has its fresh weights"]
    assert "untrained" in repr(trace)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    with record(model) as trace:
        model(*inputs)
    assert trace.notes == []


def test_a_diverged_model_is_said_to_be_one_and_its_missing_values_are_counted():
    model, inputs = make("xlstm")
    with torch.no_grad():
        model.stack.blocks[1].cell.recurrent[0, 0, 0, 0] = torch.nan
    with record(model) as trace:
        model(*inputs)
    first, second = trace.notes
    assert first == (
        "diverged: 1 of its parameters hold values that are not finite, stack.blocks.1.cell.recurrent first"
    )
    lost = sum(int(np.isnan(trace.read(name)).sum()) for name in trace.names())
    assert second.startswith(f"{lost:,} values are not numbers, in ")
    assert lost > 0
    assert np.isnan(trace.error)


def test_padding_is_not_counted_as_missing():
    model, _ = make("xlstm")
    with record(model.stack) as trace:
        model.stack(torch.randn(2, 10, 8), lengths=torch.tensor([10, 3]))
    assert trace.about["missing"] == {}


@pytest.mark.parametrize("kind", encoders.list_available())
def test_every_encoder_of_the_zoo_is_traced_with_its_pooling(kind):
    encoder = encoders.create(kind, n_features=3, hidden_size=64, pool="attention")
    with record(encoder) as trace:
        _, info = encoder(torch.randn(2, 12, 3), lengths=torch.tensor([12, 7]))
    weights = trace["pool.pooling_weights"]
    assert weights.dims == ("batch", "time")
    assert np.isnan(weights.values[1, 7:]).all()
    assert_close(weights.values[0], info["pooling_weights"][0].numpy())
    assert trace.error < 2e-5
    assert {name.rpartition(".")[2] for name in trace.names()} <= set(NAMES)


def test_what_is_not_in_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="wobble is not in the vocabulary"):
        derive({"wobble": torch.zeros(1)})
