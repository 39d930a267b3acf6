"""What a recurrence reads: the weight of each past step in each answer, and the memory at any moment.

A matrix memory is linear in its values: h_t = sum_s A[t, s] v_s. Values that are 1 at one step and 0 at all others
therefore read off A, with the kernel itself and without a formula for each family. A memory of scalars is linear in
what it writes, once its gates are known.

References:
    Ali, Zimerman & Wolf (2024), The Hidden Attention of Mamba Models, arXiv:2403.01590, for the idea.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from workbench.kernels.gated_delta import gated_delta
from workbench.kernels.mlstm import mlstm_expforget, mlstm_sigmoid
from workbench.kernels.neural_memory import neural_memory
from workbench.kernels.rwkv7 import rwkv7
from workbench.trace.store import Trace

LONGEST = 4096  # steps of a whole matrix of weights


def _mlstm(of: dict[str, Tensor], cell: dict, v: Tensor, lengths: Tensor) -> tuple[Tensor, tuple]:
    if cell.get("gates") == "sigmoid":
        i, f = torch.logit(of["input"]), torch.logit(of["forget"])
        return mlstm_sigmoid(of["query"], of["key"], v, i, f, lengths=lengths)
    return mlstm_expforget(of["query"], of["key"], v, of["log_input"], of["log_forget"], lengths=lengths)


def _gated_delta(of: dict[str, Tensor], cell: dict, v: Tensor, lengths: Tensor) -> tuple[Tensor, tuple]:
    return gated_delta(of["query"], of["key"], v, of["write_strength"], of["log_forget"], lengths=lengths)


def _rwkv7(of: dict[str, Tensor], cell: dict, v: Tensor, lengths: Tensor) -> tuple[Tensor, tuple]:
    keys = (of["query"], of["log_forget"], of["key"], v, of["removal_key"], of["input"])
    return rwkv7(*keys, lengths=lengths)


def _titans(of: dict[str, Tensor], cell: dict, v: Tensor, lengths: Tensor) -> tuple[Tensor, tuple]:
    gates = (1 - of["forget"], of["momentum"], of["step_size"])
    return neural_memory(of["query"], of["key"], v, *gates, refresh=cell["refresh"], lengths=lengths)


# Class of the cell to its memory, and the field of its state that is the matrix; the place for one more family.
LINEAR = {
    "MLSTM": (_mlstm, "c"),
    "MLSTMLarge": (_mlstm, "c"),
    "GatedDelta": (_gated_delta, "s"),
    "RWKV7": (_rwkv7, "s"),
    "Titans": (_titans, "m"),
}
SCALAR = ("LSTM", "GRU", "SLSTM")


def effective_attention(trace: Trace, cell: str) -> np.ndarray:
    """The weight of each step in each answer, from traced quantities alone.

    Nothing is normalised and the sign is kept: the rows of an mLSTM or of a delta rule do not add up to 1.

    Args:
        trace: of any model, also from disk.
        cell: path of a cell, such as "blocks.0.cell".

    Returns:
        A (batch, memory, T, T), answers down, steps across, 0 above the diagonal. A memory is a head of a matrix
        memory, with A v = hidden; or one unit of an LSTM or GRU, with A candidate = its cell (of a GRU: hidden); or
        of an sLSTM, with A candidate = cell / normalizer. What was in the memory before the first step is not in A.

    Raises:
        KeyError: no such cell.
        ValueError: more than 4,096 steps, or a memory that is not linear in its values (Titans with two layers).
    """
    path, about = find_cell(trace, cell)
    if (steps := trace.read(at(path, "log_forget")).shape[2]) > LONGEST:
        raise ValueError(
            f"{path} was traced over {steps:,} steps, and a matrix of weights is drawn for {LONGEST:,} at most; "
            f"use attention_row for one answer, or trace a shorter stretch."
        )
    if about["kind"] in SCALAR:
        return np.tril(_scalar_weights(trace, path, np.arange(steps)))
    run = memory_of(trace, path)
    with torch.no_grad():
        one_hot = torch.eye(steps, dtype=torch.float64).expand(*trace.read(at(path, "query")).shape[:2], -1, -1)
        return run(one_hot)[0].numpy()


def attention_row(trace: Trace, cell: str, step: int) -> np.ndarray:
    """The weight of each step in the answer at one step (batch, memory, T), linear in T; see `effective_attention`."""
    path, about = find_cell(trace, cell)
    steps = trace.read(at(path, "log_forget")).shape[2]
    check_step(path, step, steps)
    if about["kind"] in SCALAR:
        row = _scalar_weights(trace, path, np.array([step]))[:, :, 0]
        return np.where(np.arange(steps) <= step, row, 0)
    run = memory_of(trace, path)
    values = torch.zeros(*trace.read(at(path, "query")).shape[:3], 1, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (weights,) = torch.autograd.grad(run(values)[0][:, :, step].sum(), values)
    return weights[..., 0].numpy()


def memory_at(trace: Trace, cell: str, step: int) -> np.ndarray:
    """The matrix memory behind a step (batch, head, K, V), as it is scaled, keys first.

    Args:
        trace, cell: see `effective_attention`.
        step: the last step that it has seen.

    Raises:
        ValueError: the cell has no matrix memory, or did not start from an empty one.
    """
    path, about = find_cell(trace, cell)
    run = memory_of(trace, path)
    check_step(path, step, trace.read(at(path, "log_forget")).shape[2])
    if about["carried"]:
        raise ValueError(
            f"{path} started from a memory that the trace does not hold; record from the first step (join=True)."
        )
    with torch.no_grad():
        _, state = run(torch.from_numpy(trace.read(at(path, "value"))).double(), upto=step + 1)
    return getattr(state, LINEAR[about["kind"]][1]).numpy()


def find_cell(trace: Trace, cell: str) -> tuple[str, dict]:
    """The full path of a cell, and what it is.

    Raises:
        KeyError: none or several have that name.
    """
    fitting = [path for path in trace.cells if path == cell or path.endswith("." + cell)]
    exact = [path for path in fitting if path == cell]
    if len(found := exact or fitting) != 1:
        if fitting:
            raise KeyError(f"{cell!r} could be any of {', '.join(fitting)}.")
        raise KeyError(f"{cell!r} is not a cell of the trace; it has {', '.join(trace.cells) or 'none'}.")
    return found[0], trace.cells[found[0]]


def memory_of(trace: Trace, path: str) -> Callable[..., tuple[Tensor, tuple]]:
    """The memory of a cell as a function of its values (B, H, T, V): its answers, and its state.

    Raises:
        ValueError: it is not linear in its values.
    """
    about = trace.cells[path]
    if about["kind"] not in LINEAR or about.get("memory") == "mlp":
        raise ValueError(
            f"{path} is a {about['kind']}, whose memory is not linear in its values; linear are {', '.join(LINEAR)} "
            f"(Titans with one matrix)."
        )
    memory, _ = LINEAR[about["kind"]]
    needed = [name for name in trace.names() if name == at(path, name.rpartition(".")[2])]
    of = {name.rpartition(".")[2]: torch.from_numpy(trace.read(name)).double() for name in needed}

    lengths = torch.from_numpy(lengths_of(trace.read(at(path, "log_forget"))))

    def run(v: Tensor, upto: int | None = None) -> tuple[Tensor, tuple]:
        cut = {name: x[:, :, :upto] for name, x in of.items()}
        return memory(cut, about, v[:, :, :upto], lengths if upto is None else lengths.clamp(max=upto))

    return run


def lengths_of(gate: np.ndarray) -> np.ndarray:
    """Steps of each sequence (B,): padding is NaN from there to the end; a NaN before is one that the model made."""
    there = ~np.isnan(gate.reshape(*gate.shape[:3], -1)).all((1, 3))
    return there.shape[1] - there[:, ::-1].argmax(1) * there.any(1) - there.shape[1] * ~there.any(1)


def at(path: str, name: str) -> str:
    """The path of a quantity of a cell; of a cell that is the model itself, its name."""
    return f"{path}.{name}" if path else name


def check_step(path: str, step: int, steps: int) -> None:
    """Refuse a step that was not traced."""
    if not 0 <= step < steps:
        raise ValueError(f"step={step} was not traced: {path} has steps 0 to {steps - 1}.")


def _scalar_weights(trace: Trace, path: str, rows: np.ndarray) -> np.ndarray:
    """Weights of every step in the memories behind some steps (batch, memory, row, T), above the diagonal too."""
    log_forget = units_first(trace.read(at(path, "log_forget")).astype(np.float64))
    log_forget = np.maximum(log_forget, -1000)  # exp of it is 0, and sums stay finite where a gate is shut
    if at(path, "log_input") in trace:
        write = units_first(trace.read(at(path, "log_input")).astype(np.float64))
        scale = units_first(trace.read(at(path, "stabilizer"))) + np.log(
            units_first(trace.read(at(path, "normalizer")))
        )
    else:
        with np.errstate(divide="ignore"):
            write = np.log(units_first(trace.read(at(path, "input")).astype(np.float64)))
        scale = np.zeros_like(write)
    total = np.cumsum(log_forget, -1)
    with np.errstate(over="ignore"):  # above the diagonal, where nothing is read
        weights = np.exp((total - scale)[..., rows, None] + (write - total)[..., None, :])
    ends = lengths_of(trace.read(at(path, "log_forget")))[:, None, None, None]
    steps = np.arange(weights.shape[-1])
    return np.where((rows[:, None] < ends) & (steps < ends), weights, 0)


def units_first(x: np.ndarray) -> np.ndarray:
    """(batch, head, time, unit) as (batch, memory, time): each unit is a memory."""
    return np.moveaxis(x, -1, 2).reshape(x.shape[0], -1, x.shape[2])
