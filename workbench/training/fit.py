"""The training loop: one function, plain torch, that can be killed at any moment and goes on where it stood."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from workbench.runs.progress import progress
from workbench.training.control import Control, Request
from workbench.training.distributed import inside, interruptions, team, whole
from workbench.training.optimizer import make_optimizer, step_size
from workbench.training.resume import load_progress, progress_file, save_progress


class Diverged(RuntimeError):  # noqa: N818 - the name of the run's status
    """The loss is no longer a number."""


@runtime_checkable
class Batches(Protocol):
    """Data that can be indexed by a tensor of row numbers."""

    def __len__(self) -> int: ...
    def __getitem__(self, which: Tensor) -> Any: ...


class FitParams(BaseModel):
    """How a model is trained.

    Attributes:
        steps: updates at most.
        batch: rows in an update.
        accumulate: parts that a batch is cut into, to save memory; the update is the same.
        lr: step size of AdamW at its height.
        warmup: share of the steps in which it rises.
        weight_decay: of the matrices that may decay (see workbench.training.optimizer).
        clip: largest norm of the gradient.
        evaluate_every: steps between two looks at the validation data; progress is saved then.
        patience: looks without a better one before training stops.
        precision: "fp32", or "bf16" for autocast to bfloat16.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: Annotated[int, Field(ge=1)] = 300
    batch: Annotated[int, Field(ge=1)] = 64
    accumulate: Annotated[int, Field(ge=1)] = 1
    lr: Annotated[float, Field(gt=0, le=1)] = 3e-3
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    evaluate_every: Annotated[int, Field(ge=1)] = 25
    patience: Annotated[int, Field(ge=1)] = 8
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass
class FitResult:
    """How a training went.

    Attributes:
        end: "finished", "stopped early" (nothing got better), "interrupted" (Ctrl-C) or "stopped" (asked to).
        step: updates made.
        best_step, best_valid: where the validation loss was smallest, and what it was; the model has these weights.
        seconds: spent in the loop, all attempts together.
        history: one record for each look: step, train_loss, valid_loss, lr, grad_norm, seconds.
    """

    end: str = "finished"
    step: int = 0
    best_step: int = 0
    best_valid: float = math.inf
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    train: Batches,
    valid: Batches,
    params: FitParams,
    *,
    seed: int = 0,
    folder: Path | None = None,
    observers: Iterable[Callable[[dict], None]] = (),
    label: str = "training",
    control: Control | None = None,
) -> FitResult:
    """Train a model, leave it with the weights that did best on the validation data, and say how it went.

    Ctrl-C ends the loop cleanly and keeps what was learned. With a folder, progress is saved at every look at the
    validation data; called again with the same model, data and settings, training goes on from there.

    Args:
        model: any module.
        loss: `loss(model, batch)`, a mean over the rows of the batch.
        train, valid: data that can be indexed by row numbers.
        params: how to train.
        seed: of the order of the batches and of torch's global generator, which the dropout draws from.
        folder: where progress is kept; None keeps nothing.
        observers, label: called with each record of the history; name in the progress bar.
        control: requests from outside, read between updates: to stop, from where training can go on as if it had not;
            or to probe, for observers that have a method `probe(step)`.

    Raises:
        Diverged, ValueError: the loss became NaN or infinite; there are no rows.
    """
    group, observers = team(), list(observers)
    trained = group.wrap(model)
    kept, optimizer, result, best = begin(trained, train, valid, params, seed, folder)
    started = time.monotonic() - result.seconds
    try:
        with progress(params.steps, label) as bar, interruptions(group) as interrupted:
            bar.update(result.step)
            while result.step < params.steps and result.end == "finished":
                train_loss, norm = update(trained, loss, train, optimizer, params, seed, result.step)
                result.step += 1
                bar.update(1, loss=train_loss)
                asked = group.agree(control.requests() if control and group.first else []) if control else []
                result.seconds = time.monotonic() - started
                if looks := result.step % params.evaluate_every == 0 or result.step == params.steps:
                    record = {"step": result.step, "train_loss": train_loss, "grad_norm": norm}
                    record |= {"seconds": result.seconds, "lr": optimizer.param_groups[0]["lr"]}
                    record["valid_loss"] = evaluate(trained, loss, valid, params)
                    best = judge(result, record, trained, best, params.patience)
                if looks or asked:
                    keep(kept, model, trained, best, optimizer, result)
                for observe in observers if looks else ():
                    observe({"label": label, **record})
                serve(asked, control, observers, result, params)
                group.end_together(interrupted)
    except KeyboardInterrupt:
        result.end = "interrupted"
    take_over(model, best if result.history else weights_of(trained))
    return result


def keep(
    file: Path | None,
    model: nn.Module,
    trained: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    result: FitResult,
) -> None:
    """Save progress, where it is kept, and give the caller's model the weights that are there now."""
    team().check_alike(trained)
    if file is not None:
        save_progress(file, trained, best, optimizer, asdict(result))
    if trained is not model:
        take_over(model, weights_of(trained))


