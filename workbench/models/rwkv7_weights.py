"""Official RWKV-7 weights under our names, for a stack of `MixBlock`s with an embedding before and a head behind it.

Two namings are understood: that of the training code and the published language models (`emb`, `blocks.0.att`,
`ln_out`, `head`), and that of the authors' small demonstrations (`e`, `rwkv1`, `lno`, `o`), whose blocks hold a
`rosa` module beside the time mix.

References:
    github.com/BlinkDL/RWKV-LM, RWKV-v7/train_temp/src/model.py and RWKV-v8/251105_reverse_run.py.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import torch

from workbench.cells.rwkv7_initial import Ranks
from workbench.shapes import Tensor

BLEND = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")  # a row of `blend` each
SHARE = {"v0": "share.bias", "v1": "share.down", "v2": "share.up"}
TIME_MIX = SHARE | {
    "receptance.weight": "receptance.weight",
    "key.weight": "key.weight",
    "value.weight": "value.weight",
    "output.weight": "output.weight",
    "ln_x.weight": "norm.weight",
    "ln_x.bias": "norm.bias",
    "w0": "decay.bias",
    "w1": "decay.down",
    "w2": "decay.up",
    "a0": "rate.bias",
    "a1": "rate.down",
    "a2": "rate.up",
    "g1": "gate.down",
    "g2": "gate.up",
    "k_k": "removal",
    "k_a": "replacement",
    "r_k": "bonus",
}
CHANNEL_MIX = {"x_k": "blend", "key.weight": "key.weight", "value.weight": "value.weight"}
NORM = ("weight", "bias")
DEMO_TOP = {"e": "emb", "lno": "ln_out", "o": "head"}
DEMO_BLOCK = {"rwkv": "att", "ffn": "ffn", "rosa": "rosa", "ln_a": "ln1", "ln_b": "ln2", "ln_c": "rosa_norm"}


class OfficialSizes(NamedTuple):
    """What the network must be built with for these weights."""

    vocabulary: int
    width: int
    layers: int
    head_size: int
    ranks: Ranks
    factor: int  # hidden width of the channel mix, in widths
    embedding_norm: bool  # whether a norm follows the embedding
    output_bias: bool  # whether the time mix adds a constant
    head_bias: bool


def from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same weights by our names and in our shapes.

    Names are `embedding.weight`, `embedding_norm.*` where there is one, `blocks.<i>.norm.*`, `blocks.<i>.cell.*`
    (an `RWKV7`), `blocks.<i>.mlp_norm.*`, `blocks.<i>.mlp.*` (a `ChannelMix`), `norm.*` and `head.*`.

    Published models leave out what layer 0 would need to blend in its own values; it is filled with zeros, and
    never used. A `rosa` module whose embedding is zero adds a constant to the time mix, `cell.output.bias`.

    Raises:
        ValueError: weights are missing, are unknown, or belong to a part that this network lacks.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state_dict.items():
        path, _, leaf = _training_name(name).partition("@")
        parts.setdefault(path, {})[leaf] = tensor
    blocks = sorted({int(path.split(".")[1]) for path in parts if path.startswith("blocks.")})
    if blocks != list(range(len(blocks))) or not blocks:
        raise ValueError(f"these weights hold the blocks {blocks}, and must hold all from 0 upwards.")

    def take(path: str, *leaves: str, optional: tuple[str, ...] = ()) -> dict[str, Tensor]:
        got = parts.pop(path, {})
        _check_names(path, got, leaves, optional)
        return got

    ours = {"embedding": take("emb", "weight")}
    if "blocks.0.ln0" in parts:
        ours["embedding_norm"] = take("blocks.0.ln0", *NORM)
    for at in blocks:
        block = f"blocks.{at}"
        ours[f"{block}.norm"] = take(f"{block}.ln1", *NORM)
        cell = take(f"{block}.att", *BLEND, *TIME_MIX, optional=tuple(SHARE) if at == 0 else ())
        if at == 0 and not SHARE.keys() <= cell.keys():
            cell = _unused_share(cell, parts.get("blocks.1.att", {})) | cell
        ours[f"{block}.cell"] = time_mix(cell) | _constant(block, parts.pop(f"{block}.rosa", None))
        parts.pop(f"{block}.rosa_norm", None)
        ours[f"{block}.mlp_norm"] = take(f"{block}.ln2", *NORM)
        ours[f"{block}.mlp"] = channel_mix(take(f"{block}.ffn", *CHANNEL_MIX))
    ours["norm"] = take("ln_out", *NORM)
    ours["head"] = take("head", "weight", optional=("bias",))
    if parts:
        raise ValueError(f"these weights hold {', '.join(sorted(parts))}, which no RWKV-7 network here has.")
    return {f"{path}.{leaf}": tensor for path, leaves in ours.items() for leaf, tensor in leaves.items()}


def time_mix(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one official time mix as those of an `RWKV7`.

    Raises:
        ValueError: a weight is missing or unknown.
    """
    _check_names("the time mix", official, (*BLEND, *TIME_MIX))
    weights = {ours: _squeeze(official[name]) for name, ours in TIME_MIX.items()}
    return weights | {"blend": torch.stack([official[name].flatten() for name in BLEND])}


