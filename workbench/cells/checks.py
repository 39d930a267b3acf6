"""The door of every cell: input, state and lengths, checked before anything is computed."""

import torch
from torch import nn

from workbench.kernels.checks import check_lengths
from workbench.shapes import Tensor


def check_input(
    cell: nn.Module, x: Tensor, state: tuple | None, kind: type[tuple] | tuple[type[tuple], ...], lengths: Tensor | None
) -> None:
    """Refuse what the cell cannot take: x must be (B, T, E), E being `cell.width`, and the state one of its own.

    What is inside the state is checked where it is used, by `check_tail` and by the kernel.

    Args:
        cell: the cell, for its name, width, dtype and device.
        x: what the caller passed for its input.
        state: what the caller passed for its state.
        kind: the state that the cell returns, or each of several.
        lengths: what the caller passed for its lengths.

    Raises:
        TypeError: x is not a floating-point tensor, the state is that of another cell, or lengths are no integers.
        ValueError: a shape, dtype or device differs from the cell's, or lengths are out of range.
    """
    name = type(cell).__name__
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: x must be a floating-point tensor, and is {got}; convert it with .float().")
    if x.ndim != 3 or x.shape[2] != cell.width:
        raise ValueError(
            f"{name}: x is {tuple(x.shape)}, and must be (B, T, E) with E = {cell.width}, the cell's width."
        )
    if x.shape[1] == 0:
        raise ValueError(f"{name}: x has no steps (T = 0); leave the call out, the state stays as it is.")
    weight = next(cell.parameters())
    if x.device != weight.device or not (any(p.dtype == x.dtype for p in cell.parameters()) or cast_by_itself(x)):
        raise ValueError(
            f"{name}: x is {x.dtype} on {x.device}, and the cell is {weight.dtype} on {weight.device}; "
            f"move one to the other with .to()."
        )
    if state is not None and not isinstance(state, kind):
        kinds = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise TypeError(
            f"{name}: state must be None or the {kinds} that {name} returned, and is {type(state).__name__}."
        )
    if isinstance(lengths, Tensor) and lengths.device != x.device:
        raise ValueError(f"{name}: lengths are on {lengths.device}, and x is on {x.device}; move both to one device.")
    check_lengths(name, lengths, *x.shape[:2])


def check_tail(name: str, tail: Tensor, steps: int, x: Tensor) -> None:
    """Refuse inputs kept from the last call that do not go before these.

    Args:
        name: field of the state, for the message.
        tail: what the state holds.
        steps: how many inputs it must hold.
        x: the inputs that follow (B, T, E).

    Raises:
        ValueError: the shape is not (B, steps, E), the device is another, or the dtype is wider than that of x.
    """
    wanted = (x.shape[0], steps, x.shape[2])
    if tuple(tail.shape) != wanted:
        raise ValueError(f"state.{name} is {tuple(tail.shape)}, and must be (B, {steps}, E) = {wanted}.")
    if tail.device != x.device or not (torch.promote_types(tail.dtype, x.dtype) == x.dtype or cast_by_itself(x)):
        raise ValueError(
            f"state.{name} is {tail.dtype} on {tail.device}, and must be {x.dtype} on {x.device} for these inputs; "
            f"convert it with map_state from workbench.cells.states."
        )


def cast_by_itself(x: Tensor) -> bool:
    """Whether torch.autocast is at work, under which inputs and weights may differ in dtype."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)
