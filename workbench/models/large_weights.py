"""Weights of xLSTM 7B under our names, and back: NX-AI's `xLSTMLarge` and transformers' `xLSTMForCausalLM`.

They differ in the name of the embedding, and each has two modes: "single", with a matrix for each projection, and
"fused". Ours is fused, in the same order: q, k, v, o; i, f; gate, value.

References:
    Beck et al. (2025), xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference, arXiv:2503.13427.
    xlstm 2.0.6, xlstm_large; transformers 5.24, models/xlstm.
"""

import re
from collections.abc import Mapping
from typing import Literal

import torch

from workbench.models.layouts import XLSTMLargeStackConfig
from workbench.models.weight_names import check_names, count_blocks
from workbench.shapes import Tensor

Naming = Literal["nxai_single", "nxai_fused", "transformers"]
BLOCK = {
    "norm.weight": "norm_mlstm.weight",
    "cell.qkvo.weight": "mlstm_layer.qkv_opreact.weight",
    "cell.input_forget.weight": "mlstm_layer.ifgate_preact.weight",
    "cell.input_forget.bias": "mlstm_layer.ifgate_preact.bias",
    "cell.norm.weight": "mlstm_layer.multihead_norm.weight",
    "cell.out.weight": "mlstm_layer.out_proj.weight",
    "mlp_norm.weight": "norm_ffn.weight",
    "mlp.up.weight": "ffn.proj_up_gate_z.weight",
    "mlp.down.weight": "ffn.proj_down.weight",
}
SINGLE = {  # what each fused matrix holds, from the first row
    "mlstm_layer.qkv_opreact": [f"mlstm_layer.{part}" for part in ("q", "k", "v", "ogate_preact")],
    "mlstm_layer.ifgate_preact": ["mlstm_layer.igate_preact", "mlstm_layer.fgate_preact"],
    "ffn.proj_up_gate_z": ["ffn.proj_up_gate", "ffn.proj_up"],
}
ENDS = {
    "embedding.weight": "embedding.weight",
    "stack.norm.weight": "backbone.out_norm.weight",
    "head.weight": "lm_head.weight",
}
QUESTION = "is it an xLSTM 7B with use_bias=False?"
EMBEDDING = {"nxai": "embedding.weight", "transformers": "backbone.embeddings.weight"}


def from_large(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of xLSTM 7B, of any size, by either's names and in either mode, as those of a `LanguageModel`.

    Raises:
        ValueError: weights are missing, or belong to an option that has no counterpart here, such as use_bias=True.
    """
    weights = {EMBEDDING["nxai"] if name == EMBEDDING["transformers"] else name: x for name, x in weights.items()}
    blocks = count_blocks(weights, "backbone.blocks")
    for at in range(blocks):
        for fused, parts in SINGLE.items():
            for leaf in ("weight", "bias"):
                names = [f"backbone.blocks.{at}.{part}.{leaf}" for part in parts]
                if all(name in weights for name in names):
                    weights[f"backbone.blocks.{at}.{fused}.{leaf}"] = torch.cat([weights.pop(name) for name in names])
    ours = {theirs: name for name, theirs in _names(blocks).items()}
    check_names("the state dict", weights, ours, QUESTION)
    return {ours[name]: x for name, x in weights.items()}


def to_large(weights: Mapping[str, Tensor], naming: Naming) -> dict[str, Tensor]:
    """Weights of a `LanguageModel` around an `XLSTMLargeStackConfig` by the others' names; inverts `from_large`.

    Args:
        weights: a state dict of ours.
        naming: "nxai_single" or "nxai_fused" for `xLSTMLarge` in that mode; "transformers" for its single mode.

    Raises:
        ValueError: weights are missing, or have no counterpart there, such as a bias of the head; or another naming.
    """
    if naming not in ("nxai_single", "nxai_fused", "transformers"):
        raise ValueError(f"naming {naming!r} is unknown; choose one of nxai_single, nxai_fused, transformers.")
    names = _names(count_blocks(weights, "stack.blocks"))
    check_names("the state dict", weights, names, QUESTION)
    theirs = {}
    for name, x in weights.items():
        official = names[name]
        if naming == "transformers" and name == "embedding.weight":
            official = EMBEDDING["transformers"]
        theirs |= {official: x} if naming == "nxai_fused" else _apart(official, x, weights)
    return theirs


def large_stack(weights: Mapping[str, Tensor]) -> XLSTMLargeStackConfig:
    """The configuration of the stack that these weights fill, read from what `from_large` returned.

    Weights do not tell the caps: those of xLSTM 7B are assumed, 15 for the gates and, in a `LanguageModelConfig`
    around this, `logit_cap=30.0`.

    Raises:
        ValueError: an MLP has a hidden width that is no multiple of 64, to which ours are rounded.
    """
    shapes = {name.removeprefix("stack."): tuple(x.shape) for name, x in weights.items()}
    rows, width = shapes["blocks.0.cell.qkvo.weight"]
    keys, hidden = rows // 2 - width, shapes["blocks.0.mlp.down.weight"][1]
    if hidden % 64:
        raise ValueError(f"the MLP is {hidden} wide, and must be a multiple of 64.")
    factor = keys / width
    return XLSTMLargeStackConfig(
        width=width,
        layers=count_blocks(weights, "stack.blocks"),
        heads=shapes["blocks.0.cell.input_forget.bias"][0] // 2,
        qk_factor=factor if int(factor * width) == keys else (keys + 0.5) / width,
        mlp_factor=(hidden - 32) / width,  # 64 x ceil finds the way back
    )


def _apart(official: str, x: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One fused weight as its parts; any other as it is."""
    path, _, leaf = official.rpartition(".")
    block, at = re.fullmatch(r"(backbone\.blocks\.(\d+)\.)?.*", path).groups()
    parts = SINGLE.get(path.removeprefix(block or ""))
    if parts is None:
        return {official: x}
    values = weights[f"stack.blocks.{at}.cell.out.weight"].shape[1]
    keys = x.shape[0] // 2 - values
    sizes = [keys, keys, values, values] if len(parts) == 4 else [x.shape[0] // 2] * 2
    return {f"{block}{part}.{leaf}": rows.clone() for part, rows in zip(parts, x.split(sizes), strict=True)}


def _names(blocks: int) -> dict[str, str]:
    """Our names to theirs in fused mode."""
    return ENDS | {
        f"stack.blocks.{at}.{ours}": f"backbone.blocks.{at}.{theirs}"
        for at in range(blocks)
        for ours, theirs in BLOCK.items()
    }
