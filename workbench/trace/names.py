"""The vocabulary of traces: one name for one quantity, in every recurrence.

A quantity has dims (batch, head, time), or (batch, head, time, unit) where each unit has its own.
"""

import math

from workbench.shapes import Tensor

NAMES = {
    "candidate": "new content, before it is written",
    "input": "how much is written: the input gate, 0 ... 1; for exponential gates exp(log_input - stabilizer)",
    "log_input": "logarithm of an exponential input gate: its preactivation",
    "forget": "share of the memory that is kept, 0 ... 1",
    "log_forget": "its logarithm",
    "half_life": "steps after which half of the memory is left, at this forget gate: ln 0.5 / log_forget",
    "output": "what the answer is multiplied by",
    "write_strength": "share of the new content in the memory after the step, 0 ... 1; of the error that is written, "
    "up to 2 with negative eigenvalues",
    "reset": "share of the past that the candidate sees, 0 ... 1",
    "step_size": "how far the memory moves against the gradient of its loss",
    "momentum": "share of the surprise that is carried on, 0 ... 1",
    "surprise": "length of the memory's error about the value, before it learns from it",
    "surprise_norm": "Frobenius norm of what moves the memory, momentum included",
    "error": "what the memory got wrong about the value, before it is written",
    "removal_key": "under what is removed, of length 1",
    "removed": "what the memory held under the removal key",
    "value_residual": "share of the first layer's values in the values, 0 ... 1",
    "cell": "memory of each unit, as it is scaled",
    "normalizer": "what the memory's answer is divided by, as it is scaled",
    "normalizer_state": "what the normaliser of a matrix memory is read from: the sum of its keys, as it is scaled",
    "stabilizer": "log scale of memory and normaliser",
    "state_norm": "Frobenius norm of a matrix memory, as it is scaled",
    "hidden": "what the recurrence returns",
    "query": "what the memory is asked",
    "key": "under what is written",
    "value": "what is written",
}


def dimensions(tensor: Tensor) -> tuple[str, ...]:
    """Names of a quantity's dims."""
    return ("batch", "head", "time", "unit")[: tensor.ndim]


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
