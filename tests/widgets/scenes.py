"""Traces and a small model that the tests of the scope share."""

import torch

from workbench import record
from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import XLSTMStackConfig
from workbench.trace.store import Trace


def gates(*shape, seed=0):
    """Numbers in [0, 1] that wander."""
    generator = torch.Generator().manual_seed(seed)
    return torch.sigmoid(torch.randn(*shape, generator=generator).cumsum(2) / 20)


def plain(steps=300, layers=2, heads=2, units=4, **about):
    """A trace of gates with units, and of a strength for each head."""
    arrays = {f"blocks.{k}.cell.forget": gates(2, heads, steps, units, seed=k) for k in range(layers)}
    return Trace(
        arrays | {f"blocks.{k}.cell.write_strength": gates(2, heads, steps, seed=9 + k) for k in range(layers)}, **about
    )


def forecaster(steps=40):
    """A small model, what it takes, and its trace."""
    stack = XLSTMStackConfig(width=16, layers=2, heads=2, slstm_at=(0,))
    model = ForecasterConfig(inputs=1, horizon=4, stack=stack).build(0).eval()
    inputs = torch.sin(torch.arange(float(steps)) / 5)[None, :, None], torch.zeros(1, 4, 0)
    with torch.no_grad(), record(model) as trace:
        model(*inputs)
    return model, inputs, trace
