"""Pieces of a trace: what one run of a cell left, in memory or in a file of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.trace.names import dimensions


@dataclass(frozen=True)
class Kept:
    """One quantity of one run, in memory."""

    name: str
    tensor: Tensor

    @property
    def time(self) -> int | None:
        """Which axis is time, if any."""
        return time_axis(self.name, self.tensor.ndim)

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return 0 if self.time is None else self.tensor.shape[self.time]

    def take(self, start: int | None, stop: int | None) -> Tensor:
        """The steps from start to stop."""
        return self.tensor if self.time is None else self.tensor.movedim(self.time, 0)[start:stop].movedim(0, self.time)


@dataclass(frozen=True)
class Stored:
    """One quantity of one run, in a safetensors file."""

    name: str
    file: Path
    shape: tuple[int, ...]

    @property
    def time(self) -> int | None:
        """Which axis is time, if any."""
        return time_axis(self.name, len(self.shape))

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return 0 if self.time is None else self.shape[self.time]

    def take(self, start: int | None, stop: int | None) -> Tensor:
        """The steps from start to stop, read from the file."""
        with safe_open(self.file, "pt") as file:
            before = (slice(None),) * (self.time or 0)
            return file.get_slice(self.name)[(*before, slice(start, stop))]


Piece = Kept | Stored


def time_axis(name: str, rank: int) -> int | None:
    """Which axis of a quantity is time, if any."""
    dims = dimensions(name, rank)
    return dims.index("time") if "time" in dims else None


def write_piece(folder: Path, number: int, quantities: Mapping[str, Tensor]) -> list[Stored]:
    """Write the quantities of one run to the file of that number."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{number:05d}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in quantities.items()}, file)
    return [Stored(name, file, tuple(tensor.shape)) for name, tensor in quantities.items()]


def open_pieces(folder: Path, files: Mapping[str, list[str]]) -> dict[str, list[Piece]]:
    """The pieces that a trace's card lists; only headers are read.

    Raises:
        OSError, SafetensorError: a file is missing or damaged.
        ValueError: a file does not hold what the card says.
    """
    shapes = {}
    for name in dict.fromkeys(file for pieces in files.values() for file in pieces):
        with safe_open(folder / name, "pt") as file:
            shapes[name] = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    lost = [name for name, pieces in files.items() for file in pieces if name not in shapes[file]]
    if lost:
        raise ValueError(f"{folder} is damaged: {lost[0]} is not in the file that its card names. Record it again.")
    return {
        name: [Stored(name, folder / file, shapes[file][name]) for file in pieces] for name, pieces in files.items()
    }
