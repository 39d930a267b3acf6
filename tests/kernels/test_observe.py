"""What is seen of a memory: norm and effective rank without a decomposition, in stretches that cannot be seen."""

from typing import NamedTuple

import pytest
import torch
from torch.testing import assert_close

from workbench.kernels import observe as module
from workbench.kernels.gated_delta import gated_delta_gates
from workbench.kernels.mlstm import mlstm_gates, mlstm_sigmoid_gates
from workbench.kernels.neural_memory import first_state, neural_memory_gates, neural_memory_mlp_gates
from workbench.kernels.observe import field, observe, size_and_rank
from workbench.kernels.rwkv7 import rwkv7_gates

SHAPES = [(5, 5), (7, 3), (3, 7), (1, 4), (6, 1)]


def participation(*layers):
    """The definition, by singular values."""
    s = torch.cat([torch.linalg.svdvals(layer) for layer in layers], -1).square()
    return s.sum(-1).square() / s.square().sum(-1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rank_is_the_participation_ratio_of_the_singular_values(shape):
    s = torch.randn(2, 3, 4, *shape, dtype=torch.float64)
    size, rank = size_and_rank(s)
    assert_close(size, torch.linalg.matrix_norm(s))
    assert_close(rank, participation(s))
    assert 1 - 1e-12 <= rank.min() <= rank.max() <= min(shape) + 1e-12


def test_two_layers_are_one_matrix_block_by_block():
    first, second = torch.randn(2, 6, 4).double(), torch.randn(2, 3, 6).double()
    size, rank = size_and_rank(first, second)
    joined = torch.stack([torch.block_diag(*pair) for pair in zip(first, second, strict=True)])
    assert_close(rank, participation(joined))
    assert_close(size, torch.linalg.matrix_norm(joined))


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1.0, 1e25, 2e38])
def test_rank_does_not_depend_on_the_scale_even_at_the_ends_of_float32(scale):
    s = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) * scale
    size, rank = size_and_rank(s)
    assert rank == 2
    assert_close(float(size), scale * 2**0.5, rtol=1e-6, atol=0)


def test_ranks_of_known_memories():
    k = torch.linalg.qr(torch.randn(5, 5).double())[0]
    assert size_and_rank(torch.zeros(5, 4))[1] == 0
    assert_close(size_and_rank(torch.outer(k[0], torch.randn(4).double()))[1], torch.tensor(1.0).double())
    for pairs in range(1, 6):  # as many orthogonal keys with values of one length
        assert_close(size_and_rank(k[:pairs].T @ k[:pairs])[1], torch.tensor(float(pairs)).double())


def test_what_is_not_finite_is_said_to_be_so():
    for bad in (torch.inf, torch.nan):
        s = torch.eye(3)
        s[0, 1] = bad
        size, rank = size_and_rank(torch.stack([s, torch.eye(3)]))
        assert_close(size, torch.tensor([bad, 3**0.5]), equal_nan=True)
        assert rank[0].isnan()
        assert rank[1] == 3


def test_a_rank_has_finite_gradients_where_memories_are_empty():
    s = torch.zeros(2, 3, 3, dtype=torch.float64)
    s[1] = torch.randn(3, 3)
    s.requires_grad_()
    (gradient,) = torch.autograd.grad(size_and_rank(s)[1].sum(), s)
    assert gradient.isfinite().all()


class Total(NamedTuple):
    sum: torch.Tensor


class Seen(NamedTuple):
    before: torch.Tensor
    after: torch.Tensor


@pytest.mark.parametrize("steps", [1, 63, 64, 65, 130])
def test_stretches_join_without_a_seam(steps):
    x = torch.arange(1.0, steps + 1).expand(2, 3, steps)

    def step(x, state):
        return 2 * x, Total(state.sum + x)

    def look(inputs, states):
        sums = field(states, "sum")
        assert sums.shape[2] == inputs[0].shape[2] + 1 <= module.STRETCH + 1
        return Seen(sums[:, :, :-1], sums[:, :, 1:])

    y, last, seen = observe(step, look, (x,), Total(torch.zeros(2, 3)))
    assert torch.equal(y, 2 * x)
    assert torch.equal(seen.after, x.cumsum(2))
    assert torch.equal(seen.before, x.cumsum(2) - x)
    assert torch.equal(last.sum, x.sum(2))


def memories():
    """Each watched reference as a function of its inputs, with random ones of 9 steps."""
    q, k, v = (torch.randn(2, 3, 9, 4, dtype=torch.float64) for _ in range(3))
    share, log = torch.rand(3, 2, 3, 9, dtype=torch.float64), -torch.rand(2, 3, 9, dtype=torch.float64)
    wide = -torch.rand(2, 3, 9, 4, dtype=torch.float64)
    start = first_state(torch.randn(3, 8, 4).double(), torch.randn(3, 4, 8).double(), 2)
    return {
        "mlstm": (mlstm_gates, (q, k, v, 0 * log, log), None, ("c",)),
        "mlstm_sigmoid": (mlstm_sigmoid_gates, (q, k, v, 0 * log, log), None, ("c",)),
        "gated_delta": (gated_delta_gates, (q, k / 2, v, share[0], log), None, ("s",)),
        "rwkv7": (rwkv7_gates, (q, wide, k, v, k / k.norm(dim=-1, keepdim=True), -wide), None, ("s",)),
        "titans": (neural_memory_gates, (q, k, v, *(0.1 * share)), None, ("m",)),
        "titans-mlp": (neural_memory_mlp_gates, (q, k, v, *(0.01 * share)), start, ("w1", "w2")),
    }


@pytest.mark.parametrize("kind", memories())
def test_every_matrix_memory_reports_size_and_rank_after_each_step(kind):
    gates, inputs, state, fields = memories()[kind]
    _, _, seen = gates(*inputs, state)
    for t in range(9):
        _, state, _ = gates(*(x[:, :, t : t + 1] for x in inputs), state)
        layers = [getattr(state, name) for name in fields]
        assert_close(seen.rank[:, :, t], participation(*layers))
        assert_close(seen.size[:, :, t].square(), sum(layer.square().sum((-1, -2)) for layer in layers))
