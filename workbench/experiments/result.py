"""What an experiment found, as a notebook, a batch or a comparison reads it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """The outcome of one run of one experiment.

    Attributes:
        experiment: module name of the experiment.
        params: its parameters, as plain values.
        unit: of the errors.
        scores: model to its scores, smallest error first.
        findings: what was seen, in sentences.
        seconds: how long it took.
        valid: model to its error on the validation data; the only error that a search may choose by.
        costs: model to what it costs: "parameters", "latency_ms" (one forward pass of one window).
        blocks: model to its error in each block of the test data, the same blocks for all; what a paired
            comparison of several runs needs.
    """

    experiment: str
    params: dict
    unit: str
    scores: dict[str, dict[str, float]]
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    valid: dict[str, float] = field(default_factory=dict)
    costs: dict[str, dict[str, float | int]] = field(default_factory=dict)
    blocks: dict[str, list[float]] = field(default_factory=dict)
