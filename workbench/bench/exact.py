"""How far each form of each recurrence is from its equations: values, gradients, and gradients through a carried state.

Truth is the reference in float64 on the inputs as rounded to the narrower type. Every number is the largest relative
root mean square error among the tensors that it stands for. Other packages run on the same inputs, where installed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.bench.peers import peers
from workbench.bench.results import columns, write
from workbench.kernels.catalogue import TABLES
from workbench.kernels.gated_delta import gated_delta
from workbench.kernels.gru import gru
from workbench.kernels.lstm import lstm
from workbench.kernels.mlstm import mlstm, mlstm_expforget, mlstm_sigmoid
from workbench.kernels.neural_memory import neural_memory, neural_memory_mlp
from workbench.kernels.rwkv7 import rwkv7
from workbench.kernels.slstm import slstm, slstm_expforget

Draw = Callable[..., Tensor]  # a normal sample of these sizes in float64
PACKAGES = ("workbench", "torch", "mlstm_kernels", "flash-linear-attention")
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """A recurrence with inputs of ordinary size.

    Attributes:
        call: the public function.
        inputs: makes the inputs for T steps.
        heads: heads H.
        fixed: how many inputs at the end have no time.
    """

    call: Callable
    inputs: Callable[[Draw, int, int], list[Tensor]]
    heads: int = 2
    fixed: int = 0


@dataclass(frozen=True)
class Row:
    """Errors of one form in one type. None where a form cannot do it."""

    recurrence: str
    form: str
    dtype: str
    values: float | None  # outputs and last state
    gradients: float | None  # towards all inputs, from empty memory
    carried: float | None  # towards the first state and all inputs, through a state handed over in the middle


def gates(count: int, draw: Draw, heads: int, steps: int) -> list[Tensor]:
    """Preactivations of gates with recurrence, and recurrent weights."""
    size = 8
    return [draw(count, 2, heads, steps, size), draw(count, heads, size, size) / size**0.5]


def gated_unit(draw: Draw, heads: int, steps: int) -> list[Tensor]:
    """The same for a GRU, and the bias that its reset gate multiplies."""
    return [*gates(3, draw, heads, steps), draw(heads, 8)]


def qkv(draw: Draw, heads: int, steps: int) -> list[Tensor]:
    """Queries, keys and values of ordinary size."""
    return [draw(2, heads, steps, 16) for _ in range(3)]


def matrix(shift: float, draw: Draw, heads: int, steps: int) -> list[Tensor]:
    """Inputs of an mLSTM whose forget preactivations lie around `shift`."""
    return [*qkv(draw, heads, steps), draw(2, heads, steps), draw(2, heads, steps) + shift]


def delta(draw: Draw, heads: int, steps: int) -> list[Tensor]:
    """Keys of length 1, writing strengths up to 2, decays near 1."""
    q, k, v = qkv(draw, heads, steps)
    beta, log_decay = 2 * torch.sigmoid(draw(2, heads, steps)), F.logsigmoid(draw(2, heads, steps) + 3)
    return [q / 4, F.normalize(k, dim=-1), v, beta, log_decay]


def goose(draw: Draw, heads: int, steps: int) -> list[Tensor]:
    """Decays and rates as sigmoids make them, removal keys of length 1."""
    r, k, v = qkv(draw, heads, steps)
    log_w = -math.exp(-0.5) * torch.sigmoid(draw(2, heads, steps, 16))
    kappa = F.normalize(draw(2, heads, steps, 16), dim=-1)
    return [r, log_w, k / 4, v, kappa, torch.sigmoid(draw(2, heads, steps, 16))]


def learner(draw: Draw, heads: int, steps: int) -> list[Tensor]:
    """Keys of length 1, little forgetting, momentum, small steps."""
    q, k, v = qkv(draw, heads, steps)
    alpha, eta, theta = (torch.sigmoid(draw(2, heads, steps) + shift) for shift in (-4, 1, -3))
    return [F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, alpha, eta, theta]


def deep_learner(draw: Draw, heads: int, steps: int) -> list[Tensor]:
    """The same with two layers, which take smaller steps."""
    *inputs, theta = learner(draw, heads, steps)
    return [*inputs, theta / 10, draw(heads, 12, 16) / 4, draw(heads, 16, 12) / 12**0.5]


CASES = {
    "lstm": Case(lstm, partial(gates, 4), heads=1, fixed=1),
    "gru": Case(gru, gated_unit, heads=1, fixed=2),
    "slstm": Case(slstm, partial(gates, 4), fixed=1),
    "slstm_expforget": Case(slstm_expforget, partial(gates, 4), fixed=1),
    "mlstm": Case(mlstm, partial(matrix, 3)),
    "mlstm_expforget": Case(mlstm_expforget, partial(matrix, -1)),
    "mlstm_sigmoid": Case(mlstm_sigmoid, partial(matrix, 3)),
    "gated_delta": Case(gated_delta, delta),
    "rwkv7": Case(rwkv7, goose),
    "neural_memory": Case(neural_memory, learner),
    "neural_memory_mlp": Case(neural_memory_mlp, deep_learner, fixed=2),
}


def measure(steps: int = 128, device: str = "cpu", names: list[str] | None = None) -> Iterator[Row]:
    """Measure every form in every type, then the forms of other packages, recurrence by recurrence.

    Args:
        steps: length T of the sequences, a multiple of 64, as other packages want it.
        device: where the forms run; the reference runs there too, in float64.
        names: recurrences to measure; None or none for all.

    Raises:
        ValueError: a recurrence is unknown, steps is no positive multiple of 64, or the device is not here.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises the one or the other, by how it was built
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used here: {reason}; try --device cpu.") from None
    if unknown := [name for name in names or () if name not in CASES]:
        raise ValueError(f"recurrence {', '.join(unknown)} is unknown; choose from {', '.join(CASES)}.")
    if steps < 64 or steps % 64:
        raise ValueError(f"steps={steps} must be a positive multiple of 64; try {max(64, round(steps / 64) * 64)}.")
    for name in names or CASES:
        for dtype in DTYPES:
            sample = prepare(CASES[name], DTYPES[dtype], steps, device)
            for form in TABLES[name].rows:
                yield Row(name, form, dtype, *errors(partial(CASES[name].call, backend=form), sample))
            for form, call in peers(name).items():
                yield Row(name, form, dtype, *errors(forgiven(call), sample))


