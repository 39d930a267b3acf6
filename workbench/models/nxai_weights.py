"""Weights of NX-AI's xLSTM package under our names, and back: its blocks, block stack and language model.

What differs there, besides names:

- The projection called `igate` of an sLSTM drives the forget gate, and `fgate` the input gate; biases and
  recurrent weights are in their right places.
- The gates of an sLSTM come in the order i, f, z, o, and one form for CPUs and one for GPUs store them apart.
- Weights of norms are stored less 1.

The package adds 1e-6 to the denominator of the mLSTM, inside what is scaled by exp(-m). No weight can undo this: where
|n q| is small, outputs differ by about as much.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517; package xlstm 2.0.6.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from workbench.models.layouts import XLSTMShape, XLSTMStackConfig
from workbench.models.weight_names import check_names, count_blocks
from workbench.shapes import Tensor

Form = Literal["vanilla", "cuda"]
QUESTION = "is it an xLSTM of 2024 with bias=False?"
STACK = "xlstm_block_stack."
CONV = {"conv.weight": "conv1d.conv.weight", "conv.bias": "conv1d.conv.bias"}
MLSTM = CONV | {
    "up.weight": "proj_up.weight",
    **{f"qkv.{x}.weight": f"{x}_proj.weight" for x in "qkv"},
    **{f"input_gate.{x}": f"mlstm_cell.igate.{x}" for x in ("weight", "bias")},
    **{f"forget_gate.{x}": f"mlstm_cell.fgate.{x}" for x in ("weight", "bias")},
    "norm.weight": "mlstm_cell.outnorm.weight",
    "skip": "learnable_skip",
    "down.weight": "proj_down.weight",
}
SLSTM = {
    "gates.z.weight": "zgate.weight",
    "gates.i.weight": "fgate.weight",  # swapped there
    "gates.f.weight": "igate.weight",
    "gates.o.weight": "ogate.weight",
    "recurrent": "slstm_cell._recurrent_kernel_",
    "bias": "slstm_cell._bias_",
    "norm.weight": "group_norm.weight",
}
MLP = {
    "mlp_norm.weight": "ffn_norm.weight",
    "mlp.up.weight": "ffn.proj_up.weight",
    "mlp.down.weight": "ffn.proj_down.weight",
}
ENDS = {"embedding.weight": "token_embedding.weight", "head.weight": "lm_head.weight"}
IFZO, ZIFO = [2, 0, 1, 3], [1, 2, 0, 3]  # where our gates are in their order, and theirs in ours


def from_nxai(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an `xLSTMBlockStack` as those of a `Stack`, of an `xLSTMLMModel` as those of a `LanguageModel`.

    Both forms of the sLSTM are understood, "vanilla" and "cuda".

    Raises:
        ValueError: weights are missing, or belong to an option that has no counterpart here, such as bias=True.
    """
    names = {theirs: ours for ours, theirs in _names(weights, theirs=True).items()}
    check_names("the state dict", weights, names, QUESTION)
    cuda = any(x.shape[1] < x.shape[2] for name, x in weights.items() if name.endswith("_recurrent_kernel_"))
    return {names[name]: _read(names[name], weights, name, cuda) for name in weights}


def to_nxai(weights: Mapping[str, Tensor], form: Form = "vanilla") -> dict[str, Tensor]:
    """Weights of a `Stack` or a `LanguageModel` as those of an `xLSTMBlockStack` or an `xLSTMLMModel`.

    Weights of norms come back from there within one rounding of 1, all others bit by bit.

    Args:
        weights: a state dict of ours, of a network with the paper's gates: the package knows no others.
        form: how the sLSTM is stored, `sLSTMLayerConfig.backend` there.

    Raises:
        ValueError: weights are missing, or have no counterpart there, such as a bias of the head; or another form.
    """
    if form not in ("vanilla", "cuda"):
        raise ValueError(f"form {form!r} is unknown; choose one of vanilla, cuda.")
    names = _names(weights, theirs=False)
    check_names("the state dict", weights, names, QUESTION)
    return {names[name]: _write(name, weights, form) for name in weights}


