"""Pairs of keys and values, written into a matrix memory by the kernels themselves and read back, beside the theory.

Keys and values are random unit vectors. The error of an answer is |answer - v|^2: 0 is perfect, and 1 is what an empty
memory gets, which answers nothing.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Sec. 2.3: the covariance rule.
    Schlag, Irie & Schmidhuber (2021), Linear Transformers Are Secretly Fast Weight Programmers, arXiv:2102.11174:
    capacity and interference, and the delta rule.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from workbench.kernels.gated_delta import gated_delta
from workbench.kernels.mlstm import mlstm, mlstm_sigmoid
from workbench.kernels.neural_memory import neural_memory
from workbench.kernels.observe import size_and_rank
from workbench.kernels.rwkv7 import rwkv7
from workbench.shapes import Float, Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, tuple | None], tuple[Tensor, tuple]]


def _outer(q: Tensor, k: Tensor, v: Tensor, write: Tensor, keep: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
    return mlstm_sigmoid(q * k.shape[-1] ** 0.5, k, v, torch.logit(write), torch.logit(keep), state)


def _mlstm(q: Tensor, k: Tensor, v: Tensor, write: Tensor, keep: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
    return mlstm(q * k.shape[-1] ** 0.5, k, v, torch.log(write), torch.logit(keep), state)


def _delta(q: Tensor, k: Tensor, v: Tensor, write: Tensor, keep: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
    return gated_delta(q, k, v, write, torch.log(keep), state)


def _titans(q: Tensor, k: Tensor, v: Tensor, write: Tensor, keep: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
    return neural_memory(q, k, v, 1 - keep, torch.zeros_like(keep), write / 2, state)


def _rwkv7(q: Tensor, k: Tensor, v: Tensor, write: Tensor, keep: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
    write, keep = (x[..., None].expand_as(k) for x in (write, keep))
    return rwkv7(q, torch.log(keep), write * k, v, k, write, state)


# Each writes a share `write` of a pair and keeps a share `keep` of the rest; q and k have length 1.
MEMORIES: dict[str, tuple[Kernel, str]] = {
    "outer product": (_outer, "c"),
    "mLSTM": (_mlstm, "c"),
    "delta rule": (_delta, "s"),
    "Titans": (_titans, "m"),
    "RWKV-7": (_rwkv7, "s"),
}


def write(
    memory: str, k: Float[Tensor, "S 1 N K"], v: Float[Tensor, "S 1 N V"], *, keep: float = 1.0, passes: int = 1
) -> tuple:
    """The state of an empty memory after every pair was written once, in order, or several times over.

    Args:
        memory: a name in `MEMORIES`.
        k, v: pairs; each set S has a memory of its own.
        keep: share of the memory that a step keeps.
        passes: how often the list is gone through.
    """
    run, state = MEMORIES[memory][0], None
    gate = torch.ones_like(k[..., 0])
    for _ in range(passes):
        _, state = run(k, k, v, gate, keep * gate, state)
    return state


def read(memory: str, state: tuple, k: Float[Tensor, "S 1 N K"], width: int) -> Float[Tensor, "S 1 N V"]:
    """What a memory answers to keys: steps that write nothing and forget nothing.

    Args:
        memory: a name in `MEMORIES`.
        state: what `write` returned.
        k: keys to ask for.
        width: size V of a value.
    """
    gate = torch.zeros_like(k[..., 0])
    return MEMORIES[memory][0](k, k, k.new_zeros(*k.shape[:3], width), gate, gate + 1, state)[0]


def matrix(memory: str, state: tuple) -> Float[Tensor, "S 1 K V"]:
    """The matrix of a state, keys first."""
    return getattr(state, MEMORIES[memory][1])


def unit_vectors(sets: int, count: int, size: int, g: torch.Generator) -> Float[Tensor, "S 1 N K"]:
    """Random directions, float64."""
    x = torch.randn(sets, 1, count, size, generator=g, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def alike_keys(sets: int, count: int, size: int, likeness: float, g: torch.Generator) -> Float[Tensor, "S 1 N K"]:
    """Keys of length 1 whose dot products are `likeness` on average: one direction in common, the rest at random."""
    shared, own = unit_vectors(sets, 1, size, g), unit_vectors(sets, count, size, g)
    own = own - (own * shared).sum(-1, keepdim=True) * shared
    own = own / own.norm(dim=-1, keepdim=True)
    return math.sqrt(likeness) * shared + math.sqrt(1 - likeness) * own


def squared_errors(
    memory: str, k: Float[Tensor, "S 1 N K"], v: Float[Tensor, "S 1 N V"], *, keep: float = 1.0, passes: int = 1
) -> np.ndarray:
    """Squared error of the answer to each key, after all were written (S, N)."""
    state = write(memory, k, v, keep=keep, passes=passes)
    answer = read(memory, state, k, v.shape[-1])
    return (answer - v).square().sum(-1)[:, 0].numpy()


def over_loads(memory: str, loads: list[int], *, size: int, sets: int, passes: int = 1, seed: int = 0) -> np.ndarray:
    """Mean squared error of each set, for each number of pairs written (S, X); all memories get the same pairs."""
    found = []
    for load in loads:
        g = torch.Generator().manual_seed(1_000 * seed + load)
        k, v = unit_vectors(sets, load, size, g), unit_vectors(sets, load, size, g)
        found.append(squared_errors(memory, k, v, passes=passes).mean(1))
    return np.stack(found, 1)


def ranks(memory: str, loads: list[int], *, size: int, sets: int, seed: int = 0) -> np.ndarray:
    """Effective rank of each memory, for each number of pairs written (S, X): of `over_loads`, the same pairs."""
    found = []
    for load in loads:
        g = torch.Generator().manual_seed(1_000 * seed + load)
        k, v = unit_vectors(sets, load, size, g), unit_vectors(sets, load, size, g)
        found.append(size_and_rank(matrix(memory, write(memory, k, v)))[1][:, 0].numpy())
    return np.stack(found, 1)


def over_likeness(memory: str, likeness: list[float], *, size: int, pairs: int, sets: int, seed: int = 0) -> np.ndarray:
    """Mean squared error of each set, for each likeness of the keys (S, X)."""
    found = []
    for alike in likeness:
        g = torch.Generator().manual_seed(seed)
        k, v = alike_keys(sets, pairs, size, alike, g), unit_vectors(sets, pairs, size, g)
        found.append(squared_errors(memory, k, v).mean(1))
    return np.stack(found, 1)


def over_ages(memory: str, *, size: int, pairs: int, sets: int, keep: float = 1.0, seed: int = 0) -> np.ndarray:
    """Squared error of each pair, by the number of pairs that were written after it (S, N), the newest first."""
    g = torch.Generator().manual_seed(seed)
    k, v = unit_vectors(sets, pairs, size, g), unit_vectors(sets, pairs, size, g)
    return squared_errors(memory, k, v, keep=keep)[:, ::-1]


def rewrite(
    memory: str, *, size: int, between: int, sets: int, keep: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Write a value, other pairs, then another value under the first key; what the answer to it holds of each.

    Returns:
        The share of the old value and of the new one in each set (S,): of the old and the new, the multiples that
        come nearest to the answer.
    """
    g = torch.Generator().manual_seed(seed)
    k, v = (unit_vectors(sets, between + 2, size, g) for _ in range(2))
    k[:, :, -1] = k[:, :, 0]
    answer = read(memory, write(memory, k, v, keep=keep), k[:, :, -1:], size)
    values = v[:, 0, [0, -1]].mT  # (S, V, 2)
    shares = torch.linalg.lstsq(values, answer[:, 0].mT).solution[..., 0].numpy()
    return shares[:, 0], shares[:, 1]


