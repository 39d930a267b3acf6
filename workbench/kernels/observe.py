"""What only a memory knows at each step: a reference runs step by step, and many states are looked at together."""

from collections.abc import Callable

import torch

from workbench.shapes import Float, Tensor

STRETCH = 64  # states that are held at a time


def observe(
    step: Callable[..., tuple[Tensor, tuple]],
    look: Callable[[tuple[Tensor, ...], list[tuple]], tuple],
    inputs: tuple[Tensor, ...],
    state: tuple,
) -> tuple[Tensor, tuple, tuple]:
    """Run a recurrence over a sequence, and return what `look` finds beside its output and last state.

    Args:
        step: the reference's own, `step(*now, state) -> (y, state)`.
        look: from the inputs of some steps (B, H, T, ...) and the states around them, one more than steps, to a
            NamedTuple of what happened, each (B, H, T, ...).
        inputs: time on axis 2 (B, H, T, ...).
        state: memory to start from.
    """
    outputs, seen = [], []
    for start in range(0, inputs[0].shape[2], STRETCH):
        stretch = tuple(x[:, :, start : start + STRETCH] for x in inputs)
        states = [state]
        for now in zip(*(x.unbind(2) for x in stretch), strict=True):
            y, state = step(*now, state)
            outputs.append(y)
            states.append(state)
        seen.append(look(stretch, states))
    return torch.stack(outputs, 2), state, type(seen[0])(*(torch.cat(x, 2) for x in zip(*seen, strict=True)))


def field(states: list[tuple], name: str) -> Tensor:
    """One field of every state, side by side in time (B, H, T, ...)."""
    return torch.stack([getattr(state, name) for state in states], 2)


def size_and_rank(*layers: Tensor) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
    """Frobenius norm and effective rank of matrices (..., K, V); several are one matrix, block by block.

    With singular values s, the rank is the participation ratio (sum s^2)^2 / sum s^4 = |S|^4 / |S^T S|^2: r where r
    of them are alike and the others 0, less where they differ, and 0 for an empty matrix. Nothing is decomposed,
    and matrices are divided by their largest entry first: no square leaves the range of float32.
    """
    peak = torch.stack([layer.abs().amax((-1, -2)) for layer in layers]).amax(0)
    scale = torch.where(peak.isfinite() & (peak > 0), peak, 1)
    squares, fourths = torch.zeros_like(peak), torch.zeros_like(peak)
    for layer in layers:
        s = layer / scale[..., None, None]
        s = s if s.shape[-2] >= s.shape[-1] else s.mT
        squares = squares + s.square().sum((-1, -2))
        fourths = fourths + (s.mT @ s).square().sum((-1, -2))
    rank = squares.square() / torch.where(peak > 0, fourths, 1)
    return scale * squares.sqrt(), rank
