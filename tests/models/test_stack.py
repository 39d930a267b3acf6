"""Stacks: streaming and refusals."""

from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from workbench.cells.states import map_state
from workbench.models.layouts import LSTMStackConfig, StackConfig, XLSTMStackConfig


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


@pytest.mark.parametrize("layout", get_args(get_args(StackConfig)[0]))
def test_a_state_holds_no_more_memory_after_many_steps(layout):
    """A view of the last step would keep all steps alive."""
    stack, held = layout(width=16).build(), []
    for steps in (4, 40):
        sizes = []
        map_state(
            lambda x, sizes=sizes: sizes.append(x.untyped_storage().nbytes()), stack(torch.randn(1, steps, 16))[1]
        )
        held.append(sizes)
    assert held[0] == held[1]


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
