"""A small experiment that really trains: a line through noisy points, with settings that matter."""

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from workbench.cells.roles import tag
from workbench.experiments.result import Result
from workbench.runs.folder import Run
from workbench.runs.params import Params as BaseParams
from workbench.runs.params import Search
from workbench.training.fit import FitParams, fit


class Params(BaseParams):
    """Parameters."""

    lr: Annotated[float, Field(gt=0), Search(1e-4, 1.0, log=True)] = 1e-2
    batch: Annotated[int, Field(ge=1), Search(2, 16)] = 8
    kind: Annotated[Literal["plain", "deep"], Search(choices=("plain", "deep"))] = "plain"
    width: Annotated[int, Field(ge=1), Search(2, 8, when={"kind": "deep"})] = 4
    steps: int = 40
    pause: float = 0.0  # seconds of each step
    fail: str = ""
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if self.batch == 13:
            raise ValueError("batch=13 brings bad luck")
        return self


class Points:
    """Rows that can be indexed."""

    def __init__(self, rows: int, seed: int, pause: float) -> None:
        self.x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
        self.y, self.pause = self.x @ torch.tensor([1.0, -2.0]) + 0.1 * self.x[:, 0].sin(), pause

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(self.pause)
        return self.x[which], self.y[which]


def run(params: Params, run: Run) -> Result:
    """Train it, and leave a line for every process that trained."""
    if params.fail:
        raise RuntimeError(params.fail)
    torch.manual_seed(params.seed)
    hidden = params.width if params.kind == "deep" else 1
    model = tag("projection", nn.Sequential(nn.Linear(2, hidden), nn.Linear(hidden, 1)))
    with open(Path(os.environ.get("TOY_LOG", run.path / "toy.log")), "a") as log:
        log.write(f"{run.name} {os.getpid()}\n")
    costs = {"line": {"parameters": sum(x.numel() for x in model.parameters())}}
    run.out("costs", costs)
    how = FitParams(steps=params.steps, batch=params.batch, lr=min(params.lr, 1.0), evaluate_every=10, patience=100)
    result = fit(
        model, lambda model, batch: ((model(batch[0])[:, 0] - batch[1]) ** 2).mean(),
        Points(64, params.seed, params.pause), Points(32, 99, 0.0), how,
        seed=params.seed, folder=run.checkpoints / "line", observers=[lambda record: run.log(**record)], label="line",
    )  # fmt: skip
    if result.end in ("interrupted", "stopped"):
        raise KeyboardInterrupt(result.end)
    run.out("fit_seconds", result.seconds)
    return Result(
        __name__,
        params.model_dump(),
        "m",
        {"line": {"mae": result.best_valid}},
        valid={"line": result.best_valid},
        costs=costs,
    )
