"""Lists of pairs, and waves with planted stretches: what the generators promise."""

import pytest
import torch

from workbench.data.recall import Lists
from workbench.data.waves import CYCLE, planted, waves


def test_every_question_has_its_answer_in_the_list():
    lists = Lists(20, 7, keys=16, values=4, seed=0)
    batch = lists[torch.arange(20)]
    for tokens, answers, asked in zip(*batch, strict=True):
        listed = dict(zip(tokens[:14:2].tolist(), tokens[1:14:2].tolist(), strict=True))
        assert len(listed) == 7, "no key twice"
        assert [listed[key] - 16 for key in tokens[14:].tolist()] == answers.tolist()
        assert tokens[2 * asked].tolist() == tokens[14:].tolist()
        assert sorted(asked.tolist()) == list(range(7))
    assert lists.values.tolist() == batch.tokens[:, 1:14:2].tolist()


def test_words_are_what_a_person_reads():
    lists = Lists(2, 3, keys=4, values=9, seed=1)
    words = lists.words(1)
    assert len(words) == 9
    assert [word[0] for word in words[:6:2]] == ["k", "k", "k"]
    assert sorted(words[6:]) == sorted(f"{word}?" for word in words[:6:2])


def test_lists_are_the_seeds():
    first, again, other = (Lists(4, 3, seed=seed).data.tokens for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("pairs", "keys"), [(0, 8), (9, 8)])
def test_lists_that_cannot_be_are_refused(pairs, keys):
    with pytest.raises(ValueError, match=f"pairs={pairs} with keys={keys}"):
        Lists(2, pairs, keys=keys)


def test_waves_repeat():
    x = waves(50, 60, noise=0.0, seed=0)
    repeats = [any(torch.equal(row[p:], row[:-p]) for p in range(6, 11)) for row in x]
    assert all(repeats)
    assert float(waves(200, 100, noise=0.0, seed=0).std()) == pytest.approx(1, abs=0.05)


def test_planted_stretches_have_the_same_values_in_another_order():
    series = planted(6, spans=4, cycles=3, calm=5, noise=0.0, seed=0)
    cycles, odd = series.values.reshape(6, -1, CYCLE), series.odd.reshape(6, -1, CYCLE)
    assert (odd.all(-1) == odd.any(-1)).all(), "whole cycles are planted"
    assert odd.any(-1).sum(1).tolist() == [12] * 6
    assert not odd[:, :5].any()
    assert torch.equal(cycles.sort(-1).values, cycles[:, :1].sort(-1).values.expand_as(cycles))
    assert torch.equal((cycles == cycles[:, :1]).all(-1), ~odd.any(-1))