def take_over(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a whole model these weights, which may be in shards."""
    model.load_state_dict({name: whole(x) for name, x in weights.items()})


def begin(
    model: nn.Module, train: Batches, valid: Batches, params: FitParams, seed: int, folder: Path | None
) -> tuple[Path | None, torch.optim.Optimizer, FitResult, dict[str, Tensor]]:
    """Where progress is kept, the optimiser, and a fresh result with the weights as they are, or those that were kept.

    Raises:
        ValueError: no rows.
    """
    if not len(train) or not len(valid):
        raise ValueError(f"there are {len(train)} training and {len(valid)} validation rows; both need at least one.")
    torch.manual_seed(seed + 1_000_003 * team().rank)  # dropout draws from it, for other rows in each process
    optimizer = make_optimizer(inside(model), params.lr, params.weight_decay)
    settings = {**params.model_dump(), "seed": seed, "rows": [len(train), len(valid)]}
    heads = [data[torch.arange(min(len(data), 64))] for data in (train, valid)]
    kept = None if folder is None else progress_file(folder, inside(model), settings, heads)
    if kept is not None and (saved := load_progress(kept, model, optimizer)):
        notes, best = saved
        return kept, optimizer, FitResult(**notes), best
    return kept, optimizer, FitResult(), weights_of(model)


def serve(
    asked: list[Request], control: Control | None, observers: list[Callable], result: FitResult, params: FitParams
) -> None:
    """Do what was asked of a training whose progress is saved; a probe that fails is refused, and training goes on."""
    for request in asked:
        if request.action == "stop":
            if result.end == "finished" and result.step < params.steps:
                result.end = "stopped"
            control.answer(request, "done", step=result.step)
            continue
        probes = [observe.probe for observe in observers if callable(getattr(observe, "probe", None))]
        try:
            found = [str(probe(result.step)) for probe in probes]
        except Exception as error:  # whatever fails in an observer that a stranger asked for, training stands
            control.answer(request, "refused", step=result.step, why=f"{type(error).__name__}: {error}")
            continue
        if found:
            control.answer(request, "done", step=result.step, probes=found)
        else:
            control.answer(request, "refused", step=result.step, why="this training has no probe among its observers")


def update(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    train: Batches,
    optimizer: torch.optim.Optimizer,
    params: FitParams,
    seed: int,
    step: int,
) -> tuple[float, float]:
    """One update of the weights; return the loss before it and the norm of the gradient.

    Raises:
        Diverged: the loss or the gradient is NaN or infinite; the weights are left as they were.
    """
    model.train()
    rows = batch_rows(len(train), params.batch, seed, step)
    optimizer.zero_grad()
    own, total, group = team().own(rows), 0.0, team()
    for part in own.tensor_split(min(params.accumulate, len(rows) // group.size)):
        with half_width(model, params):
            value = loss(model, train[part]) * (len(part) / len(rows))
        (value * group.size).backward()  # of which the processes take the mean
        total += float(value.detach())
    (total,) = group.sum(total)
    norm = float(whole(nn.utils.clip_grad_norm_(model.parameters(), params.clip)))
    if not math.isfinite(total) or not math.isfinite(norm):
        raise Diverged(
            f"at step {step + 1} the loss is {total:g} and the gradient's norm {norm:g}, with lr={params.lr:g}; "
            "try a smaller lr or clip, or look at the data for huge values."
        )
    for group in optimizer.param_groups:
        group["lr"] = params.lr * step_size(step, params.steps, round(params.warmup * params.steps))
    optimizer.step()
    return total, norm


def half_width(model: nn.Module, params: FitParams) -> torch.autocast:
    """A block that computes in bfloat16 where that is asked for; kernels keep their width."""
    device = next(model.parameters()).device
    return torch.autocast(device.type, torch.bfloat16, enabled=params.precision == "bf16")


def batch_rows(rows: int, batch: int, seed: int, step: int) -> Tensor:
    """Rows of an update: each pass over the data has an order of its own, known from the seed alone."""
    batch = min(batch, rows)
    passes, place = divmod(step, rows // batch)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + passes))
    return order[place * batch : (place + 1) * batch]


@torch.no_grad()
def evaluate(model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], data: Batches, params: FitParams) -> float:
    """Mean loss over all rows, without dropout."""
    model.eval()
    total, group = 0.0, team()
    for rows in torch.arange(len(data)).split(4 * params.batch):
        part = rows[group.rank :: group.size]
        with half_width(model, params):  # a process without rows of its own takes part with one that does not count
            total += float(loss(model, data[part if len(part) else rows[:1]])) * len(part)
    return group.sum(total)[0] / len(data)


def judge(
    result: FitResult, record: dict, model: nn.Module, best: dict[str, Tensor], patience: int
) -> dict[str, Tensor]:
    """Enter a look into the result, decide whether to go on, and return the best weights so far.

    Raises:
        Diverged: the validation loss is NaN or infinite.
    """
    if not math.isfinite(record["valid_loss"]):
        raise Diverged(
            f"at step {result.step} the validation loss is {record['valid_loss']:g}; look for missing or huge values "
            "in the validation data, or try a smaller lr."
        )
    result.history.append(record)
    if record["valid_loss"] < result.best_valid:
        result.best_valid, result.best_step = record["valid_loss"], result.step
        return weights_of(model)
    since = sum(1 for past in result.history if past["step"] > result.best_step)
    if since >= patience:
        result.end = "stopped early"
    return best


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights, in shards where the model is."""
    return {name: x.detach().clone() for name, x in inside(model).state_dict().items()}
