"""The language model: tokens in, logits of the next token out, the state handed on."""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from workbench.cells.parts import small_init, soft_cap
from workbench.cells.roles import tag
from workbench.kernels.checks import inside
from workbench.models.block import make_norm
from workbench.models.fresh import fresh
from workbench.models.layouts import StackConfig, XLSTMStackConfig
from workbench.models.stack import StackState
from workbench.shapes import Float, Int, Tensor


class LanguageModelConfig(BaseModel):
    """Everything that defines a language model's shape; its weights live in a checkpoint.

    Attributes:
        vocabulary: number of tokens.
        stack: the recurrent network.
        embedding_norm: whether a layer norm follows the embedding, as in RWKV-7.
        tied: whether the head reads with the embedding's own weights.
        head_bias: whether the head has a bias.
        logit_cap: logits are softly held within plus and minus this, as in xLSTM 7B (30); None for no cap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["language"] = "language"
    vocabulary: Annotated[int, Field(ge=1)]
    stack: StackConfig = XLSTMStackConfig()
    embedding_norm: bool = False
    tied: bool = False
    head_bias: bool = False
    logit_cap: Annotated[float, Field(gt=0)] | None = None

    def build(self, seed: int = 0) -> "LanguageModel":
        """Make the model, with fresh weights drawn from the seed."""
        return fresh(lambda: LanguageModel(self), seed)

    def example(self, seed: int = 0) -> tuple[Tensor]:
        """Tokens of the right range, the same for a seed on every machine (2, 32)."""
        g = torch.Generator().manual_seed(seed)
        return (torch.randint(self.vocabulary, (2, 32), generator=g),)


class LanguageModel(nn.Module):
    """Embed the tokens, run the stack over them, and read off the logits of the next token.

    Args:
        config: its shape.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.stack.width
        self.embedding = tag("input", nn.Embedding(config.vocabulary, width))
        self.embedding_norm = make_norm("affine", width) if config.embedding_norm else nn.Identity()
        self.stack = config.stack.build()
        self.head = tag("head", nn.Linear(width, config.vocabulary, bias=config.head_bias))
        small_init(self.embedding.weight, width)
        small_init(self.head.weight, width)
        if config.tied:
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens: Int[Tensor, "B T"], state: StackState | None = None, *, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T X"], StackState]:
        """Return the logits of the next token after each step (B, T, vocabulary), and the state after the last.

        Args:
            tokens: whole numbers from 0 to vocabulary - 1 (B, T).
            state: what the last call returned; None is an empty past.
            lengths: steps of each sequence (B,); what lies behind may hold any number.

        Raises:
            TypeError: tokens that are not whole numbers.
            ValueError: tokens that are not in the vocabulary.
        """
        if lengths is not None:
            tokens = tokens.masked_fill(~inside(lengths, tokens.shape[1]), 0)
        check_tokens(tokens, self.config.vocabulary)
        hidden, state = self.stack(self.embedding_norm(self.embedding(tokens)), state, lengths=lengths)
        return soft_cap(self.head(hidden), self.config.logit_cap), state


def check_tokens(tokens: Tensor, vocabulary: int) -> None:
    """Refuse tokens that the embedding has no row for: on a GPU, they would end the process.

    Raises:
        TypeError: they are not whole numbers.
        ValueError: one is below 0, or not below the vocabulary.
    """
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"tokens must be int64 or int32, and are {tokens.dtype}; convert them with .long().")
    if not tokens.numel() or tokens.is_meta:
        return
    low, high = (int(x) for x in tokens.aminmax())
    if low < 0 or high >= vocabulary:
        other = "" if high < vocabulary else f", or build the model with vocabulary={high + 1}"
        raise ValueError(
            f"tokens run from {low} to {high}, and must stay between 0 and {vocabulary - 1} with "
            f"vocabulary={vocabulary}; encode with this model's own tokens{other}."
        )
