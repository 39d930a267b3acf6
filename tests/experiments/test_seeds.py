"""Differences over seeds and blocks: both kinds of luck widen the interval, and equals are rarely told apart."""

import pytest
import torch

from workbench.experiments.compare import paired, student_95
from workbench.experiments.seeds import over_seeds


def drawn(generator, seeds, blocks, *, by_seed=0.0, by_block=0.0, noise=1.0, rows=4):
    """Errors (S, N, 1) that vary with the seed, with the block, and with neither."""
    shape = (seeds, blocks, rows)
    errors = noise * torch.randn(shape, generator=generator, dtype=torch.float64)
    errors += by_seed * torch.randn(seeds, 1, 1, generator=generator, dtype=torch.float64)
    errors += by_block * torch.randn(1, blocks, 1, generator=generator, dtype=torch.float64)
    return errors.flatten(1)[..., None]


BLOCKS = torch.arange(20).repeat_interleave(4)


@pytest.mark.parametrize(
    "spread", [{}, {"by_seed": 1.0}, {"by_block": 1.0}, {"by_seed": 0.3, "by_block": 0.5}], ids=str
)
def test_equal_models_are_rarely_told_apart(spread):
    """At most 5 in 100 is promised; whether seeds, blocks or both are what varies."""
    g = torch.Generator().manual_seed(0)
    zeros = torch.zeros(4, 80, 1, dtype=torch.float64)
    verdicts = [over_seeds(drawn(g, 4, 20, **spread), zeros, BLOCKS).verdict for _ in range(300)]
    wrong = 1 - verdicts.count("not distinguishable") / 300
    assert wrong < 0.09  # 0.05, and three standard errors


def test_windows_that_hang_together_and_lucky_seeds_would_be_told_apart_without_it():
    """What `paired` says of the same differences, when it does not see the seeds."""
    g = torch.Generator().manual_seed(0)
    zeros = torch.zeros(80, 1, dtype=torch.float64)
    verdicts = [paired(drawn(g, 4, 20, by_seed=1.0).mean(0), zeros, BLOCKS).verdict for _ in range(100)]
    assert verdicts.count("not distinguishable") < 60


def test_a_difference_that_every_seed_and_block_shows_is_found():
    g = torch.Generator().manual_seed(1)
    first, second = drawn(g, 3, 20), drawn(g, 3, 20)
    found = over_seeds(first, second + 3, BLOCKS)
    assert (found.verdict, found.seeds, found.agree, found.blocks) == ("better", 3, 3, 20)
    assert found.low < -3 < found.high
    back = over_seeds(second + 3, first, BLOCKS)
    assert (back.verdict, back.agree) == ("worse", 3)
    assert back.difference == pytest.approx(-found.difference)


def test_without_noise_over_blocks_it_is_students_interval_over_seeds():
    by_seed = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    found = over_seeds(by_seed[:, None, None].expand(3, 80, 1), torch.zeros(3, 80, 1, dtype=torch.float64), BLOCKS)
    half = student_95(2) * float(by_seed.std()) / 3**0.5
    assert found.difference == pytest.approx(7 / 3)
    assert (found.low, found.high) == (pytest.approx(7 / 3 - half), pytest.approx(7 / 3 + half))


def test_blocks_of_unequal_size_count_alike():
    errors = torch.tensor([[[1.0], [1.0], [1.0], [4.0]]]).expand(2, 4, 1)
    found = over_seeds(errors, torch.zeros(2, 4, 1), torch.tensor([0, 0, 0, 1]))
    assert found.difference == pytest.approx(2.5)


def test_errors_that_are_the_same_differ_by_nothing():
    errors = torch.rand(2, 8, 3)
    found = over_seeds(errors, errors, torch.arange(8))
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.verdict == "not distinguishable"


@pytest.mark.parametrize(("seeds", "blocks"), [(1, 8), (3, 1)])
def test_one_of_a_kind_says_nothing(seeds, blocks):
    errors = torch.rand(seeds, 8, 2)
    with pytest.raises(ValueError, match=f"{seeds} seeds and {blocks} blocks say nothing of what varies"):
        over_seeds(errors, errors, torch.arange(8) % blocks)