def channel_mix(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one official channel mix as those of a `ChannelMix`.

    Raises:
        ValueError: a weight is missing or unknown.
    """
    _check_names("the channel mix", official, CHANNEL_MIX)
    return {ours: _squeeze(official[name]) for name, ours in CHANNEL_MIX.items()}


def official_sizes(weights: dict[str, Tensor]) -> OfficialSizes:
    """The sizes of a network, read from what `from_official` returned."""
    vocabulary, width = weights["embedding.weight"].shape
    cell = {name.removeprefix("blocks.0.cell."): tensor for name, tensor in weights.items() if ".0.cell." in name}
    return OfficialSizes(
        vocabulary=vocabulary,
        width=width,
        layers=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        head_size=cell["bonus"].shape[1],
        ranks=Ranks(*(cell[f"{gate}.down"].shape[1] for gate in ("decay", "rate", "share", "gate"))),
        factor=weights["blocks.0.mlp.key.weight"].shape[0] // width,
        embedding_norm="embedding_norm.weight" in weights,
        output_bias="output.bias" in cell,
        head_bias="head.bias" in weights,
    )


def _training_name(name: str) -> str:
    """The name in the training code, with an @ between the path of the module and its parameter."""
    if demo := re.fullmatch(r"(rwkv|ffn|rosa|ln)(\d+)([abc]?)\.(.+)", name):
        kind, number, letter, leaf = demo.groups()
        kind = DEMO_BLOCK.get(f"{kind}_{letter}" if letter else kind, kind)
        return f"blocks.{int(number) - 1}.{kind}@{leaf}"
    if block := re.fullmatch(r"(blocks\.\d+\.\w+)\.(.+)", name):
        return "@".join(block.groups())
    module, _, leaf = name.partition(".")
    return f"{DEMO_TOP.get(module, module)}@{leaf}"


def _check_names(where: str, got: Iterable[str], wanted: Iterable[str], optional: tuple[str, ...] = ()) -> None:
    missing = [name for name in wanted if name not in set(got) | set(optional)]
    unknown = sorted(set(got) - set(wanted) - set(optional))
    if missing or unknown:
        raise ValueError(
            f"{where} lacks {', '.join(missing) or 'nothing'} and has the unknown {', '.join(unknown) or 'nothing'}; "
            f"are these the weights of an RWKV-7 (x070)?"
        )


def _squeeze(x: Tensor) -> Tensor:
    """Vectors are stored as (1, 1, E)."""
    return x.flatten() if x.ndim == 3 else x


def _unused_share(cell: dict[str, Tensor], above: dict[str, Tensor]) -> dict[str, Tensor]:
    rank = above["v1"].shape[1] if "v1" in above else 1
    width = cell["receptance.weight"].shape[0]
    shapes = {"v0": (width,), "v1": (width, rank), "v2": (rank, width)}
    return {name: cell["receptance.weight"].new_zeros(shape) for name, shape in shapes.items()}


def _constant(block: str, rosa: dict[str, Tensor] | None) -> dict[str, Tensor]:
    if rosa is None:
        return {}
    if rosa["rosa_qkv.emb"].abs().max() > 0:
        raise ValueError(
            f"{block} holds a trained rosa module, which RWKV-7 has not; its embedding would have to be 0."
        )
    return {"output.bias": rosa["o.bias"]}
