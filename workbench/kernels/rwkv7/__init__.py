"""RWKV-7: matrix memory with decay per channel and a generalised delta rule (Peng et al. 2025)."""

from torch import Tensor

from workbench.kernels.backends import Backend, Backends, Choice
from workbench.kernels.checks import check_lengths, check_shapes, check_state, compute_dtype, full_width, silence
from workbench.kernels.rwkv7.reference import RWKV7Gates, RWKV7State, rwkv7_gates

HERE = "workbench.kernels.rwkv7"
BACKENDS = Backends(
    "rwkv7",
    chunkwise=Backend(f"{HERE}.chunkwise:rwkv7"),
    reference=Backend(f"{HERE}.reference:rwkv7"),
)


def rwkv7(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    state: RWKV7State | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, RWKV7State]:
    """Run RWKV-7 over a sequence.

    In the paper's orientation, S being V x K:
    S_t = S_{t-1} diag(w) - (S_{t-1} kappa) (kappa * a)^T + v k^T,   y_t = S_t r,   w = exp(log_w).
    The state holds the transpose, s = S^T. Nothing is scaled or normalised here.

    Args:
        r: receptance, what the memory is asked (B, H, T, K).
        log_w: logarithm of the decay of each channel (B, H, T, K), at most 0.
        k: replacement keys, under which v is written (B, H, T, K).
        v: values (B, H, T, V).
        kappa: removal keys (B, H, T, K), of norm 1: the caller normalises.
        a: in-context learning rates, how much of what kappa finds is removed (B, H, T, K), 0 ... 1.
        state: memory to start from; None is empty.
        lengths: steps of each sequence (B,); what lies behind changes nothing and gives y = 0.
        backend: a form by name, or a `Choice`.

    Returns:
        y (B, H, T, V) in the dtype of r, and the state in float32 or wider.

    Raises:
        TypeError: inputs that are not floating point, or the state of another kernel.
        ValueError: shapes that do not fit, an unknown backend.

    References:
        Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456.
    """
    keys = {"r": r, "log_w": log_w, "k": k, "kappa": kappa, "a": a}
    sizes = check_shapes("rwkv7", **{name: (x, "B H T K") for name, x in keys.items()}, v=(v, "B H T V"))
    check_state("rwkv7", state, RWKV7State, sizes, r, "B H K V")
    check_lengths("rwkv7", lengths, sizes["B"], sizes["T"])
    form = BACKENDS.choose(backend, r, log_w, k, v, kappa, a)
    quiet = (silence(x, lengths) for x in (r, log_w, k, v, kappa, a))  # log_w = 0 keeps, k = kappa = 0 writes nothing
    with full_width(r):
        y, state = form(*(x.to(compute_dtype(r)) for x in quiet), state)
    return silence(y, lengths).to(r.dtype), state


__all__ = ["BACKENDS", "RWKV7Gates", "RWKV7State", "rwkv7", "rwkv7_gates"]
