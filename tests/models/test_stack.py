"""Stacks: published parameter counts to the digit, streaming, and refusals."""

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from workbench.cells.states import map_state
from workbench.models.layouts import LSTMStackConfig, XLSTMStackConfig

VOCABULARY = 50_304


@pytest.mark.parametrize(
    ("width", "layers", "slstm_at", "published"),
    [
        (768, 24, (), 163_806_144),
        (768, 24, (3, 20), 163_690_928),
        (1024, 48, (), 409_290_112),
        (1536, 48, (), 840_427_392),
        (2048, 48, (3, 5, 7, 40, 42, 44), 1_420_065_104),
        (2560, 64, (), 2_788_396_032),
    ],
)
def test_parameter_counts_are_those_of_the_paper(width, layers, slstm_at, published):
    """xLSTM 2.0.6 with untied embeddings and 4 heads; the 350M row is Table 1's 409.3 M."""
    with torch.device("meta"):
        stack = XLSTMStackConfig(width=width, layers=layers, slstm_at=slstm_at).build()
    assert sum(p.numel() for p in stack.parameters()) + 2 * VOCABULARY * width == published


@pytest.mark.parametrize(
    "config",
    [LSTMStackConfig(width=8), XLSTMStackConfig(width=8, layers=3, heads=2, slstm_at=(1,))],
    ids=["lstm", "xlstm"],
)
def test_stream_equals_one_pass(config):
    torch.manual_seed(0)
    stack, x = config.build().double(), torch.randn(2, 9, 8).double()
    wanted, last = stack(x)
    state, outputs = None, []
    for t in range(9):
        y, state = stack(x[:, t : t + 1], state)
        outputs.append(y)
    assert_close(torch.cat(outputs, 1), wanted, rtol=1e-10, atol=1e-10)
    seen = []
    map_state(lambda z: seen.append(z) or z, last)
    map_state(lambda z: assert_close(z, seen.pop(0), rtol=1e-10, atol=1e-10) or z, state)
    assert not seen


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"layers": 2, "slstm_at": (2,)}, r"slstm_at holds \[2\], and must name blocks from 0 to 1"),
        ({"width": 30, "heads": 4}, "width=30 is not a multiple of heads=4"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_bad_configurations_are_refused(values, says):
    with pytest.raises(ValidationError, match=says):
        XLSTMStackConfig(**values)
