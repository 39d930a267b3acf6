"""torch's own fused LSTM behind our signature: one head, sequences of one length."""

import torch

from workbench.kernels.cudnn import in_full
from workbench.kernels.lstm.reference import LSTMState, empty_state
from workbench.shapes import Float, Tensor


def lstm(
    wx: Float[Tensor, "4 B 1 T D"],
    r: Float[Tensor, "4 1 D D"],
    state: LSTMState | None = None,
    lengths: None = None,
) -> tuple[Float[Tensor, "B 1 T D"], LSTMState]:
    """Run the LSTM over a sequence; held to the reference by tests/contract.py.

    torch projects the input itself. Ours is projected already, so that it passes through an identity.
    """
    order = [1, 2, 0, 3]  # torch keeps its gates as i, f, z, o
    state = state or empty_state(wx)
    x = wx[order, :, 0].permute(1, 2, 0, 3).flatten(2)  # (B, T, 4D)
    weights = [torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), r[order, 0].flatten(0, 1)]
    first = (state.h[:, 0][None].contiguous(), state.c[:, 0][None].contiguous())
    y, h, c = in_full(layer, x, *first, *weights)
    return y[:, None], LSTMState(h[0][:, None], c[0][:, None])


def layer(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """torch's layer: outputs and last state."""
    return torch.lstm(x, (h, c), weights, False, 1, 0.0, torch.is_grad_enabled(), False, True)
