"""Titans' neural memory: a network that learns at test time to answer keys with values (Behrouz et al. 2024)."""

import torch
from torch import Tensor

from workbench.kernels.backends import Backend, Backends, Choice
from workbench.kernels.checks import (
    check_lengths,
    check_shapes,
    check_state,
    compute_dtype,
    full_width,
    silence,
)
from workbench.kernels.neural_memory.mlp_reference import (
    NeuralMemoryMLPState,
    first_state,
    neural_memory_mlp_gates,
)
from workbench.kernels.neural_memory.reference import (
    NeuralMemoryGates,
    NeuralMemoryState,
    neural_memory_gates,
    still_alive,
)

HERE = "workbench.kernels.neural_memory"
BACKENDS = Backends(
    "neural_memory",
    chunkwise=Backend(f"{HERE}.chunkwise:neural_memory"),
    reference=Backend(f"{HERE}.reference:neural_memory"),
)
MLP_BACKENDS = Backends(
    "neural_memory_mlp",
    chunkwise=Backend(f"{HERE}.mlp_chunkwise:neural_memory_mlp"),
    reference=Backend(f"{HERE}.mlp_reference:neural_memory_mlp"),
)


def neural_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    eta: Tensor,
    theta: Tensor,
    state: NeuralMemoryState | None = None,
    *,
    refresh: int = 1,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, NeuralMemoryState]:
    """Run Titans' neural memory with one matrix over a sequence.

    M_t = (1 - alpha) M_{t-1} + S_t,   S_t = eta S_{t-1} - theta grad |M_a^T k - v|^2,   y_t = M_t^T q.
    The gradient, 2 k (M_a^T k - v)^T, is taken at the anchor M_a: the memory at the last multiple of `refresh`
    steps. Every step takes its own with refresh = 1; with more, the paper's mini-batches, another model.

    Args:
        q, k: queries and keys (B, H, T, K), as they are to be used.
        v: values (B, H, T, V).
        alpha: share of the memory that is forgotten (B, H, T), 0 ... 1.
        eta: share of the surprise that is carried on (B, H, T), 0 ... 1.
        theta: step sizes (B, H, T), 0 or more. Along a key of length 1, with refresh = 1 and eta = 0, 2 theta is
            the share of the error that is corrected.
        state: memory to start from; None is empty. Where it has come further into a span than `refresh` allows,
            the span ends with the next step.
        refresh: steps that share an anchor, counted from the empty memory.
        lengths: steps of each sequence (B,); what lies behind changes nothing and gives y = 0.
        backend: a form by name, or a `Choice`.

    Returns:
        y (B, H, T, V) in the dtype of q, and the state in float32 or wider.

    Raises:
        TypeError: inputs that are not floating point, or the state of another kernel.
        ValueError: shapes that do not fit, refresh below 1, an unknown backend.

    References:
        Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Eqs. 12-18.
    """
    kernel = "neural_memory"
    sizes = check_inputs(kernel, q, k, v, alpha, eta, theta, refresh, lengths)
    check_memory(kernel, state, NeuralMemoryState, sizes, q, *["B H K V"] * 3)
    form = BACKENDS.choose(backend, q, k, v, alpha, eta, theta)
    with full_width(q):
        y, state = form(*widen(q, k, v, alpha, eta, theta, lengths), refresh, clamp_position(state, refresh))
    return silence(y, lengths).to(q.dtype), state


def neural_memory_mlp(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    eta: Tensor,
    theta: Tensor,
    w1: Tensor,
    w2: Tensor,
    state: NeuralMemoryMLPState | None = None,
    *,
    refresh: int = 1,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, NeuralMemoryMLPState]:
    """Run Titans' neural memory with two layers over a sequence.

    M(k) = W2 gelu(W1 k); both layers follow the recurrence of `neural_memory`, and y_t = M_t(q_t). Arguments,
    results and errors are those of `neural_memory`, and

    Args:
        w1: first layer of the memory before the first step (H, F, K).
        w2: second layer (H, V, F). Where a state is given, both rest. Two layers of zeros would never learn.
    """
    kernel = "neural_memory_mlp"
    sizes = check_inputs(kernel, q, k, v, alpha, eta, theta, refresh, lengths, w1, w2)
    check_memory(kernel, state, NeuralMemoryMLPState, sizes, q, *["B H F K", "B H V F"] * 3)
    form = MLP_BACKENDS.choose(backend, q, k, v, alpha, eta, theta)
    with full_width(q):
        state = state or first_state(*(w.to(compute_dtype(q)) for w in (w1, w2)), q.shape[0])
        y, state = form(*widen(q, k, v, alpha, eta, theta, lengths), refresh, clamp_position(state, refresh))
    return silence(y, lengths).to(q.dtype), state


def check_inputs(
    kernel: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    eta: Tensor,
    theta: Tensor,
    refresh: int,
    lengths: Tensor | None,
    *weights: Tensor,
) -> dict[str, int]:
    """Refuse inputs that do not fit, and return the size of each letter."""
    layers = {name: (w, template) for w, name, template in zip(weights, ("w1", "w2"), ("H F K", "H V F"), strict=False)}
    sizes = check_shapes(
        kernel,
        q=(q, "B H T K"),
        k=(k, "B H T K"),
        v=(v, "B H T V"),
        alpha=(alpha, "B H T"),
        eta=(eta, "B H T"),
        theta=(theta, "B H T"),
        **layers,
    )
    check_lengths(kernel, lengths, sizes["B"], sizes["T"])
    if not isinstance(refresh, int) or refresh < 1:
        raise ValueError(f"{kernel}: refresh={refresh!r} is not a number of steps; take 1 or more.")
    return sizes


def check_memory(
    kernel: str, state: tuple | None, kind: type[tuple], sizes: dict[str, int], like: Tensor, *templates: str
) -> None:
    """Refuse a state that does not fit; its last field is a whole number for each sequence."""
    if isinstance(state, kind):
        if state.position.dtype != torch.int64:
            raise ValueError(
                f"{kernel}: state.position is {state.position.dtype}, and must be torch.int64: it counts steps."
            )
        state = state._replace(position=state.position.to(compute_dtype(like)))
    check_state(kernel, state, kind, sizes, like, *templates, "B")


def clamp_position(state: tuple | None, refresh: int) -> tuple | None:
    """A state that is at most one step from its next refresh where it came from a run with longer spans."""
    return state and type(state)(*state[:-1], state.position.clamp(0, refresh - 1))


def widen(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, theta: Tensor, lengths: Tensor | None
) -> list[Tensor]:
    """The inputs in the width of the state, and where they are alive (B, 1, T).

    Behind the end of a sequence all is zero but eta: coefficients stay as they are under 1 - alpha = eta = 1.
    """
    alive = still_alive(q, lengths)
    quiet = [silence(x, lengths) for x in (q, k, v, alpha, eta, theta)]
    quiet[4] = quiet[4] if lengths is None else quiet[4].masked_fill(~alive, 1)
    return [*(x.to(compute_dtype(q)) for x in quiet), alive]


__all__ = [
    "BACKENDS",
    "MLP_BACKENDS",
    "NeuralMemoryGates",
    "NeuralMemoryMLPState",
    "NeuralMemoryState",
    "first_state",
    "neural_memory",
    "neural_memory_gates",
    "neural_memory_mlp",
    "neural_memory_mlp_gates",
]
