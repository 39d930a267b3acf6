"""The layers of the 2024 blocks equal those of the official package, weight by weight."""

import pytest
import torch
from torch.testing import assert_close

from workbench.cells.mlstm import MLSTM
from workbench.cells.parts import GatedMLP
from workbench.cells.slstm import SLSTM

pytest.importorskip("xlstm", reason="needs xlstm: pip install -e '.[nxai]'")
WIDTH, HEADS, STEPS = 32, 4, 9  # twice the width is a multiple of 64, to which they round


def load(ours, weights):
    """Fill our layer; every parameter must be named once, with the right number of elements."""
    parameters = dict(ours.named_parameters())
    assert parameters.keys() == weights.keys()
    for name, parameter in parameters.items():
        parameter.data = weights[name].detach().reshape(parameter.shape).clone()


def shake(module):
    """Random weights everywhere: fresh gates and recurrences are zero."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return module


def test_mlstm_layer():
    from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig

    config = mLSTMLayerConfig(embedding_dim=WIDTH, num_heads=HEADS, context_length=STEPS)
    theirs, ours = shake(mLSTMLayer(config)), MLSTM(WIDTH, heads=HEADS)
    w = theirs.state_dict()
    load(
        ours,
        {
            "skip": w["learnable_skip"],
            "up.weight": w["proj_up.weight"],
            "conv.weight": w["conv1d.conv.weight"],
            "conv.bias": w["conv1d.conv.bias"],
            **{f"qkv.{x}.weight": w[f"{x}_proj.weight"] for x in "qkv"},
            **{f"input_gate.{x}": w[f"mlstm_cell.igate.{x}"] for x in ("weight", "bias")},
            **{f"forget_gate.{x}": w[f"mlstm_cell.fgate.{x}"] for x in ("weight", "bias")},
            "norm.weight": 1 + w["mlstm_cell.outnorm.weight"],
            "down.weight": w["proj_down.weight"],
        },
    )
    x = torch.randn(2, STEPS, WIDTH)
    assert_close(ours(x)[0], theirs(x), rtol=1e-4, atol=1e-5)


def test_slstm_layer():
    """Their `igate` projects what drives the forget gate, and `fgate` what drives the input gate."""
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    config = sLSTMLayerConfig(embedding_dim=WIDTH, num_heads=HEADS, backend="vanilla", dropout=0.0)
    theirs, ours = shake(sLSTMLayer(config)), SLSTM(WIDTH, heads=HEADS)
    w = theirs.state_dict()
    size = WIDTH // HEADS
    order = [2, 0, 1, 3]  # theirs i, f, z, o; ours z, i, f, o
    recurrent = w["slstm_cell._recurrent_kernel_"].view(HEADS, 4, size, size).transpose(0, 1)[order]
    bias = w["slstm_cell._bias_"].view(4, HEADS, size)[order]
    theirs_of = {"z": "zgate", "i": "fgate", "f": "igate", "o": "ogate"}
    load(
        ours,
        {
            "recurrent": recurrent,
            "bias": bias,
            "conv.weight": w["conv1d.conv.weight"],
            "conv.bias": w["conv1d.conv.bias"],
            **{f"gates.{gate}.weight": w[f"{name}.weight"] for gate, name in theirs_of.items()},
            "norm.weight": 1 + w["group_norm.weight"],
        },
    )
    x = torch.randn(2, STEPS, WIDTH)
    assert_close(ours(x)[0], theirs(x), rtol=1e-4, atol=1e-5)


def test_gated_mlp():
    from xlstm.components.feedforward import FeedForwardConfig, create_feedforward

    theirs = shake(create_feedforward(FeedForwardConfig(embedding_dim=WIDTH, proj_factor=1.3, act_fn="gelu")))
    ours = GatedMLP(WIDTH)
    load(ours, {"up.weight": theirs.proj_up.weight, "down.weight": theirs.proj_down.weight})
    x = torch.randn(2, STEPS, WIDTH)
    assert_close(ours(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)