@dataclass(frozen=True)
class Sample:
    """What one recurrence is measured on in one type, and the truth about it."""

    case: Case
    inputs: list[Tensor]
    state: tuple  # carried over from other inputs, float32 or wider
    cut: int  # where a state is handed over
    truth: tuple  # what `run` returns for the reference in float64, from empty memory in one pass
    truth_carried: tuple  # the same from the state, handed over at the cut


def prepare(case: Case, dtype: torch.dtype, steps: int, device: str) -> Sample:
    """Draw the inputs, and compute the truth."""
    generator = torch.Generator().manual_seed(0)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64).to(device)

    reference = partial(case.call, backend="reference")
    before, inputs = (case.inputs(draw, case.heads, steps) for _ in range(2))
    inputs = [x.to(dtype) for x in inputs]
    state = cast(reference(*before)[1], torch.promote_types(dtype, torch.float32))
    exact, cut = [x.double() for x in inputs], steps // 2
    truth_carried = run(reference, case, exact, cast(state, torch.float64), cut)
    return Sample(case, inputs, state, cut, run(reference, case, exact, None, None), truth_carried)


def errors(call: Callable, sample: Sample) -> tuple[float | None, float | None, float | None]:
    """Errors of values, gradients, and gradients through a carried state; None where the call returns None."""
    empty = run(call, sample.case, sample.inputs, None, None)
    carried = run(call, sample.case, sample.inputs, sample.state, sample.cut)
    empty = empty and compare(empty, sample.truth)
    carried = carried and compare(carried, sample.truth_carried)
    values = [part[0] for part in (empty, carried) if part]
    return max(values, default=None), empty and empty[1], carried and max(carried[1:])


def forgiven(call: Callable) -> Callable:
    """A call that returns None where another package refuses a type or a state; ours must not refuse."""

    def attempt(*inputs: Tensor | tuple | None) -> tuple | None:
        try:
            return call(*inputs)
        except (NotImplementedError, RuntimeError, ValueError):
            return None

    return attempt


def cast(state: tuple, dtype: torch.dtype) -> tuple:
    """A state in another type; whole numbers stay."""
    return type(state)(*(x.to(dtype) if x.is_floating_point() else x for x in state))


def run(call: Callable, case: Case, inputs: list[Tensor], state: tuple | None, cut: int | None) -> tuple | None:
    """Outputs and last state, gradients of all inputs, gradients of the first state; None where the call says None.

    Args:
        call: `call(*inputs, state) -> (y, state)`.
        case: which inputs have no time.
        inputs: in the type to run in.
        state: first state, or None for empty memory.
        cut: the step at which the state is handed over, or None for one pass.
    """
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    first = state and type(state)(*(x.detach().clone().requires_grad_(x.is_floating_point()) for x in state))
    timed, fixed = inputs[: len(inputs) - case.fixed], inputs[len(inputs) - case.fixed :]
    axis = 3 if timed[0].ndim == 5 else 2
    now, outputs = first, []
    for part in [timed] if cut is None else zip(*(x.tensor_split([cut], axis) for x in timed), strict=True):
        if (answer := call(*part, *fixed, now)) is None:
            return None
        y, now = answer
        outputs.append(y)
    y = torch.cat(outputs, 2)
    last = [] if now is None or first is None else [x for x in now if x.is_floating_point()]
    carried = [] if first is None else [x for x in first if x.is_floating_point()]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in (y, *last)]
    total = sum((x * w).sum() for x, w in zip((y, *last), weights, strict=True))
    gradients = torch.autograd.grad(total, [*inputs, *carried], allow_unused=True, materialize_grads=True)
    return [y, *last], gradients[: len(inputs)], gradients[len(inputs) :]


def compare(got: tuple, wanted: tuple) -> list[float]:
    """The largest relative RMS error of each part."""
    pairs = (zip(*parts, strict=True) for parts in zip(got, wanted, strict=True))
    return [max((relative(x, y) for x, y in part), default=0.0) for part in pairs]


def relative(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, in that of what is wanted; infinite where it is not a number."""
    got, wanted = got.detach().double(), wanted.detach()
    error = float((got - wanted).pow(2).mean().sqrt() / wanted.pow(2).mean().sqrt().clamp(min=1e-300))
    return error if math.isfinite(error) else math.inf


def table(rows: list[Row]) -> str:
    """The rows as text in columns."""
    lines = [["recurrence", "form", "dtype", "values", "gradients", "carried"]]
    for row in rows:
        numbers = [row.values, row.gradients, row.carried]
        lines.append([row.recurrence, row.form, row.dtype, *("-" if x is None else f"{x:.1e}" for x in numbers)])
    return columns(lines)


def save(path: str | Path, rows: list[Row], steps: int, device: str) -> None:
    """Write the rows as JSON, with where they come from."""
    unit = "largest relative root mean square error"
    write(path, __name__, unit, rows, device=device, packages=PACKAGES, settings={"steps": steps})
