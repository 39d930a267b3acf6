"""The vocabulary of traces: one name for one quantity, in every recurrence, and what other tools call it."""

import math
from collections.abc import Container
from typing import Literal, NamedTuple

from workbench.shapes import Tensor

Kind = Literal["bounded", "log", "signed", "positive", "steps"]
DIMS = ("batch", "head", "time", "unit")


class Quantity(NamedTuple):
    """One entry of the vocabulary.

    `kind` says on which scale it is drawn: "bounded" is 0 ... 1, "log" the logarithm of an exponential gate,
    "signed" anything around 0, "positive" a length or a count, "steps" a span of time.
    """

    meaning: str
    kind: Kind
    dims: tuple[str, ...] = DIMS  # where each head has one value, the last is missing


NAMES = {
    "candidate": Quantity("new content, before it is written", "signed"),
    "input": Quantity(
        "how much is written: the input gate, 0 ... 1; for exponential gates exp(log_input - stabilizer)", "bounded"
    ),
    "log_input": Quantity("logarithm of an exponential input gate: its preactivation", "log"),
    "forget": Quantity("share of the memory that is kept, 0 ... 1; an exponential forget gate may pass 1", "bounded"),
    "log_forget": Quantity("its logarithm", "log"),
    "half_life": Quantity(
        "steps after which half of the memory is left, at this forget gate: ln 0.5 / log_forget", "steps"
    ),
    "output": Quantity("what the answer is multiplied by", "signed"),
    "write_strength": Quantity(
        "share of the new content in the memory after the step, 0 ... 1; of the error that is written, up to 2 with "
        "negative eigenvalues",
        "bounded",
    ),
    "write_norm": Quantity("length of what the delta rule writes: of the error, times the write strength", "positive"),
    "reset": Quantity("share of the past that the candidate sees, 0 ... 1", "bounded"),
    "step_size": Quantity("how far the memory moves against the gradient of its loss", "positive"),
    "momentum": Quantity("share of the surprise that is carried on, 0 ... 1", "bounded"),
    "surprise": Quantity("length of the memory's error about the value, before it learns from it", "positive"),
    "surprise_norm": Quantity("Frobenius norm of what moves the memory, momentum included", "positive"),
    "error": Quantity("what the memory got wrong about the value, before it is written", "signed"),
    "removal_key": Quantity("under what is removed, of length 1", "signed"),
    "removed": Quantity("what the memory held under the removal key", "signed"),
    "value_residual": Quantity("share of the first layer's values in the values, 0 ... 1", "bounded"),
    "cell": Quantity("memory of each unit, as it is scaled", "signed"),
    "normalizer": Quantity("what the memory's answer is divided by, as it is scaled", "positive"),
    "normalizer_state": Quantity(
        "what the normaliser of a matrix memory is read from: the sum of its keys, as it is scaled", "signed"
    ),
    "stabilizer": Quantity("log scale of memory and normaliser", "signed"),
    "state_norm": Quantity("Frobenius norm of a matrix memory, as it is scaled", "positive"),
    "state_rank": Quantity(
        "effective rank of a matrix memory with singular values s: (sum s^2)^2 / sum s^4, 0 if empty",
        "positive",
    ),
    "hidden": Quantity("what the recurrence returns", "signed"),
    "query": Quantity("what the memory is asked", "signed"),
    "key": Quantity("under what is written", "signed"),
    "value": Quantity("what is written", "signed"),
    "pooling_weights": Quantity("share of each step in a pooled vector, 0 ... 1", "bounded", ("batch", "time")),
    "fusion_gate": Quantity("weight of the first of two encoders, 0 ... 1", "bounded", ("batch", "unit")),
}

# What others call it, and which of ours it may be: the first that a cell has. TransformerLens 4 has the `hook_` names.
ALIASES = {
    "hook_ssm_decay": ("forget",),
    "hook_ssm_write": ("write_strength", "input"),
    "hook_ssm_state": ("cell", "state_norm"),  # of a matrix, its size; memory_at gives the matrix itself
    "hook_ssm_B": ("key",),
    "hook_ssm_C": ("query",),
    "hook_ssm_out": ("hidden",),
    "hook_log_decay": ("log_forget",),
    "hook_beta": ("write_strength",),
    "hook_q": ("query",),
    "hook_k": ("key",),
    "hook_v": ("value",),
    "decay": ("forget",),
    "normaliser": ("normalizer",),
    "stabiliser": ("stabilizer",),
    "beta": ("write_strength",),
    "gate_value": ("fusion_gate",),
}


def ours(name: str, present: Container[str]) -> str:
    """The path with its last part in our vocabulary, where that part is another tool's name."""
    path, _, last = name.rpartition(".")
    head = f"{path}." if path else ""
    choices = [head + own for own in ALIASES.get(last, ())]
    return next((choice for choice in choices if choice in present), choices[0] if choices else name)


def kind_of(name: str) -> Kind:
    """The scale of a quantity, by its path or name; "signed" where the vocabulary does not hold it."""
    known = NAMES.get(name.rpartition(".")[2])
    return "signed" if known is None else known.kind


def dimensions(name: str, rank: int) -> tuple[str, ...]:
    """Names of a quantity's dims."""
    known = NAMES.get(name.rpartition(".")[2])
    return known.dims if known is not None and len(known.dims) == rank else DIMS[:rank]


def derive(quantities: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add what follows from the forget gate in every recurrence: its half-life.

    Raises:
        ValueError: a cell used a name that the vocabulary does not hold.
    """
    if unknown := sorted(quantities.keys() - NAMES.keys()):
        raise ValueError(f"{', '.join(unknown)} is not in the vocabulary; add it to NAMES in workbench/trace/names.py.")
    if "log_forget" not in quantities:
        return quantities
    return quantities | {"half_life": math.log(0.5) / quantities["log_forget"].clamp(max=-1e-30)}
