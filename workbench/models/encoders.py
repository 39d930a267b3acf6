"""Encoders by name: a window of the past in, one vector out, with what a person may want to plot.

Each name has one function, which makes the encoder from its configuration; `create` calls it.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from workbench.cells.parts import zero_padding
from workbench.cells.roles import tag
from workbench.kernels.checks import check_lengths
from workbench.kernels.gated_delta import GatedDeltaState
from workbench.kernels.gru import GRUState
from workbench.kernels.lstm import LSTMState
from workbench.kernels.mlstm import MLSTMSigmoidState, MLSTMState
from workbench.kernels.neural_memory import NeuralMemoryMLPState, NeuralMemoryState
from workbench.kernels.rwkv7 import RWKV7State
from workbench.kernels.slstm import SLSTMState
from workbench.models import layouts
from workbench.models.fresh import fresh
from workbench.models.heads import Pool, PoolKind
from workbench.models.nxai_encoder import NXAIOptions, nxai_body
from workbench.models.stack import StackState
from workbench.shapes import Float, Int, Tensor

MEMORY: Mapping[type, tuple[str, ...]] = {  # the fields of a state that are the memory itself
    LSTMState: ("c",),
    GRUState: ("h",),
    SLSTMState: ("c",),
    MLSTMState: ("c",),
    MLSTMSigmoidState: ("c",),
    GatedDeltaState: ("s",),
    RWKV7State: ("s",),
    NeuralMemoryState: ("m",),
    NeuralMemoryMLPState: ("w1", "w2"),
}
Size = Annotated[int, Field(ge=1)]
Option = int | float | bool | str | None | tuple | dict


class EncoderOutput(NamedTuple):
    """What an encoder returns.

    `info` holds, where there are any: `encoder_type`, its name; `state_norm`, the Frobenius norm of each layer's
    memory after the last step, all heads together, as it is scaled (B, layers); `pooling_weights`, the share of each
    step in `encoded` (B, T). Nothing in it carries a gradient.
    """

    encoded: Tensor  # (B, E)
    info: dict[str, Tensor | str]


class EncoderConfig(BaseModel):
    """Everything that defines an encoder's shape; its weights live in a checkpoint.

    Attributes:
        name: one of `list_available()`.
        n_features: variables at each step, F.
        hidden_size: width E, inside and of what comes out.
        num_layers: layers, or blocks, in series.
        dropout: share of each branch's output that is dropped in training.
        pool: how the steps become one vector, see `workbench.models.heads.Pool`.
        options: what only this encoder has, such as heads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["encoder"] = "encoder"
    name: str
    n_features: Size
    hidden_size: Size = 64
    num_layers: Size = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    pool: PoolKind = "last"
    options: dict[str, Option] = {}

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in _ENCODERS:
            raise ValueError(f"encoder {name!r} is unknown; choose one of {', '.join(_ENCODERS)}.")
        return name

    def build(self, seed: int = 0) -> nn.Module:
        """Make the encoder, with fresh weights drawn from the seed."""
        return fresh(lambda: _ENCODERS[self.name](self), seed)

    def example(self, seed: int = 0) -> tuple[Tensor]:
        """An input of the right shape, the same for a seed on every machine (2, 32, F)."""
        return (torch.randn(2, 32, self.n_features, generator=torch.Generator().manual_seed(seed)),)


_ENCODERS: dict[str, Callable[[EncoderConfig], nn.Module]] = {}


def register(name: str) -> Callable:
    """Make a function `f(config) -> encoder` the one that `create` calls for a name.

    Raises:
        ValueError: the name is taken.
    """
    if name in _ENCODERS:
        raise ValueError(f"encoder {name!r} is there already; register yours under another name.")

    def keep(function: Callable[[EncoderConfig], nn.Module]) -> Callable[[EncoderConfig], nn.Module]:
        _ENCODERS[name] = function
        return function

    return keep


def list_available() -> list[str]:
    """The names that `create` knows."""
    return list(_ENCODERS)


def create(
    name: str,
    *,
    n_features: int,
    hidden_size: int = 64,
    num_layers: int = 2,
    dropout: int | float = 0.0,
    pool: PoolKind = "last",
    seed: int = 0,
    **options: Option,
) -> nn.Module:
    """Make an encoder by its name: `encoder(x, lengths=) -> EncoderOutput`.

    Args:
        name: one of `list_available()`.
        n_features, hidden_size, num_layers, dropout, pool: see `EncoderConfig`.
        seed: fresh weights are drawn from it.
        options: what only this encoder has; another encoder's are refused.

    Raises:
        ValueError: an unknown name or option, or sizes that do not fit.
        RuntimeError: the encoder needs a package that is missing.
    """
    config = EncoderConfig(
        name=name,
        n_features=n_features,
        hidden_size=hidden_size,
        num_layers=num_layers,
        dropout=dropout,
        pool=pool,
        options=options,
    )
    return config.build(seed)


