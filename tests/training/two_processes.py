"""What two processes do together: `python -m torch.distributed.run --nproc-per-node 2 THIS FOLDER ddp|shard`.

Runs on GPUs where there are some.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from workbench.cells.roles import tag
from workbench.training.distributed import Replica, joined
from workbench.training.fit import FitParams, fit

PARAMS = FitParams(steps=12, batch=10, accumulate=2, lr=1e-2, clip=0.5, evaluate_every=3, patience=9)
HALF = 6  # the step at which a training is interrupted


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = tag("core", nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Itself, and a little more."""
        return x + torch.tanh(self.inner(x))


class Net(nn.Module):
    """Two blocks between two projections."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enter = tag("input", nn.Linear(3, width))
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.leave = tag("head", nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One number for each row."""
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)[:, 0]


class Rows:
    """Rows on the device of the model."""

    def __init__(self, count: int, seed: int, device: str) -> None:
        self.x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).to(device)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: torch.Tensor) -> torch.Tensor:
        return self.x[which.to(self.x.device)]


def net(device: str = "cpu") -> Net:
    """The same fresh weights each time."""
    torch.manual_seed(3)
    return Net().to(device)


def data(device: str = "cpu") -> tuple[Rows, Rows]:
    """Training and validation rows; 23 leaves one process with fewer."""
    return Rows(47, 1, device), Rows(23, 2, device)


def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Mean squared error against a product."""
    return ((model(x) - x[:, 0] * x[:, 1]) ** 2).mean()


class Interrupt:
    """An observer that interrupts a training in the middle."""

    def __call__(self, record: dict) -> None:
        """A look."""
        if record["step"] == HALF:
            raise KeyboardInterrupt


def losses(folder: Path | None, *, stop: bool = False, device: str = "cpu") -> list[float]:
    """Train, or go on with training, and return every loss and every weight that there is in the end."""
    model = net(device)
    result = fit(model, loss, *data(device), PARAMS, seed=5, folder=folder, observers=[Interrupt()] if stop else [])
    assert result.end == ("interrupted" if stop else "finished"), result.end
    assert all(type(x) is nn.Parameter for x in model.parameters()), "the caller's model stays whole"
    numbers = [
        value for look in result.history for value in (look["train_loss"], look["valid_loss"], look["grad_norm"])
    ]
    return numbers + [float(x.detach().double().sum()) for x in model.parameters()]


def wrapping(device: str) -> dict[str, object]:
    """What the loss is given while two processes train."""
    seen = {}

    def look(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        local = [getattr(p, "_local_tensor", p) for p in model.parameters()]
        seen.update(replica=isinstance(model, Replica), local=sum(p.numel() for p in local), rows=len(x))
        seen["sharded"] = sum(type(module).__name__.startswith("FSDP") for module in model.modules())
        return loss(model, x)

    fit(net(device), look, *data(device), PARAMS.model_copy(update={"steps": 1}))
    return seen


def refused(call: object) -> str:
    """The error that something raises."""
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def around(device: str) -> None:
    """A loss that does not call the model that it is given."""
    model = net(device)
    fit(model, lambda given, x: loss(model, x), *data(device), PARAMS, seed=5)


def everything(folder: Path, layout: str, device: str) -> dict[str, object]:
    """All that two processes do in one layout."""
    found = {"losses": losses(None, device=device), "wrapping": wrapping(device)}
    found["from one"] = losses(folder / f"one-{layout}", device=device)
    for after in ("one", "other"):
        losses(folder / f"{layout}-{after}", stop=True, device=device)
    few = PARAMS.model_copy(update={"batch": 1})
    found["few"] = refused(lambda: fit(net(device), loss, *data(device), few))
    if layout == "ddp":
        found["around"] = refused(lambda: around(device))
    return found


def main(folder: Path, layout: str) -> None:
    """Everything in a layout; where it is done, what the other layout left is finished."""
    other = {"ddp": "shard", "shard": "ddp"}[layout]
    with joined(layout) as team:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        done = team.agree((folder / f"{layout}-other").exists())
        found = (
            {"moved": losses(folder / f"{other}-other", device=device)} if done else everything(folder, layout, device)
        )
        if team.first:
            (folder / f"{layout}{'-moved' if done else ''}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
