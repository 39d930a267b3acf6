"""Effective attention and memories, read off a trace: they are what the model computed."""

import numpy as np
import pytest
import torch

from workbench.cells.gated_delta import GatedDelta
from workbench.cells.gru import GRU
from workbench.cells.lstm import LSTM
from workbench.cells.mlstm import MLSTM
from workbench.cells.mlstm_large import MLSTMLarge
from workbench.cells.rwkv7 import RWKV7
from workbench.cells.slstm import SLSTM
from workbench.cells.titans import Titans
from workbench.trace.attention import attention_row, effective_attention, memory_at, units_first
from workbench.trace.record import record
from workbench.trace.store import Trace

MATRIX = {
    "mlstm": lambda: MLSTM(16, heads=2),
    "mlstm-expforget": lambda: MLSTM(16, heads=2, gates="expforget"),
    "mlstm-sigmoid": lambda: MLSTM(16, heads=2, gates="sigmoid"),
    "mlstm-large": lambda: MLSTMLarge(16, heads=2),
    "gated-delta": lambda: GatedDelta(16, heads=2),
    "gated-delta-negative": lambda: GatedDelta(16, heads=2, negative_eigenvalues=True),
    "rwkv7": lambda: RWKV7(16, head_size=8),
    "titans": lambda: Titans(16, heads=2),
    "titans-refresh": lambda: Titans(16, heads=2, refresh=4),
}
SCALAR = {"lstm": lambda: LSTM(8), "gru": lambda: GRU(8), "slstm": lambda: SLSTM(8, heads=2)}


class Model(torch.nn.Module):
    """A cell with a path."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, state=None, lengths=None):
        return self.cell(x, state, lengths=lengths)


def traced(make, steps=20, lengths=None):
    """A model whose gates move, the input that it saw, and its trace."""
    torch.manual_seed(0)
    model = Model(make())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model, x = model.double(), torch.randn(2, steps, model.cell.width, dtype=torch.float64)
    with record(model) as trace:
        model(x, lengths=lengths)
    return model, x, trace


@pytest.mark.parametrize("kind", MATRIX)
def test_weights_times_values_are_the_answers(kind):
    _, _, trace = traced(MATRIX[kind])
    weights = effective_attention(trace, "cell")
    np.testing.assert_allclose(weights @ trace.read("cell.value"), trace.read("cell.hidden"), atol=1e-9, rtol=1e-7)
    assert np.abs(np.triu(weights, 1)).max() == 0
    assert np.abs(weights).max() > 1e-3


@pytest.mark.parametrize("kind", SCALAR)
def test_weights_times_candidates_are_the_memories(kind):
    _, _, trace = traced(SCALAR[kind])
    memory = trace.read("cell.hidden" if kind == "gru" else "cell.cell")
    if kind == "slstm":
        memory = memory / trace.read("cell.normalizer")
    found = effective_attention(trace, "cell") @ units_first(trace.read("cell.candidate"))[..., None]
    np.testing.assert_allclose(found[..., 0], units_first(memory), atol=1e-12, rtol=1e-9)
    if kind == "slstm":
        np.testing.assert_allclose(effective_attention(trace, "cell").sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize("kind", [*MATRIX, *SCALAR])
def test_a_row_is_a_row_of_the_matrix(kind):
    _, _, trace = traced((MATRIX | SCALAR)[kind])
    whole = effective_attention(trace, "cell")
    for step in (0, 7, 19):
        np.testing.assert_allclose(attention_row(trace, "cell", step), whole[:, :, step], atol=1e-12)


@pytest.mark.parametrize("kind", MATRIX)
def test_the_memory_of_a_trace_is_the_state_of_the_model(kind):
    model, x, trace = traced(MATRIX[kind])
    _, state = model(x[:, :13])
    memory = getattr(state, "memory", state)
    field = next(name for name in ("c", "s", "m") if name in memory._fields)
    if kind.startswith("titans"):
        field = "m"
    found = memory_at(trace, "cell", 12)
    np.testing.assert_allclose(found, getattr(memory, field).detach().numpy(), atol=1e-9, rtol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(found, axis=(2, 3)), trace.read("cell.state_norm")[:, :, 12], rtol=1e-9)


@pytest.mark.parametrize("kind", [*MATRIX, *SCALAR])
def test_padding_reads_and_writes_nothing(kind):
    make = (MATRIX | SCALAR)[kind]
    _, _, trace = traced(make, lengths=torch.tensor([20, 6]))
    _, _, whole = traced(make)
    np.testing.assert_allclose(
        effective_attention(trace, "cell")[1, :, :6, :6], effective_attention(whole, "cell")[1, :, :6, :6], atol=1e-12
    )
    found = effective_attention(trace, "cell")[1, :, 6:]
    assert np.abs(found).max() == 0


@pytest.mark.parametrize("kind", ["mlstm", "gated-delta", "slstm"])
def test_a_gate_that_is_not_a_number_is_not_taken_for_padding(kind):
    _, _, trace = traced((MATRIX | SCALAR)[kind])
    arrays = trace.arrays
    arrays["cell.log_forget"][0, :, 10] = torch.nan
    weights = effective_attention(Trace(arrays, about=trace.about), "cell")
    assert np.isnan(weights[0, :, 15, :10]).all()
    assert np.isfinite(weights[1]).all()


def test_a_gate_that_is_shut_cuts_what_was_before():
    _, _, trace = traced(SCALAR["lstm"])
    arrays = trace.arrays
    arrays["cell.log_forget"][:, :, 10] = -torch.inf
    weights = effective_attention(Trace(arrays, about=trace.about), "cell")
    assert np.abs(weights[:, :, 10:, :10]).max() == 0
    np.testing.assert_allclose(weights[:, :, 11:, 10:].sum(), weights[:, :, 11:].sum())
    assert np.isfinite(weights).all()


def test_what_cannot_be_read_off_says_why():
    _, _, trace = traced(lambda: Titans(16, heads=2, memory="mlp"))
    with pytest.raises(ValueError, match="cell is a Titans, whose memory is not linear in its values"):
        effective_attention(trace, "cell")
    _, _, trace = traced(SCALAR["lstm"])
    with pytest.raises(ValueError, match="LSTM, whose memory is not linear"):
        memory_at(trace, "cell", 3)
    with pytest.raises(ValueError, match="step=20 was not traced: cell has steps 0 to 19"):
        attention_row(trace, "cell", 20)
    with pytest.raises(KeyError, match="'cel' is not a cell of the trace; it has cell"):
        attention_row(trace, "cel", 2)
    long = Trace({"cell.log_forget": torch.zeros(1, 1, 5000)}, about=trace.about)
    with pytest.raises(ValueError, match="over 5,000 steps, and a matrix of weights is drawn for 4,096 at most"):
        effective_attention(long, "cell")


def test_a_memory_that_was_carried_in_is_not_guessed():
    model, x, _ = traced(MATRIX["mlstm"])
    _, state = model(x[:, :5])
    with record(model) as trace:
        model(x[:, 5:], state)
    with pytest.raises(ValueError, match="started from a memory that the trace does not hold"):
        memory_at(trace, "cell", 3)


def test_a_cell_that_is_the_model_itself_is_read_too():
    cell = MLSTM(16, heads=2).double()
    with record(cell) as trace:
        cell(torch.randn(1, 9, 16, dtype=torch.float64))
    np.testing.assert_allclose(effective_attention(trace, "") @ trace.read("value"), trace.read("hidden"), atol=1e-10)
