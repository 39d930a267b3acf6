"""Layers of NX-AI's xlstm and of transformers' xLSTM as our cells, with their weights.

Each call builds the cell anew around the weights as they are, without drawing random numbers. What a trace of them
differs in from the real forward pass is rounding, that of a kernel in bfloat16 included, and the 1e-6 that both
packages add to the mLSTM's denominator.

The package's `igate` of an sLSTM drives the forget gate, and its `fgate` the input gate: names here say what a gate
does. Memories begin at m = 0 there where a state is passed in, and at m = -inf here where none is.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517; package xlstm 2.0.6.
    Beck et al. (2025), xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference, arXiv:2503.13427; transformers 5.24.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from workbench.cells.mlstm import MLSTM
from workbench.cells.mlstm_large import MLSTMLarge
from workbench.cells.slstm import SLSTM, SLSTMCellState
from workbench.kernels.slstm import SLSTMState
from workbench.models.large_weights import BLOCK, SINGLE
from workbench.models.nxai_states import LargeState, from_large_state
from workbench.models.nxai_weights import from_nxai
from workbench.shapes import Tensor
from workbench.trace.retold import Retold, accept, check_dropout

Traced = tuple[Tensor, dict[str, Tensor]]


def mlstm(layer: nn.Module) -> Retold:
    """The mLSTM layer of a 2024 stack, `mLSTMLayer` of xlstm."""
    config = layer.config
    accept(layer, bias=(config.bias, False))
    inner = layer.proj_down.in_features

    def cell() -> MLSTM:
        sizes = {"heads": config.num_heads, "conv": config.conv1d_kernel_size, "inner": inner}
        made = MLSTM(layer.proj_up.in_features, block=layer.q_proj.weight.shape[-1], **sizes)
        made.norm.eps = layer.mlstm_cell.outnorm.eps
        return made

    def run(x: Tensor, **unused: object) -> Traced:
        check_dropout(layer, layer.dropout.p)
        return filled(cell, of_2024(layer)).trace(x)

    return Retold("MLSTM", run, {"heads": config.num_heads, "gates": "exponential"})


def slstm(layer: nn.Module) -> Retold:
    """The sLSTM layer of a 2024 stack, `sLSTMLayer` of xlstm, in its form for CPUs or that for GPUs.

    On a GPU, the package clips what it feeds back at its `gradient_recurrent_clipval`, which no name says.
    """
    config = layer.config
    clip = config.gradient_recurrent_clipval if config.backend == "cuda" else None
    accept(
        layer,
        function=(config.function, "slstm"),
        group_norm_weight=(config.group_norm_weight, True),
        gradient_recurrent_clipval=(clip, None),
    )
    heads, conv = config.num_heads, config.conv1d_kernel_size

    def cell() -> SLSTM:
        made = SLSTM(config.embedding_dim, heads=heads, conv=conv)
        made.norm.eps = layer.group_norm.eps
        return made

    def run(
        x: Tensor,
        conv_state: Tensor | None = None,
        slstm_state: Tensor | None = None,
        return_last_state: bool = False,
        **unused: object,
    ) -> Traced:
        check_dropout(layer, layer.dropout.p)
        past = x.new_zeros(x.shape[0], max(conv - 1, 0), x.shape[2])
        if conv > 1 and conv_state is not None:
            past = torch.cat([past, conv_state], 1)[:, 1 - conv :]
        memory = None if slstm_state is None else SLSTMState(*slstm_state.unflatten(-1, (heads, -1)).unbind())
        return filled(cell, of_2024(layer)).trace(x, SLSTMCellState(past, memory))

    def carried(x: Tensor, conv_state: object = None, slstm_state: Tensor | None = None, *_: object, **__: object):
        return slstm_state is not None and bool(slstm_state.any())

    return Retold("SLSTM", run, {"heads": heads, "forget": "sigmoid"}, carried)


def mlstm_large(layer: nn.Module) -> Retold:
    """The mLSTM layer of an xLSTM 7B: `mLSTMLayer` of xlstm's `xLSTMLarge`, or `xLSTMLayer` of transformers."""
    config = layer.config
    accept(layer, use_bias=(config.use_bias, False), v_dim_factor=(float(config.v_dim_factor), 1.0))
    width = layer.out_proj.out_features

    def cell() -> MLSTMLarge:
        sizes = {"heads": config.num_heads, "qk_factor": (layer.qk_dim + 0.5) / width}
        made = MLSTMLarge(width, gate_cap=config.gate_soft_cap, **sizes)
        made.norm.eps = layer.multihead_norm.eps
        return made

    def run(x: Tensor, state: LargeState | None = None) -> Traced:
        memory = None if state is None else from_large_state({0: state}).blocks[0]
        return filled(cell, of_7b(layer)).trace(x, memory)

    def carried(x: Tensor, state: LargeState | None = None) -> bool:
        return state is not None and bool(state[0].any())  # transformers begins with zeros

    return Retold("MLSTMLarge", run, {"heads": config.num_heads, "gates": "exponential"}, carried)


def filled(make: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> nn.Module:
    """A cell around these weights, in their dtype and on their device; nothing is drawn for those it would have."""
    with torch.device("meta"):
        cell = make()
    cell.load_state_dict(weights, assign=True)
    return cell


def of_2024(layer: nn.Module) -> dict[str, Tensor]:
    """The weights of a layer of a 2024 stack by our names: those of a stack of one block, without the block's norm."""
    theirs = {f"blocks.0.xlstm.{name}": x for name, x in layer.state_dict().items()}
    ours = from_nxai(theirs | {"blocks.0.xlstm_norm.weight": torch.zeros(1)})
    return {name.removeprefix("blocks.0.cell."): x for name, x in ours.items() if ".cell." in name}


def of_7b(layer: nn.Module) -> dict[str, Tensor]:
    """The weights of a layer of xLSTM 7B by our names, from either mode."""
    theirs = {f"mlstm_layer.{name}": x for name, x in layer.state_dict().items()}
    for fused, parts in SINGLE.items():
        for leaf in ("weight", "bias"):
            names = [f"{part}.{leaf}" for part in parts]
            if all(name in theirs for name in names):
                theirs[f"{fused}.{leaf}"] = torch.cat([theirs.pop(name) for name in names])
    return {ours.removeprefix("cell."): theirs[name] for ours, name in BLOCK.items() if ours.startswith("cell.")}
