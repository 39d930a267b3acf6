"""Language models have exactly the published numbers of parameters, counted without memory for them.

References:
    Beck et al. (2024), xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, Table 1: 409.3 M and 408.4 M.
    Beck et al. (2025), xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference, arXiv:2503.13427, App. B.
    The other numbers are those of package xlstm 2.0.6, with 50,304 tokens, 4 heads and a head of its own.
"""

import pytest
import torch

from workbench.models.language import LanguageModelConfig
from workbench.models.layouts import XLSTMLargeStackConfig, XLSTMStackConfig

VOCABULARY = 50_304
AT = (3, 5, 7, 40, 42, 44)  # the sLSTM blocks among 48; for the count, it is their number that matters
SIZES = [
    (768, 24, (), 163_806_144),
    (768, 24, (3, 20), 163_690_928),
    (1024, 48, (), 409_290_112),
    (1024, 48, AT, 408_436_048),
    (1536, 48, (), 840_427_392),
    (1536, 48, AT, 839_736_144),
    (2048, 48, (), 1_422_559_616),
    (2048, 48, AT, 1_420_065_104),
    (2560, 64, (), 2_788_396_032),
    (2560, 64, AT, 2_783_311_824),
]
XLSTM_7B = XLSTMLargeStackConfig(width=4096, layers=32, heads=8)


def count(stack, **options):
    """Parameters of a language model around a stack, each once."""
    with torch.device("meta"):
        model = LanguageModelConfig(vocabulary=VOCABULARY, stack=stack, **options).build()
    assert all(parameter.is_meta for parameter in model.parameters())
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("width", "layers", "slstm_at", "published"), SIZES)
def test_xlstm_has_as_many_as_published(width, layers, slstm_at, published):
    assert count(XLSTMStackConfig(width=width, layers=layers, slstm_at=slstm_at)) == published


def test_xlstm_7b_has_as_many_as_published():
    assert count(XLSTM_7B, logit_cap=30.0) == 6_865_424_896


def test_xlstm_7b_has_as_many_in_each_part_as_published():
    """32 blocks, the norm behind them, the embedding and the head."""
    with torch.device("meta"):
        stack = XLSTM_7B.build()
    assert {sum(p.numel() for p in block.parameters()) for block in stack.blocks} == {201_666_576}
    assert sum(p.numel() for p in stack.norm.parameters()) == 4096
    assert 32 * 201_666_576 + 4096 + 2 * VOCABULARY * 4096 == 6_865_424_896


def test_a_tied_head_counts_once():
    stack = XLSTMStackConfig(width=64, layers=1)
    assert count(stack) - count(stack, tied=True) == VOCABULARY * 64
