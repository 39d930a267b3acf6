"""What every form of every kernel owes, in float64: values, gradients and state equal the reference.

A kernel's test file describes the kernel once as a `Kernel` and calls these checks for each form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.testing import assert_close

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


@dataclass(frozen=True)
class Kernel:
    """A kernel under test.

    Attributes:
        call: the public function, `call(*inputs, state, lengths=, backend=) -> (y, state)`.
        inputs: makes the inputs for T steps from a generator.
        state: makes a state as it could have been carried over.
        time: the time axis of each input, None where it has none.
    """

    call: Callable
    inputs: Callable[[torch.Generator, int], list[Tensor]]
    state: Callable[[torch.Generator], tuple]
    time: tuple[int | None, ...]

    def cut(self, inputs: list[Tensor], start: int, end: int) -> list[Tensor]:
        """The inputs of the steps from start to end."""
        return [
            x if axis is None else x.narrow(axis, start, end - start) for x, axis in zip(inputs, self.time, strict=True)
        ]


def leaves(tensors) -> list[Tensor]:
    """Fresh leaves that ask for a gradient; whole numbers have none."""
    return [x.detach().clone().requires_grad_(x.is_floating_point()) for x in tensors]


def real(tensors) -> list[Tensor]:
    """Those that can have a gradient."""
    return [x for x in tensors if x.is_floating_point()]


def weigh(outputs: list[Tensor]) -> Tensor:
    """One number in which every element of every output counts differently."""
    g = torch.Generator().manual_seed(7)
    weights = [torch.randn(x.shape, generator=g, dtype=torch.float64).to(x.dtype) for x in outputs]
    return sum((x * w).sum() for x, w in zip(outputs, weights, strict=True))


def run(kernel: Kernel, inputs, state, backend, cuts=(), lengths=None):
    """Run through the given cuts; return outputs, last state, and gradients of all inputs and of the first state."""
    inputs, first = leaves(inputs), None
    if state is not None:
        first = type(state)(*leaves(state))
    steps = next(x.shape[axis] for x, axis in zip(inputs, kernel.time, strict=True) if axis is not None)
    now, outputs = first, []
    edges = [0, *cuts, steps]
    for start, end in pairwise(edges):
        y, now = kernel.call(*kernel.cut(inputs, start, end), now, lengths=lengths, backend=backend)
        outputs.append(y)
    y = torch.cat(outputs, 2)
    wanted = inputs + ([] if first is None else real(first))
    gradients = torch.autograd.grad(weigh([y, *real(now)]), wanted, allow_unused=True, materialize_grads=True)
    return y.detach(), [x.detach() for x in now], gradients


def assert_same(got, wanted, **tolerance) -> None:
    """Outputs, states and gradients agree, and hold no NaN."""
    names = ("output", "state", "gradient")
    for name, a, b in zip(names, got, wanted, strict=True):
        for k, (x, y) in enumerate(zip([a] if name == "output" else a, [b] if name == "output" else b, strict=True)):
            assert_close(x, y, **tolerance, msg=lambda m, where=f"{name} {k}": f"{where}: {m}")
            assert not x.isnan().any(), f"{name} {k} holds NaN"


def make(kernel: Kernel, steps: int, carried: bool, seed: int = 0):
    """Inputs, and the state they start from."""
    g = torch.Generator().manual_seed(seed)
    inputs = kernel.inputs(g, steps)
    return inputs, kernel.state(g) if carried else None


def matches_reference(kernel: Kernel, backend, steps: int, carried: bool) -> None:
    """Values, last state and all gradients equal the reference, from empty memory or a carried one."""
    inputs, state = make(kernel, steps, carried)
    wanted = run(kernel, inputs, state, "reference")
    assert_same(run(kernel, inputs, state, backend), wanted, **TIGHT)


def hands_over(kernel: Kernel, backend, steps: int, cuts: tuple[int, ...], carried: bool) -> None:
    """Any cut gives the same values, state and gradients, with the gradient flowing through the carried state."""
    inputs, state = make(kernel, steps, carried)
    wanted = run(kernel, inputs, state, "reference")
    assert_same(run(kernel, inputs, state, backend, cuts), wanted, **TIGHT)


def looks_back_only(kernel: Kernel, backend, steps: int) -> None:
    """No output depends on a later input: the gradient towards it is exactly zero, towards its own step it is not."""
    inputs, state = make(kernel, steps, carried=True)
    for t in (0, steps // 2, steps - 2):
        tracked = leaves(inputs)
        y, _ = kernel.call(*tracked, state, backend=backend)
        gradients = torch.autograd.grad(weigh([y[:, :, t]]), tracked, allow_unused=True, materialize_grads=True)
        for x, axis in zip(gradients, kernel.time, strict=True):
            if axis is not None:
                assert x.narrow(axis, t + 1, steps - t - 1).abs().max() == 0
        assert max(x.select(axis, t).abs().max() for x, axis in zip(gradients, kernel.time, strict=True) if axis) > 0


def ignores_padding(kernel: Kernel, backend, lengths: list[int], steps: int, carried: bool) -> None:
    """A ragged batch equals its sequences one by one; padding gets no output and no gradient."""
    inputs, state = make(kernel, steps, carried)
    y, last, gradients = run(kernel, inputs, state, backend, lengths=torch.tensor(lengths))
    shared = [torch.zeros_like(x) for x in inputs]  # what inputs without time get from all sequences together
    for b, length in enumerate(lengths):
        assert y[b, :, length:].abs().sum() == 0
        first = None if state is None else type(state)(*(x[b : b + 1] for x in state))
        if length == 0:
            wanted = [] if first is None else zip(last, first, strict=True)
            assert all(torch.equal(x[b : b + 1], before) for x, before in wanted)
            if first is None:  # then the memory is what inputs without time make of it, such as initial weights
                untouched(kernel, inputs, last, shared, b)
            continue
        rows = [None if axis is None else (1 if axis == 3 else 0) for axis in kernel.time]
        cut = kernel.cut(inputs, 0, length)
        alone = [x if row is None else x.narrow(row, b, 1) for x, row in zip(cut, rows, strict=True)]
        y_alone, last_alone, gradients_alone = run_weighed_as(kernel, alone, first, b, y.shape)
        assert_close(y[b : b + 1, :, :length], y_alone, **TIGHT)
        for x, wanted in zip(last, last_alone, strict=True):
            assert_close(x[b : b + 1], wanted, **TIGHT)
        for k, (x, wanted, row, axis) in enumerate(
            zip(gradients[: len(inputs)], gradients_alone[: len(inputs)], rows, kernel.time, strict=True)
        ):
            if axis is None:
                shared[k] += wanted
            else:
                assert_close(x.narrow(row, b, 1).narrow(axis, 0, length), wanted, **TIGHT)
    for x, axis, total in zip(gradients, kernel.time, shared, strict=False):
        if axis is None:
            assert_close(x, total, **TIGHT)
        else:
            for b, length in enumerate(lengths):
                assert x.select(1 if axis == 3 else 0, b).narrow(axis - 1, length, steps - length).abs().sum() == 0


def untouched(kernel: Kernel, inputs, last, shared, b) -> None:
    """A sequence without steps ends as it began: add what its last memory, weighed, gives to inputs without time."""
    inputs = leaves(inputs)
    _, begun = kernel.call(*inputs, lengths=torch.zeros(len(last[0]), dtype=torch.int64), backend="reference")
    assert all(torch.equal(x[b], wanted[b]) for x, wanted in zip(last, begun, strict=True))
    g = torch.Generator().manual_seed(7)
    torch.randn(kernel.call(*inputs)[0].shape, generator=g, dtype=torch.float64)  # the weights of the output come first
    parts = [torch.randn(x.shape, generator=g, dtype=x.dtype)[b] * x[b] for x in real(begun)]
    total = sum(x.masked_fill(x.isinf(), 0).sum() for x in parts)
    gradients = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    for k, axis in enumerate(kernel.time):
        shared[k] += gradients[k] if axis is None else 0


def run_weighed_as(kernel: Kernel, inputs, state, b, shape):
    """Run one sequence of a batch alone, weighed as it is in the batch, whose outputs have that shape."""
    inputs = leaves(inputs)
    first = None if state is None else type(state)(*leaves(state))
    y, last = kernel.call(*inputs, first, backend="reference")
    g = torch.Generator().manual_seed(7)
    weights = torch.randn(shape, generator=g, dtype=y.dtype)[b : b + 1, :, : y.shape[2]]
    total = (y * weights).sum()
    for x in real(last):
        whole = torch.randn((shape[0], *x.shape[1:]), generator=g, dtype=x.dtype)
        total = total + (x * whole[b : b + 1]).sum()
    gradients = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    return y.detach(), [x.detach() for x in last], gradients


def forgives_padding(kernel: Kernel, backend, lengths: list[int], steps: int) -> None:
    """Padding may hold NaN: outputs, states and gradients are those of any other padding."""
    inputs, state = make(kernel, steps, carried=True)
    wanted = run(kernel, inputs, state, backend, lengths=torch.tensor(lengths))
    for x, axis in zip(inputs, kernel.time, strict=True):
        for b, length in enumerate(lengths):
            if axis is not None:
                x.select(1 if axis == 3 else 0, b).narrow(axis - 1, length, steps - length).fill_(torch.nan)
    assert_same(run(kernel, inputs, state, backend, lengths=torch.tensor(lengths)), wanted, rtol=0, atol=0)


def survives(
    kernel: Kernel, backend, inputs: list[Tensor], dtype: torch.dtype, tolerance: float, carried: bool = False
) -> None:
    """Extreme gates give finite values and gradients, within `tolerance` (relative RMS) of the float64 reference."""
    state = cast(kernel.state(torch.Generator().manual_seed(0)), dtype) if carried else None
    inputs = [x.to(dtype) for x in inputs]
    y, last, gradients = run(kernel, inputs, state, backend)
    for x in (y, *last, *gradients):
        assert x.isfinite().all()
    wanted, *_ = run(kernel, [x.double() for x in inputs], cast(state, torch.float64), "reference")
    error = relative(y, wanted)
    assert error < tolerance, f"relative RMS {error:.2e}"


def cast(state: tuple | None, dtype: torch.dtype) -> tuple | None:
    """A state in another dtype; whole numbers stay."""
    return state and type(state)(*(x.to(dtype) if x.is_floating_point() else x for x in state))


def stays_close(kernel: Kernel, backend, dtype: torch.dtype, bound: float, steps: int = 48) -> dict[str, float]:
    """In a narrower type, output, states and gradients stay near the float64 reference on the same rounded inputs.

    Args:
        bound: largest relative RMS error allowed.

    Returns:
        The relative RMS error of output, states and gradients.
    """
    inputs, state = make(kernel, steps, carried=True)
    inputs = [x.to(dtype) for x in inputs]
    state = cast(state, torch.promote_types(dtype, torch.float32))
    got = run(kernel, inputs, state, backend)
    wanted = run(kernel, [x.double() for x in inputs], cast(state, torch.float64), "reference")
    errors = {
        name: max(relative(x, y) for x, y in zip(real(a), real(b), strict=True))
        for name, a, b in zip(
            ("output", "state", "gradient"), *([[r[0]], r[1], r[2]] for r in (got, wanted)), strict=True
        )
    }
    assert max(errors.values()) < bound, errors
    return errors


def relative(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, in that of what is wanted."""
    return float((got.double() - wanted).pow(2).mean().sqrt() / wanted.pow(2).mean().sqrt().clamp(min=1e-300))


def passes_gradcheck(kernel: Kernel, backend, steps: int = 3) -> None:
    """Gradients of outputs and last state, towards all inputs and the first state, equal finite differences."""
    inputs, state = make(kernel, steps, carried=True, seed=3)
    inputs, state = leaves(inputs), type(state)(*leaves(state))

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        parts = iter(tensors[len(inputs) :])
        first = type(state)(*(next(parts) if x.is_floating_point() else x for x in state))
        y, last = kernel.call(*tensors[: len(inputs)], first, backend=backend)
        return y, *real(last)

    assert torch.autograd.gradcheck(flat, (*inputs, *real(state)))