def nxai_stack(weights: Mapping[str, Tensor]) -> XLSTMStackConfig:
    """The configuration of the stack that these weights fill, read from what `from_nxai` returned.

    Weights do not tell the activation of the MLP: the paper's GELU is assumed.

    Raises:
        ValueError: an MLP has a hidden width that is no multiple of 64, to which ours are rounded.
    """
    shapes = {name.removeprefix("stack."): tuple(x.shape) for name, x in weights.items()}
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    slstm_at = tuple(at for at in range(layers) if f"blocks.{at}.cell.recurrent" in shapes)
    mlstm = next((f"blocks.{at}." for at in range(layers) if at not in slstm_at), None)
    slstm = f"blocks.{slstm_at[0]}." if slstm_at else None
    width = shapes["blocks.0.norm.weight"][0]
    sizes, shape = {}, {"final_norm": "norm.weight" in shapes}
    if slstm:
        heads, hidden = shapes[f"{slstm}cell.recurrent"][1], shapes.get(f"{slstm}mlp.down.weight", (0, 0))[1]
        if hidden % 64:
            raise ValueError(f"the MLP behind an sLSTM is {hidden} wide, and must be a multiple of 64.")
        shape |= {"slstm_heads": heads, "slstm_conv": shapes.get(f"{slstm}cell.conv.weight", (0, 0))[1]}
        shape |= {"mlp_factor": (hidden - 32) / width if hidden else None}  # 64 x ceil finds the way back
        sizes |= {"heads": heads}
    if mlstm:
        sizes |= {"heads": shapes[f"{mlstm}cell.input_gate.bias"][0], "conv": shapes[f"{mlstm}cell.conv.weight"][1]}
        shape |= {"inner": shapes[f"{mlstm}cell.skip"][0], "block": shapes[f"{mlstm}cell.qkv.q.weight"][1]}
    return XLSTMStackConfig(width=width, layers=layers, slstm_at=slstm_at, shape=XLSTMShape(**shape), **sizes)


def _names(weights: Iterable[str], theirs: bool) -> dict[str, str]:
    """Our name of each weight that these networks must have, to theirs; what is optional follows what is there."""
    weights = set(weights)
    prefix = STACK if theirs else "stack."
    language = any(name.startswith(prefix) or name in (ENDS.values() if theirs else ENDS) for name in weights)
    ours_at, theirs_at, here = ("stack.", STACK, prefix) if language else ("", "", "")
    names = dict(ENDS) if language else {}
    for at in range(count_blocks(weights, f"{here}blocks")):
        path = f"{here}blocks.{at}."
        inside = _block({name.removeprefix(path) for name in weights if name.startswith(path)})
        names |= {f"{ours_at}blocks.{at}.{ours}": f"{theirs_at}blocks.{at}.{name}" for ours, name in inside.items()}
    if f"{here}{'post_blocks_norm' if theirs else 'norm'}.weight" in weights:
        names[f"{ours_at}norm.weight"] = f"{theirs_at}post_blocks_norm.weight"
    return names


def _block(inside: set[str]) -> dict[str, str]:
    """The names inside one block, ours to theirs, chosen by what is in it under either kind of names."""
    slstm = {"cell.recurrent", "xlstm.slstm_cell._recurrent_kernel_"} & inside
    cell = MLSTM
    if slstm:
        cell = SLSTM | (CONV if any(".conv" in name for name in inside) else {})
    names = {"norm.weight": "xlstm_norm.weight"}
    names |= {f"cell.{ours}": f"xlstm.{theirs}" for ours, theirs in cell.items()}
    return names | (MLP if slstm and any(name.startswith(("mlp", "ffn")) for name in inside) else {})


def _read(ours: str, weights: Mapping[str, Tensor], name: str, cuda: bool) -> Tensor:
    """One weight of theirs in our shape."""
    x = weights[name]
    if ours.endswith("norm.weight"):
        return x + 1
    if ours.endswith("conv.weight"):
        return x[:, 0]
    if ours.endswith("cell.recurrent"):
        heads, size = x.shape[0], min(x.shape[1:])
        if cuda:
            return x.view(heads, size, 4, size).permute(2, 0, 3, 1)[IFZO]
        return x.view(heads, 4, size, size).transpose(0, 1)[IFZO]
    if ours.endswith("cell.bias"):
        heads = weights[name.replace("_bias_", "_recurrent_kernel_")].shape[0]
        x = x.view(heads, 4, -1).transpose(0, 1) if cuda else x.view(4, heads, -1)
        return x[IFZO].unsqueeze(2)
    return x


def _write(ours: str, weights: Mapping[str, Tensor], form: Form) -> Tensor:
    """One weight of ours in their shape."""
    x = weights[ours]
    if ours.endswith("norm.weight"):
        return x - 1
    if ours.endswith("conv.weight"):
        return x[:, None]
    if ours.endswith("cell.recurrent"):
        x = x[ZIFO]
        return (x.permute(1, 3, 0, 2).flatten(2) if form == "cuda" else x.transpose(0, 1).flatten(1, 2)).contiguous()
    if ours.endswith("cell.bias"):
        x = x[ZIFO].squeeze(2)
        return (x.transpose(0, 1) if form == "cuda" else x).flatten()
    return x
