"""Training on several processes: each has some rows of every batch; weights are whole in each of them, or in shards.

`torchrun --nproc-per-node 2 -m workbench run forecast --parallel ddp` joins the processes; `fit` asks `team()` for what
they share. One process is a team of one, for which nothing here does anything.

References:
    Li et al. (2020), PyTorch Distributed: Experiences on Accelerating Data Parallel Training, arXiv:2006.15704.
    Zhao et al. (2023), PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, arXiv:2304.11277.
"""

import copy
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Layout = Literal["ddp", "shard"]
T = TypeVar("T")
_TIMEOUT = timedelta(minutes=10)  # for which a process waits for another one


@dataclass(frozen=True)
class Team:
    """The processes that train one model: this one's number, how many there are, and how they hold the weights."""

    rank: int = 0
    size: int = 1
    layout: Layout | None = None

    @property
    def first(self) -> bool:
        """Whether this process keeps the run folder."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model that this process trains; under "shard" another than the caller's, which stays whole.

        The weights are those of the first process.
        """
        if self.size == 1:
            return model
        if self.layout == "ddp":
            return Replica(model, find_unused_parameters=True)
        for x in model.state_dict().values():
            dist.broadcast(x, 0)
        return shards(copy.deepcopy(model))

    def own(self, rows: Tensor) -> Tensor:
        """The rows of a batch that are this process's.

        Raises:
            ValueError: there are fewer rows than processes.
        """
        if len(rows) < self.size:
            raise ValueError(
                f"a batch of {len(rows)} rows cannot be split over {self.size} processes; take a larger one."
            )
        return rows[self.rank :: self.size]

    def sum(self, *values: float) -> list[float]:
        """The sums of numbers over all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def agree(self, value: T) -> T:
        """What the first process has."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def end_together(self, asked: list[int]) -> None:
        """Interrupt all processes when one was asked to end.

        Raises:
            KeyboardInterrupt: one was.
        """
        if self.size > 1 and any(self.sum(len(asked))):
            raise KeyboardInterrupt

    def check_alike(self, model: nn.Module) -> None:
        """Refuse to go on when processes that should hold the same weights do not.

        Raises:
            RuntimeError: they differ.
        """
        if self.size == 1 or self.layout != "ddp":
            return
        own = torch.stack([x.detach().double().sum() for x in model.parameters()]).sum().cpu()
        low, high = own.clone(), own.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if float(high - low) > 1e-9 * (1 + abs(float(own))):
            raise RuntimeError(
                "the processes no longer hold the same weights: the loss must call the model that it is given, and not "
                "another method of it, or a copy."
            )


class Replica(nn.parallel.DistributedDataParallel):
    """DDP that has the attributes of the model inside, so that a loss need not know of it."""

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


_team = Team()


def team() -> Team:
    """The processes that train together with this one."""
    return _team


@contextmanager
def joined(layout: Layout) -> Iterator[Team]:
    """Train together with the other processes that torchrun has started, while the block runs.

    What is on a GPU goes over NCCL, all else over gloo.

    Raises:
        ValueError: not started by torchrun.
    """
    global _team
    if not dist.is_torchelastic_launched():
        raise ValueError("one process cannot train in parallel; use torchrun --nproc-per-node N -m workbench run …")
    on_gpus = torch.cuda.is_available() and torch.cuda.device_count() >= dist.get_node_local_rank(0) + 1
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=_TIMEOUT)
    if on_gpus:
        torch.cuda.set_device(dist.get_node_local_rank(0))
    before, _team = _team, Team(dist.get_rank(), dist.get_world_size(), layout)
    try:
        yield _team
    finally:
        _team = before
        dist.destroy_process_group()


def shards(model: nn.Module) -> nn.Module:
    """The model with its parameters in shards: those of each block together, then the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # Nothing here works in place on what a block returns, which is what torch warns of.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for blocks in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def whole(x: Tensor) -> Tensor:
    """A tensor in one piece, a copy of its own; every process has to call."""
    return (x.full_tensor() if hasattr(x, "full_tensor") else x).detach().clone()


def like(x: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, laid out as another one is."""
    if not hasattr(other, "full_tensor"):
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.to(other.device), other.device_mesh, other.placements)


def inside(model: nn.Module) -> nn.Module:
    """The model without what DDP puts around it."""
    return model.module if isinstance(model, Replica) else model


@contextmanager
def interruptions(team: Team) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM as entries of a list, so that processes agree on when to stop; one alone stops at once."""
    asked: list[int] = []
    if team.size == 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, lambda given, frame: asked.append(given)) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
