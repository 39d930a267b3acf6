"""Official RWKV-7 weights under our names, and back: those of a `LanguageModel` around an `RWKV7StackConfig`.

Two namings are understood. That of the training code, in which the language models are published, is `emb`,
`blocks.0.att`, `ln_out`, `head`. That of the authors' small demonstrations is `e`, `rwkv1`, `lno`, `o`; their blocks
hold a `rosa` module beside the time mix. Its output is o(e s), s being a vector of plus and minus 1, so where the
embedding e is 0 it is a constant, the bias of o: here `cell.output.bias`. It cannot be left out.

References:
    Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456.
    github.com/BlinkDL/RWKV-LM, RWKV-v7/train_temp/src/model.py and RWKV-v8/251105_reverse_run.py.
"""

import re
from collections.abc import Mapping
from typing import Literal

import torch

from workbench.cells.rwkv7_initial import Ranks
from workbench.models.language import LanguageModelConfig
from workbench.models.layouts import RWKV7StackConfig
from workbench.models.weight_names import check_names, count_blocks
from workbench.shapes import Tensor

Naming = Literal["published", "demonstration"]
QUESTION = "are these the weights of an RWKV-7 (x070)?"
NORM_EPS = 64e-5  # in the norm of each head, whatever its size
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
VECTORS = {*BLEND, "v0", "w0", "a0", "k_k", "k_a"}  # stored as (1, 1, E)
NORM = ("weight", "bias")
CONSTANT = "output.bias"
ROSA = {  # shapes in widths; all but o.bias are without effect where emb is 0
    **dict.fromkeys(("x_q", "x_k", "x_v", "rosa_qkv.emb"), "11E"),
    **dict.fromkeys(("q.weight", "k.weight", "v.weight", "o.weight"), "EE"),
    **dict.fromkeys(("q.bias", "k.bias", "v.bias", "o.bias"), "E"),
}
ENDS = {"emb": "embedding", "blocks.0.ln0": "embedding_norm", "ln_out": "stack.norm", "head": "head"}
BLOCK = {"ln1": "norm", "att": "cell", "ln2": "mlp_norm", "ffn": "mlp"}
DEMO_ENDS = {"e": "emb", "lno": "ln_out", "o": "head"}
DEMO_BLOCK = {"rwkv": "att", "ffn": "ffn", "rosa": "rosa", "ln_a": "ln1", "ln_b": "ln2", "ln_c": "rosa_norm"}


