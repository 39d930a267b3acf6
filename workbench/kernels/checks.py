"""The door of every kernel: shapes, dtypes and lengths, checked in one place."""

import torch
from torch import Tensor


def check_shapes(kernel: str, **named: tuple[Tensor, str]) -> dict[str, int]:
    """Bind the letters of each template to sizes, and refuse tensors that disagree.

    Args:
        kernel: name of the kernel, for the message.
        named: argument name to (tensor, template), such as `k=(k, "B H T K")`. A number stands for itself.

    Returns:
        The size of each letter.

    Raises:
        TypeError: an argument is not a floating-point tensor.
        ValueError: rank, size, device or dtype differs from what the arguments before it fix.
    """
    sizes: dict[str, int] = {}
    first_name, first = "", None
    for name, (tensor, template) in named.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(
                f"{kernel}: {name} must be a floating-point tensor, and is {got}; convert it with .float()."
            )
        letters = template.split()
        for letter, size in zip(letters, tensor.shape, strict=False):
            sizes.setdefault(letter, int(letter) if letter.isdigit() else size)
        wanted = [sizes.get(letter) for letter in letters]
        if "T" in letters and sizes.get("T") == 0:
            raise ValueError(f"{kernel}: {name} has no steps (T = 0); leave the call out, the state stays as it is.")
        if list(tensor.shape) != wanted:
            shape = ", ".join("?" if size is None else str(size) for size in wanted)
            raise ValueError(
                f"{kernel}: {name} is {tuple(tensor.shape)}, and must be ({', '.join(letters)}) = ({shape})."
            )
        if first is None:
            first_name, first = name, tensor
        elif (tensor.device, tensor.dtype) != (first.device, first.dtype):
            raise ValueError(
                f"{kernel}: {name} is {tensor.dtype} on {tensor.device}, and {first_name} is {first.dtype} on "
                f"{first.device}; move both to one dtype and device."
            )
    return sizes


def check_state(
    kernel: str, state: tuple | None, kind: type[tuple], sizes: dict[str, int], like: Tensor, *templates: str
) -> None:
    """Refuse a state that another kernel made, or this one for another batch.

    Args:
        kernel: name of the kernel, for the message.
        state: what the caller passed.
        kind: the kernel's own state.
        sizes: the letters bound by `check_shapes`.
        like: an input, for the device, and for the dtype in float32 or wider.
        templates: the shape of each field, in order.

    Raises:
        TypeError: the state is not a `kind`.
        ValueError: a field has another shape, dtype or device.
    """
    if state is None:
        return
    if not isinstance(state, kind):
        got = type(state).__name__
        raise TypeError(f"{kernel}: state must be None or the {kind.__name__} that {kernel} returned, and is {got}.")
    for name, field, template in zip(kind._fields, state, templates, strict=True):
        wanted = tuple(sizes[letter] for letter in template.split())
        if tuple(field.shape) != wanted:
            letters = ", ".join(template.split())
            raise ValueError(f"{kernel}: state.{name} is {tuple(field.shape)}, and must be ({letters}) = {wanted}.")
        if (field.dtype, field.device) != (compute_dtype(like), like.device):
            raise ValueError(
                f"{kernel}: state.{name} is {field.dtype} on {field.device}, and must be {compute_dtype(like)} on "
                f"{like.device} for these inputs; convert it with map_state from workbench.cells.states."
            )


def check_lengths(kernel: str, lengths: Tensor | None, batch: int, steps: int) -> None:
    """Refuse lengths that are not one whole number from 0 to T for each sequence.

    A compiled or exported graph cannot look at values: there the range goes unchecked.

    Raises:
        TypeError: not an integer tensor.
        ValueError: wrong shape or out of range.
    """
    if lengths is None:
        return
    if not isinstance(lengths, Tensor) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise TypeError(f"{kernel}: lengths must be a tensor of whole numbers, one for each sequence.")
    if lengths.shape != (batch,):
        raise ValueError(f"{kernel}: lengths is {tuple(lengths.shape)}, and must be (B,) = ({batch},).")
    if torch.compiler.is_compiling():
        return
    low, high = (int(lengths.min()), int(lengths.max())) if batch else (0, 0)
    if low < 0 or high > steps:
        raise ValueError(f"{kernel}: lengths run from {low} to {high}, and must stay between 0 and T = {steps}.")


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The width in which states and sums are kept: float32, or wider where the input is."""
    return torch.promote_types(tensor.dtype, torch.float32)


def inside(lengths: Tensor, steps: int) -> Tensor:
    """True where a step belongs to its sequence, False on the padding behind it (B, T)."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def silence(y: Tensor, lengths: Tensor | None, time: int = 2) -> Tensor:
    """Zero what lies behind the end of each sequence, whatever it holds.

    Args:
        y: batch first (B, ...), or second where time is 3 (4, B, H, T, D).
        lengths: steps of each sequence (B,), or None.
        time: axis of the steps.
    """
    if lengths is None:
        return y
    padding = ~inside(lengths, y.shape[time])
    shape = [1] * y.ndim
    shape[1 if time == 3 else 0], shape[time] = padding.shape
    return y.masked_fill(padding.view(shape), 0)


def full_width(x: Tensor) -> torch.autocast:
    """A block in which nothing is computed in less than the width of its inputs."""
    return torch.autocast(x.device.type, enabled=False)
