"""What torch's recurrent layers need on a GPU: float32 products in full.

By default torch lets cuDNN round the products to TF32, which is 2e-4 off.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def in_full(layer: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
    """What the layer returns for these inputs, nothing rounded to TF32 on the way, nor in the backward pass.

    torch's setting is one for the whole process and is read again by the backward pass, so both are run under it.
    """
    if not rounds(inputs[0]):
        return layer(*inputs)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return InFull.apply(layer, *inputs)
    with full_products():
        return layer(*inputs)


def rounds(x: Tensor) -> bool:
    """Whether cuDNN would round the products of this tensor."""
    return x.is_cuda and x.dtype == torch.float32 and torch.backends.cudnn.rnn.fp32_precision == "tf32"


@contextmanager
def full_products() -> Iterator[None]:
    """A block in which cuDNN's recurrent layers do not round."""
    before = torch.backends.cudnn.rnn.fp32_precision
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.backends.cudnn.rnn.fp32_precision = before


class InFull(torch.autograd.Function):
    """The layer as one node of the graph, whose backward pass runs that of the layer under the same setting."""

    @staticmethod
    def forward(ctx, layer: Callable, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the layer on a graph of its own."""
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
        with torch.enable_grad(), full_products():
            outputs = layer(*inputs)
        ctx.graph = inputs, outputs
        return tuple(y.detach() for y in outputs)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Run that graph backwards."""
        inputs, outputs = ctx.graph
        wanted = [x for x in inputs if x.requires_grad]
        with full_products():
            found = iter(torch.autograd.grad(outputs, wanted, gradients, retain_graph=True, allow_unused=True))
        return None, *(next(found) if x.requires_grad else None for x in inputs)