def from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by our names and in our shapes, under either naming.

    Published models leave out what layer 0 would need to blend in its own values; it is filled with zeros, and
    never used.

    Raises:
        ValueError: weights are missing, are unknown, or belong to a part that this network lacks, as a `rosa` module
            does whose embedding is not 0.
    """
    parts = _parts({_training_name(name): x for name, x in weights.items()})
    blocks = count_blocks(parts, "blocks")

    def take(path: str, *leaves: str, optional: tuple[str, ...] = ()) -> dict[str, Tensor]:
        got = parts.pop(path, {})
        check_names(path, got, leaves, QUESTION, optional)
        return got

    ours = {"embedding": take("emb", "weight")}
    if "blocks.0.ln0" in parts:
        ours["embedding_norm"] = take("blocks.0.ln0", *NORM)
    for at in range(blocks):
        theirs, block = f"blocks.{at}", f"stack.blocks.{at}"
        ours[f"{block}.norm"] = take(f"{theirs}.ln1", *NORM)
        cell = take(f"{theirs}.att", *BLEND, *TIME_MIX, optional=tuple(SHARE) if at == 0 else ())
        if at == 0 and not SHARE.keys() & cell.keys():
            cell |= _unused_share(cell, parts.get("blocks.1.att", {}))
        ours[f"{block}.cell"] = time_mix(cell)
        if f"{theirs}.rosa" in parts:
            ours[f"{block}.cell"] |= {CONSTANT: _constant(theirs, take(f"{theirs}.rosa", *ROSA))}
            take(f"{theirs}.rosa_norm", *NORM)
        ours[f"{block}.mlp_norm"] = take(f"{theirs}.ln2", *NORM)
        ours[f"{block}.mlp"] = channel_mix(take(f"{theirs}.ffn", *CHANNEL_MIX))
    ours["stack.norm"] = take("ln_out", *NORM)
    ours["head"] = take("head", "weight", optional=("bias",))
    if parts:
        raise ValueError(f"these weights hold {', '.join(sorted(parts))}, which no RWKV-7 network here has.")
    return {f"{path}.{leaf}": x for path, leaves in ours.items() for leaf, x in leaves.items()}


def to_official(weights: Mapping[str, Tensor], naming: Naming = "published") -> dict[str, Tensor]:
    """Weights of a `LanguageModel` around an `RWKV7StackConfig` by the official names; inverts `from_official`.

    What layer 0 never uses is left out where it is 0, as the published models do. A constant of the time mix becomes a
    `rosa` module that holds it and zeros; of one that came with the weights, all else is lost, and had no effect.

    Args:
        weights: a state dict of ours.
        naming: "published", or "demonstration", which has no norm behind the embedding.

    Raises:
        ValueError: weights are missing, or have no counterpart in this naming; or another naming.
    """
    if naming not in Naming.__args__:
        raise ValueError(f"naming {naming!r} is unknown; choose one of {', '.join(Naming.__args__)}.")
    parts = _parts(weights)
    blocks, demo = count_blocks(parts, "stack.blocks"), naming == "demonstration"
    names = {ours: theirs for theirs, ours in ENDS.items()}
    for at in range(blocks):
        names |= {f"stack.blocks.{at}.{ours}": f"blocks.{at}.{theirs}" for theirs, ours in BLOCK.items()}
    optional = () if demo else ("embedding_norm",)
    check_names(f"this model, for the {naming} naming,", parts, names.keys() - {"embedding_norm"}, QUESTION, optional)
    official = {}
    for path, leaves in parts.items():
        name = names[path]
        if path.endswith(".cell"):
            if demo and CONSTANT in leaves:
                official |= _rosa(name.removesuffix(".att"), leaves.pop(CONSTANT))
            check_names(path, leaves, ("blend", *TIME_MIX.values()), QUESTION)
            leaves = _official_time_mix(leaves, first=name == "blocks.0.att")
        elif path.endswith(".mlp"):
            check_names(path, leaves, CHANNEL_MIX.values(), QUESTION)
            leaves = {leaf: _stretch(leaf, leaves[ours]) for leaf, ours in CHANNEL_MIX.items()}
        else:
            check_names(path, leaves, ("weight",), QUESTION, ("bias",))
        official |= {f"{name}.{leaf}": x for leaf, x in leaves.items()}
    return {_demo_name(name): x for name, x in official.items()} if demo else official


def official_language(weights: Mapping[str, Tensor]) -> LanguageModelConfig:
    """The configuration of the model that these weights fill, read from what `from_official` returned."""
    vocabulary, width = weights["embedding.weight"].shape
    cell = {name.removeprefix("stack.blocks.0.cell."): x for name, x in weights.items() if ".blocks.0.cell." in name}
    stack = RWKV7StackConfig(
        width=width,
        layers=count_blocks(_parts(weights), "stack.blocks"),
        head_size=cell["bonus"].shape[1],
        ranks=Ranks(*(cell[f"{gate}.down"].shape[1] for gate in ("decay", "rate", "share", "gate"))),
        norm_eps=NORM_EPS,
        output_bias=CONSTANT in cell,
        mlp_factor=weights["stack.blocks.0.mlp.key.weight"].shape[0] // width,
    )
    return LanguageModelConfig(
        vocabulary=vocabulary,
        stack=stack,
        embedding_norm="embedding_norm.weight" in weights,
        head_bias="head.bias" in weights,
    )


def time_mix(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one official time mix as those of an `RWKV7`.

    Raises:
        ValueError: a weight is missing or unknown.
    """
    check_names("the time mix", official, (*BLEND, *TIME_MIX), QUESTION)
    weights = {ours: _squeeze(official[name]) for name, ours in TIME_MIX.items()}
    return weights | {"blend": torch.stack([official[name].flatten() for name in BLEND])}