def overlap(size: int, likeness: float | None = None) -> float:
    """Mean square of the dot product of two keys: of random directions, or of `alike_keys`."""
    return 1 / size if likeness is None else likeness**2 + (1 - likeness) ** 2 / (size - 1)


def outer_theory(pairs: int, overlap: float, *, keep: float = 1.0) -> np.ndarray:
    """Expected squared error of the outer-product rule by age (N,), exact for values of random direction.

    A pair of age d is left with weight f^d, and every other one adds its value, times its weight and the overlap of
    the keys: (1 - f^d)^2 + E (k.k')^2 (sum of all f^2d - its own). With f = 1 this is N - 1 overlaps, (N - 1) / K.
    """
    weight = keep ** np.arange(pairs)
    return (1 - weight) ** 2 + overlap * ((weight**2).sum() - weight**2)


def delta_theory(pairs: int, size: int) -> np.ndarray:
    """Expected squared error of the delta rule by age (N,), exact for random directions written once, with strength 1.

    A later write removes what it finds under its key. With a = 1 - 1/K, and c_m what is left, along its own key, of a
    pair after m later ones: E c_m = a^m, and c_m^2 has a recursion, since E (p.x)^2 (p.y)^2 = (x^2 y^2 + 2 (x.y)^2) /
    K (K + 2) for a random direction p. What is gone is replaced by answers to other keys, older (those whose share of
    the memory has survived, 1 - a^n for n writes) and newer.
    """
    a, age = 1 - 1 / size, np.arange(pairs)
    square = np.ones(pairs)
    for m in age[1:]:
        square[m] = (1 - 2 / size + 2 / (size * (size + 2))) * square[m - 1] + a ** (m - 1) / (size * (size + 2))
    lost = square - 2 * a**age + 1
    older = (a**age - square) * (1 - a ** (pairs - 1 - age))
    newer = 1 - a**age
    return lost + older + newer


def rank_theory(pairs: int, size: int) -> float:
    """Effective rank of a sum of outer products, (E sum s^2)^2 / E sum s^4: a ratio of means, not the mean of ratios.

    Of M = sum k v^T, E |M|^2 = N and E |M^T M|^2 = N (1 + (N - 1) (2 / K + 1 / K^2)) with K = V: the rank rises like N
    at first, and ends near K / 2.
    """
    return pairs / (1 + (pairs - 1) * (2 / size + 1 / size**2))


def least_error(pairs: int, size: int) -> float:
    """The least mean squared error that any K x V matrix can have, on average: 0 up to K pairs, then 1 - K / N."""
    return max(0.0, 1 - size / pairs)


def deviations(measured: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How far means over sets are from what is expected, in standard errors (X,); 0 where nothing varies.

    Args:
        measured: one row for each set (S, X).
        expected: (X,).
    """
    error = measured.std(0, ddof=1) / math.sqrt(len(measured))
    difference = measured.mean(0) - expected
    return np.divide(difference, error, out=np.zeros_like(difference), where=error > 1e-12)
