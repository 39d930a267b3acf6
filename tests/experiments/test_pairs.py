"""Pairs in a matrix memory: measured errors are those of the theory, and the rules differ as they should."""

import numpy as np
import pytest
import torch

from workbench.experiments import pairs

SIZE, SETS = 16, 400
LOADS = [2, 8, 16, 40]
DELTA_RULES = ("delta rule", "Titans", "RWKV-7")


def one_set(count, size=SIZE, seed=0):
    g = torch.Generator().manual_seed(seed)
    return pairs.unit_vectors(3, count, size, g), pairs.unit_vectors(3, count, size, g)


@pytest.mark.parametrize("memory", pairs.MEMORIES)
def test_one_pair_is_read_back_exactly(memory):
    k, v = one_set(1)
    assert pairs.squared_errors(memory, k, v).max() < 1e-24


@pytest.mark.parametrize("memory", pairs.MEMORIES)
def test_orthogonal_keys_do_not_disturb_each_other(memory):
    _, v = one_set(SIZE)
    k = torch.eye(SIZE, dtype=torch.float64).expand(3, 1, -1, -1)
    assert pairs.squared_errors(memory, k, v).max() < 1e-24


@pytest.mark.parametrize("memory", pairs.MEMORIES)
def test_reading_changes_nothing(memory):
    k, v = one_set(5)
    state = pairs.write(memory, k, v)
    once, twice = (pairs.read(memory, state, torch.cat([k] * n, 2), SIZE)[:, :, -5:] for n in (1, 2))
    torch.testing.assert_close(once, twice, rtol=0, atol=1e-13)


@pytest.mark.parametrize("memory", DELTA_RULES[1:])
def test_titans_and_rwkv7_with_open_gates_are_the_delta_rule(memory):
    k, v = one_set(40)
    delta, other = (pairs.matrix(name, pairs.write(name, k, v)) for name in ("delta rule", memory))
    torch.testing.assert_close(other, delta, rtol=0, atol=1e-13)


def test_the_outer_product_is_the_sum_of_the_pairs():
    k, v = one_set(20)
    memory = pairs.matrix("outer product", pairs.write("outer product", k, v))
    torch.testing.assert_close(memory, k.mT @ v, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("memory", "theory"),
    [
        ("outer product", lambda n: pairs.outer_theory(n, pairs.overlap(SIZE))),
        ("delta rule", lambda n: pairs.delta_theory(n, SIZE)),
    ],
    ids=["outer product", "delta rule"],
)
def test_errors_are_those_of_the_theory(memory, theory):
    """Five standard errors of each mean over sets; at a later load, of each age too."""
    measured = pairs.over_loads(memory, LOADS, size=SIZE, sets=SETS)
    expected = np.array([theory(n).mean() for n in LOADS])
    assert np.abs(pairs.deviations(measured, expected)).max() < 5
    ages = pairs.over_ages(memory, size=SIZE, pairs=24, sets=SETS)
    assert np.abs(pairs.deviations(ages, theory(24))).max() < 5
    wrong = pairs.deviations(measured, 1.2 * expected)
    assert np.abs(wrong[1:]).min() > 5, "from 8 pairs on, a theory that is off by a fifth would fail"


@pytest.mark.parametrize("keep", [0.97, 0.8])
def test_errors_with_forgetting_are_those_of_the_theory(keep):
    ages = pairs.over_ages("outer product", size=SIZE, pairs=24, sets=4 * SETS, keep=keep)
    expected = pairs.outer_theory(24, pairs.overlap(SIZE), keep=keep)
    assert np.abs(pairs.deviations(ages, expected)).max() < 5


@pytest.mark.parametrize("likeness", [0.0, 0.3, 0.9])
def test_alike_keys_have_the_likeness_and_the_error_of_the_theory(likeness):
    keys = pairs.alike_keys(500, 6, SIZE, likeness, torch.Generator().manual_seed(0))
    cosine = (keys @ keys.mT)[:, 0]
    off = ~torch.eye(6, dtype=torch.bool)
    assert torch.allclose(cosine.diagonal(dim1=1, dim2=2), torch.ones(500, 6, dtype=torch.float64))
    assert float(cosine[:, off].mean()) == pytest.approx(likeness, abs=0.02)
    assert float(cosine[:, off].square().mean()) == pytest.approx(pairs.overlap(SIZE, likeness), rel=0.06)
    measured = pairs.over_likeness("outer product", [likeness], size=SIZE, pairs=6, sets=SETS)
    expected = pairs.outer_theory(6, pairs.overlap(SIZE, likeness)).mean()
    assert np.abs(pairs.deviations(measured, np.array([expected]))).max() < 5


def test_written_once_the_delta_rule_is_not_exact_below_its_size_and_written_often_it_is():
    once, often = (pairs.over_loads("delta rule", [8], size=SIZE, sets=64, passes=n) for n in (1, 60))
    assert once.mean() > 0.15
    assert often.mean() < 1e-3


def test_no_memory_is_better_than_the_best_matrix():
    loads = [20, 40]
    least = np.array([pairs.least_error(n, SIZE) for n in loads])
    assert pairs.least_error(SIZE, SIZE) == 0 < least[0] < least[1]
    for memory in ("outer product", "delta rule"):
        assert (pairs.over_loads(memory, loads, size=SIZE, sets=64).mean(0) > least).all()
    g = torch.Generator().manual_seed(1)
    k, v = (pairs.unit_vectors(400, 40, SIZE, g)[:, 0] for _ in range(2))
    fitted = k @ torch.linalg.lstsq(k, v).solution
    error = (fitted - v).square().sum(-1).mean(1).numpy()[:, None]
    assert np.abs(pairs.deviations(error, least[1:])).max() < 5


@pytest.mark.parametrize(
    ("memory", "keep", "old", "new"),
    [
        ("outer product", 1.0, 1, 1),
        ("outer product", 0.9, 0.9**9, 1),
        *((memory, 1.0, 0, 1) for memory in DELTA_RULES),
    ],
)
def test_a_rewritten_key_holds_both_values_or_the_new_one(memory, keep, old, new):
    shares = pairs.rewrite(memory, size=64, between=8, sets=200, keep=keep)
    np.testing.assert_allclose([share.mean() for share in shares], [old, new], atol=0.03)


def test_the_mlstm_answers_a_rewritten_key_with_the_mean_of_both_values():
    old, new = pairs.rewrite("mLSTM", size=256, between=1, sets=200)
    np.testing.assert_allclose([old.mean(), new.mean()], 0.5, atol=0.02)


def test_the_rank_of_a_sum_of_pairs_is_that_of_the_theory_and_the_delta_rule_has_more():
    loads = [1, 4, 16, 64]
    outer, delta = (pairs.ranks(name, loads, size=32, sets=100).mean(0) for name in ("outer product", "delta rule"))
    np.testing.assert_allclose(outer, [pairs.rank_theory(n, 32) for n in loads], rtol=0.02)
    assert outer[0] == pytest.approx(1)
    assert (delta[1:] > outer[1:]).all()


def test_the_same_seed_writes_the_same_pairs():
    first, again, other = (pairs.over_loads("mLSTM", [4], size=8, sets=3, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
