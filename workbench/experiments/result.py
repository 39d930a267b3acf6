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
    """

    experiment: str
    params: dict
    unit: str
    scores: dict[str, dict[str, float]]
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0
