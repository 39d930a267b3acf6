"""What can be forced in a cell: how the value of a quantity becomes an input of the cell's kernel.

Every cell has a table `levers()`, from names of the vocabulary (workbench.trace.names) to levers, and says in `SILENT`
which of them make a head answer nothing. Kernels stay as they are; see `workbench.trace.edits`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from workbench.cells.parts import merge_heads, split_heads
from workbench.kernels.checks import inside
from workbench.shapes import Bool, Int, Tensor

FAR = 1000.0  # a preactivation at which every gate is 0 or 1 to the last bit; infinity would make NaN of 0 times it


class Lever(NamedTuple):
    """One quantity that can be forced, and what becomes of its value.

    A gate that depends on the last output exists only inside the loop. Its input part becomes what makes the value
    alone, and its recurrent weights are 0 for the units in question.
    """

    field: str  # of the kernel's inputs
    inverse: Callable[[Tensor], Tensor]  # from the quantity to what the field holds
    low: float = 0.0
    high: float = 1.0
    row: int | None = None  # which gate, where the field holds several (G, B, H, T, D), with weights `r` (G, H, D, D)
    bias: str | None = None  # the field that adds to that gate inside the loop (H, D)
    merged: bool = False  # whether the field holds the heads side by side (B, T, E)


def itself(x: Tensor) -> Tensor:
    """The value is what the kernel takes."""
    return x


def before_sigmoid(x: Tensor) -> Tensor:
    """The preactivation of a sigmoid gate."""
    return torch.logit(x).clamp(-FAR, FAR)


def before_tanh(x: Tensor) -> Tensor:
    """The preactivation of a candidate."""
    return torch.atanh(x).clamp(-FAR, FAR)


def before_log_sigmoid(x: Tensor) -> Tensor:
    """The preactivation of a sigmoid gate, from the gate's logarithm."""
    return (x - torch.log(-torch.expm1(x))).clamp(-FAR, FAR)


def not_too_far(x: Tensor) -> Tensor:
    """A logarithm, with -1000 for that of 0."""
    return x.clamp(-FAR, FAR)


def forget_levers(
    field: str, of_log: Callable[[Tensor], Tensor], *, row: int | None = None, grows: bool = False
) -> dict[str, Lever]:
    """One forget gate by its three names: itself, its logarithm, and the half-life that it makes.

    Args:
        field, row: see `Lever`.
        of_log: from the logarithm of the gate to what the field holds.
        grows: whether the gate may pass 1, as an exponential one may.
    """
    most, highest = (math.inf, FAR) if grows else (1.0, 0.0)
    return {
        "forget": Lever(field, lambda x: of_log(torch.log(x)), 0.0, most, row),
        "log_forget": Lever(field, of_log, -math.inf, highest, row),
        "half_life": Lever(field, lambda x: of_log(math.log(0.5) / x), 0.0, math.inf, row),
    }


def anything(field: str, *, merged: bool = False) -> Lever:
    """A lever for what has no range: keys, queries, values, and gates that are no sigmoids."""
    return Lever(field, itself, -math.inf, math.inf, merged=merged)


def log_input_lever(field: str, row: int | None = None) -> Lever:
    """A lever for the preactivation of an exponential input gate."""
    return Lever(field, itself, -FAR, FAR, row)


def pull(
    lever: Lever,
    at: tuple,
    target: Tensor,
    which: tuple[tuple[int, ...] | None, tuple[int, ...] | None],
    heads: int,
    lengths: Int[Tensor, " B"] | None,
) -> tuple:
    """The inputs of a kernel with one quantity forced.

    Args:
        lever: which.
        at: the kernel's inputs, a NamedTuple.
        target: what the field becomes, broadcast to (B, H, T) or (B, H, T, D); NaN leaves a place as it is.
        which: heads, and units; None is all.
        heads: heads of the cell.
        lengths: steps of each sequence (B,).

    Raises:
        ValueError: a shape, heads or units that do not fit, or NaN where a gate depends on the last output.
    """
    held = getattr(at, lever.field)
    old = held if lever.row is None else held[lever.row]
    old = split_heads(held, heads) if lever.merged else old
    target, there = spread(target, old), chosen(old, *which)
    own = torch.isnan(target)
    new = torch.where(there & ~own, torch.where(own, 0, target).to(old), old)
    if lever.merged:
        return at._replace(**{lever.field: merge_heads(new)})
    if lever.row is None:
        return at._replace(**{lever.field: new})
    alive = own if lengths is None else own & inside(lengths, old.shape[2])[:, None, :, None]
    if bool((alive & there).any()):
        raise ValueError(
            "NaN leaves a step to the model, and this gate depends on the last output: force it at every step."
        )
    units = there[0, :, 0]  # (H, D)
    gate = torch.zeros(len(held), 1, 1, dtype=torch.bool, device=old.device)
    gate[lever.row] = True
    biases = {} if lever.bias is None else {lever.bias: getattr(at, lever.bias).masked_fill(units, 0)}
    rows = torch.stack([new if row == lever.row else x for row, x in enumerate(held)])
    return at._replace(**{lever.field: rows}, r=at.r.masked_fill((gate & units)[..., None], 0), **biases)


def spread(target: Tensor, old: Tensor) -> Tensor:
    """The target in the shape of what it replaces."""
    letters = "(B, H, T, D)" if old.ndim == 4 else "(B, H, T)"
    try:
        return target.to(old.device).expand(old.shape)
    except RuntimeError:
        raise ValueError(
            f"the value is {tuple(target.shape)}, and must broadcast to {letters} = {tuple(old.shape)}."
        ) from None


def chosen(old: Tensor, heads: tuple[int, ...] | None, units: tuple[int, ...] | None) -> Bool[Tensor, "1 H 1 *D"]:
    """True for the heads and units in question, (1, H, 1[, D])."""
    if units is not None and old.ndim < 4:
        raise ValueError("each head has one value here, and no units; leave units out.")
    axes = [("head", heads, old.shape[1])] + ([("unit", units, old.shape[3])] if old.ndim == 4 else [])
    found = []
    for what, which, count in axes:
        if wrong := [at for at in which or () if not 0 <= at < count]:
            raise ValueError(f"there is no {what} {', '.join(map(str, wrong))}; {what}s are 0 to {count - 1}.")
        flags = [which is None or at in which for at in range(count)]
        found.append(torch.tensor(flags, device=old.device))
    there = found[0][None, :, None]
    return there if old.ndim < 4 else there[..., None] & found[1]
