"""Gated DeltaNet: matrix memory that corrects what it got wrong, and decays (Yang et al. 2024)."""

from torch import Tensor

from workbench.kernels.backends import Backend, Backends, Choice
from workbench.kernels.checks import (
    check_lengths,
    check_shapes,
    check_state,
    compute_dtype,
    full_width,
    inside,
    silence,
)
from workbench.kernels.gated_delta.reference import GatedDeltaGates, GatedDeltaState, gated_delta_gates

HERE = "workbench.kernels.gated_delta"
BACKENDS = Backends(
    "gated_delta",
    chunkwise=Backend(f"{HERE}.chunkwise:gated_delta"),
    reference=Backend(f"{HERE}.reference:gated_delta"),
)


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    state: GatedDeltaState | None = None,
    *,
    lengths: Tensor | None = None,
    backend: str | Choice = "auto",
) -> tuple[Tensor, GatedDeltaState]:
    """Run the gated delta rule over a sequence.

    S_t = alpha S_{t-1} + k (beta (v - (alpha S_{t-1})^T k))^T,   o_t = S_t^T q,   with alpha = exp(g).
    The memory decays first; the error in its answer to the key is taken then, and a share beta of it written.
    Along a key of length 1 the memory is multiplied by alpha (1 - beta): beta above 1 turns its sign.

    Args:
        q, k: queries and keys (B, H, T, K), as they are to be used: keys of length 1, queries scaled.
        v: values (B, H, T, V).
        beta: writing strengths (B, H, T), 0 ... 2; above 2 / |k|^2 the memory can grow without bound.
        g: log decays (B, H, T), at most 0.
        state: memory to start from; None is empty.
        lengths: steps of each sequence (B,); what lies behind changes nothing and gives o = 0.
        backend: a form by name, or a `Choice`.

    Returns:
        o (B, H, T, V), before any norm and output gate, in the dtype of q, and the state in float32 or wider.

    Raises:
        TypeError: inputs that are not floating point, or the state of another kernel.
        ValueError: shapes that do not fit, an unknown backend.

    References:
        Yang et al. (2024), Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464, Eq. 10.
        Grazzi et al. (2024), Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues,
        arXiv:2411.12537: beta up to 2.
    """
    sizes = check_shapes(
        "gated_delta", q=(q, "B H T K"), k=(k, "B H T K"), v=(v, "B H T V"), beta=(beta, "B H T"), g=(g, "B H T")
    )
    check_state("gated_delta", state, GatedDeltaState, sizes, q, "B H K V")
    check_lengths("gated_delta", lengths, sizes["B"], sizes["T"])
    form = BACKENDS.choose(backend, q, k, v, beta, g)
    beta, g = mask_padding(beta, g, lengths)
    with full_width(q):
        wide = [x.to(compute_dtype(q)) for x in (*(silence(x, lengths) for x in (q, k, v)), beta, g)]
        o, state = form(*wide, state)
    return silence(o, lengths).to(q.dtype), state


def mask_padding(beta: Tensor, g: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Writing strengths and log decays (B, H, T) that write nothing and keep everything behind the end."""
    if lengths is None:
        return beta, g
    padding = ~inside(lengths, g.shape[2])[:, None]
    return beta.masked_fill(padding, 0), g.masked_fill(padding, 0)


__all__ = ["BACKENDS", "GatedDeltaGates", "GatedDeltaState", "gated_delta", "gated_delta_gates", "mask_padding"]