class Encoder(nn.Module):
    """Project the variables, run a body over the steps, and pool what it says into one vector.

    Args:
        config: its shape.
        body: `body(x, lengths=) -> (y, state)`, (B, T, E) to (B, T, E); a state that is no `StackState` goes unseen.
    """

    def __init__(self, config: EncoderConfig, body: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.project = tag("input", nn.Linear(config.n_features, config.hidden_size))
        self.body = body
        self.pool = Pool(config.hidden_size, config.pool)

    def forward(self, x: Float[Tensor, "B T F"], *, lengths: Int[Tensor, " B"] | None = None) -> EncoderOutput:
        """Return the vector of each sequence (B, E), and what there is to plot.

        Args:
            x: variables at each step (B, T, F).
            lengths: steps of each sequence (B,); one without steps becomes zeros.

        Raises:
            ValueError: x is not (B, T, F) with F = n_features, or lengths do not fit.
        """
        if x.ndim != 3 or x.shape[2] != self.config.n_features:
            raise ValueError(
                f"x is {tuple(x.shape)}, and must be (B, T, F) with F = n_features = {self.config.n_features}."
            )
        check_lengths("encoder", lengths, x.shape[0], x.shape[1])
        hidden, state = self.body(self.project(zero_padding(x, lengths)), lengths=lengths)
        info = {"encoder_type": self.config.name, "pooling_weights": self.pool.weights(hidden, lengths).detach()}
        if isinstance(state, StackState):
            info["state_norm"] = state_norms(state)
        return EncoderOutput(self.pool(hidden, lengths), info)


def state_norms(state: StackState) -> Float[Tensor, "B L"]:
    """The Frobenius norm of each block's memory, all heads together, as it is scaled (B, layers); no gradient."""
    norms = []
    for block in state.blocks:
        memory = [field.detach().flatten(1) for field in _memory(block)]
        norms.append(torch.linalg.vector_norm(torch.cat(memory, 1), dim=1))
    return torch.stack(norms, 1)


def _memory(state: tuple | Tensor) -> list[Tensor]:
    """The memory inside the state of a block, without tails, scales and normalisers."""
    if isinstance(state, Tensor):
        return []
    if fields := MEMORY.get(type(state)):
        return [getattr(state, field) for field in fields]
    return [tensor for part in state for tensor in _memory(part)]


def read_options(kind: type[BaseModel], config: EncoderConfig, fixed: Mapping[str, object]) -> BaseModel:
    """The options of an encoder as a model of theirs, with what is fixed by the name and the sizes.

    Raises:
        ValueError: an option is unknown, or does not fit.
    """
    known = [name for name in kind.model_fields if name not in {*fixed, "kind"}]
    if unknown := [name for name in config.options if name not in known]:
        raise ValueError(f"encoder {config.name!r} has no option {', '.join(unknown)}; it has {', '.join(known)}.")
    return kind.model_validate({**config.options, **fixed})


def stacked(layout: type[layouts.Layout], config: EncoderConfig, fixed: Mapping[str, object] | None = None) -> Encoder:
    """The encoder around a stack, its options being those of the stack's layout."""
    sizes = {"width": config.hidden_size, "layers": config.num_layers, "dropout": config.dropout}
    return Encoder(config, read_options(layout, config, {**sizes, **(fixed or {})}).build())


@register("lstm")
def lstm(config: EncoderConfig) -> Encoder:
    """LSTM layers on top of each other."""
    return stacked(layouts.LSTMStackConfig, config)


@register("gru")
def gru(config: EncoderConfig) -> Encoder:
    """GRU layers on top of each other."""
    return stacked(layouts.GRUStackConfig, config)


@register("slstm")
def slstm(config: EncoderConfig) -> Encoder:
    """Blocks of the 2024 xLSTM, all sLSTM."""
    return stacked(layouts.XLSTMStackConfig, config, {"slstm_at": tuple(range(config.num_layers))})


@register("mlstm")
def mlstm(config: EncoderConfig) -> Encoder:
    """Blocks of the 2024 xLSTM, all mLSTM."""
    return stacked(layouts.XLSTMStackConfig, config, {"slstm_at": ()})


@register("xlstm")
def xlstm(config: EncoderConfig) -> Encoder:
    """Blocks of the 2024 xLSTM, sLSTM at `slstm_at`, first of all."""
    return stacked(layouts.XLSTMStackConfig, config)


@register("xlstm_nxai")
def xlstm_nxai(config: EncoderConfig) -> Encoder:
    """The block stack of NX-AI's package `xlstm`, which must be installed; in plain torch, as on a CPU."""
    sizes = {"width": config.hidden_size, "layers": config.num_layers, "dropout": config.dropout}
    return Encoder(config, nxai_body(read_options(NXAIOptions, config, sizes)))


@register("gated_deltanet")
def gated_deltanet(config: EncoderConfig) -> Encoder:
    """Blocks of Gated DeltaNet."""
    return stacked(layouts.GatedDeltaStackConfig, config)


@register("rwkv7")
def rwkv7(config: EncoderConfig) -> Encoder:
    """Blocks of RWKV-7."""
    return stacked(layouts.RWKV7StackConfig, config)


@register("titans")
def titans(config: EncoderConfig) -> Encoder:
    """Blocks of Titans' neural memory as a layer."""
    return stacked(layouts.TitansStackConfig, config)
