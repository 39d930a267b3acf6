"""A small training that others can follow, probe and stop: an experiment for the tests of the live view."""

import time
from dataclasses import dataclass

import torch

from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import XLSTMStackConfig
from workbench.runs.folder import Run
from workbench.runs.params import Params as BaseParams
from workbench.trace.probe import Probe
from workbench.training.control import Control
from workbench.training.fit import FitParams, fit


class Params(BaseParams):
    """Updates, updates between looks, a pause at each look, and how it ends: well, or with an error."""

    steps: int = 100_000
    evaluate_every: int = 5
    pause: float = 0.0
    end: str = "ok"


@dataclass(frozen=True)
class Result:
    """How the training ended."""

    ended: str
    updates: int


class Windows:
    """Noise, whose last value is to be said again."""

    def __init__(self, rows: int, seed: int) -> None:
        self.x = torch.randn(rows, 48, 1, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: torch.Tensor) -> torch.Tensor:
        return self.x[which]


def loss(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Squared error of the first step ahead against the first value of the window."""
    return (model(x, torch.zeros(len(x), 1, 0))[:, 0, 1] - x[:, 40, 0]).square().mean()


def run(params: Params, run: Run) -> Result:
    """Train a small xLSTM as slowly as is asked for."""
    torch.set_num_threads(1)
    if params.end != "ok":
        raise RuntimeError(params.end)
    stack = XLSTMStackConfig(width=16, layers=2, heads=2, slstm_at=(0,))
    model = ForecasterConfig(inputs=1, horizon=1, stack=stack).build(0)
    probe = Probe(model, (Windows(2, 9).x, torch.zeros(2, 1, 0)), run, every=2)
    probe.probe(0)

    def log(record: dict) -> None:
        run.log(**record)
        time.sleep(params.pause)

    fit_params = FitParams(steps=params.steps, batch=16, evaluate_every=params.evaluate_every, patience=10**6)
    result = fit(
        model, loss, Windows(64, 0), Windows(16, 1), fit_params, folder=run.checkpoints,
        observers=[log, probe], label="xLSTM", control=Control(run),
    )  # fmt: skip
    if result.end == "interrupted":
        raise KeyboardInterrupt
    return Result(result.end, result.step)