def channel_mix(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one official channel mix as those of a `ChannelMix`.

    Raises:
        ValueError: a weight is missing or unknown.
    """
    check_names("the channel mix", official, CHANNEL_MIX, QUESTION)
    return {ours: _squeeze(official[name]) for name, ours in CHANNEL_MIX.items()}


def _official_time_mix(ours: Mapping[str, Tensor], first: bool) -> dict[str, Tensor]:
    official = {name: _stretch(name, row) for name, row in zip(BLEND, ours["blend"], strict=True)}
    unused = first and not any(ours[leaf].any() for leaf in SHARE.values())
    names = {name: leaf for name, leaf in TIME_MIX.items() if not (unused and name in SHARE)}
    return official | {name: _stretch(name, ours[leaf]) for name, leaf in names.items()}


def _training_name(name: str) -> str:
    """The name in the training code."""
    if demo := re.fullmatch(r"(rwkv|ffn|rosa|ln)(\d+)([abc]?)\.(.+)", name):
        kind, number, letter, leaf = demo.groups()
        kind = DEMO_BLOCK.get(f"{kind}_{letter}" if letter else kind, kind)
        return f"blocks.{int(number) - 1}.{kind}.{leaf}"
    module, _, leaf = name.partition(".")
    return f"{DEMO_ENDS.get(module, module)}.{leaf}"


def _demo_name(name: str) -> str:
    """The name in the demonstrations of a name in the training code."""
    if block := re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(.+)", name):
        number, module, leaf = block.groups()
        kind, _, letter = next(kind for kind, theirs in DEMO_BLOCK.items() if theirs == module).partition("_")
        return f"{kind}{int(number) + 1}{letter}.{leaf}"
    module, _, leaf = name.partition(".")
    return f"{next(kind for kind, theirs in DEMO_ENDS.items() if theirs == module)}.{leaf}"


def _parts(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Weights by module: that of a block goes by `blocks.<i>.<module>`, all others by what stands before the leaf."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, x in weights.items():
        match = re.fullmatch(r"((?:stack\.)?blocks\.\d+\.\w+|stack\.\w+|\w+)\.(.+)", name)
        path, leaf = match.groups() if match else (name, "")
        parts.setdefault(path, {})[leaf] = x
    return parts


def _squeeze(x: Tensor) -> Tensor:
    """Vectors are stored as (1, 1, E)."""
    return x.flatten() if x.ndim == 3 else x


def _stretch(name: str, x: Tensor) -> Tensor:
    return x[None, None] if name in VECTORS else x


def _unused_share(cell: Mapping[str, Tensor], above: Mapping[str, Tensor]) -> dict[str, Tensor]:
    rank = above["v1"].shape[1] if "v1" in above else 1
    width = cell["receptance.weight"].shape[0]
    shapes = {"v0": (width,), "v1": (width, rank), "v2": (rank, width)}
    return {name: cell["receptance.weight"].new_zeros(shape) for name, shape in shapes.items()}


def _constant(block: str, rosa: Mapping[str, Tensor]) -> Tensor:
    """What a rosa module adds to every step."""
    if rosa["rosa_qkv.emb"].any():
        raise ValueError(
            f"{block} holds a trained rosa module, which RWKV-7 has not; its embedding would have to be 0."
        )
    return rosa["o.bias"]


def _rosa(block: str, constant: Tensor) -> dict[str, Tensor]:
    """A rosa module that adds a constant to every step, and the norm before it."""
    width = len(constant)
    rosa = {leaf: constant.new_zeros([width if size == "E" else 1 for size in sizes]) for leaf, sizes in ROSA.items()}
    official = {f"{block}.rosa.{leaf}": x for leaf, x in (rosa | {"o.bias": constant}).items()}
    norm = {"weight": constant.new_ones(width), "bias": constant.new_zeros(width)}
    return official | {f"{block}.rosa_norm.{leaf}": x for leaf, x in norm.items()}
