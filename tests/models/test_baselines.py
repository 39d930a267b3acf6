"""Baselines: what they forecast is what their rule says."""

import numpy as np
import torch
from torch.testing import assert_close

from tests.data.series import daily
from workbench.data.windows import split
from workbench.models.baselines import Ridge, last_value, seasonal_naive


def parts_of(series):
    return split(series, window=24, horizon=6)


def test_rules_copy_what_they_say():
    series = daily(days=30)
    parts = parts_of(series)
    rows = torch.tensor([0, 5])
    batch, origins = parts.test[rows], parts.test.index[rows, 0].tolist()
    scaled = parts.test.table.scaled[:, 0]
    assert parts.test.table.seasons == (24, 168)
    for b, origin in enumerate(origins):
        assert_close(last_value(batch)[b], scaled[origin - 1].expand(6))
        assert_close(seasonal_naive(batch, 2, 0)[b], scaled[origin - 24 : origin - 18])
        assert_close(seasonal_naive(batch, 2, 1)[b], scaled[origin - 168 : origin - 162])


def test_ridge_learns_a_linear_law_exactly():
    """A sum of two waves obeys a linear recurrence: ridge without penalty continues it."""
    t = np.arange(800)
    parts = parts_of(daily(values=np.sin(0.3 * t) + 0.5 * np.sin(0.77 * t)))
    ridge = Ridge(6, 1, past=24).fit(parts.train, parts.valid, penalties=(1e-6,))
    miss = ridge.predict(parts.test) - parts.test[torch.arange(len(parts.test))].target
    assert miss.abs().max() < 1e-3


def test_ridge_keeps_the_penalty_that_validates_best():
    parts = parts_of(daily(days=30, noise=2.0))
    errors = {}
    for penalty in (1.0, 1000.0):
        alone = Ridge(6, 1, past=24).fit(parts.train, parts.valid, penalties=(penalty,))
        errors[penalty] = float(
            (alone.predict(parts.valid) - parts.valid[torch.arange(len(parts.valid))].target).abs().mean()
        )
    both = Ridge(6, 1, past=24).fit(parts.train, parts.valid, penalties=(1.0, 1000.0))
    best = min(errors, key=errors.get)
    assert both.penalty == best
    alone = Ridge(6, 1, past=24).fit(parts.train, parts.valid, penalties=(best,))
    assert torch.equal(both.weights, alone.weights)
    reverse = Ridge(6, 1, past=24).fit(parts.train, parts.valid, penalties=(1000.0, 1.0))
    assert torch.equal(reverse.weights, alone.weights)
