"""Losses and scores against what they are by hand."""

import pytest
import torch

from workbench.training.metrics import coverage, pinball, scores


def test_pinball_by_hand():
    forecast, target = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
    assert float(pinball(forecast, target, (0.1, 0.9))) == pytest.approx((0.1 * 2 + 0.9 * 1) / 2)
    assert float(pinball(forecast, -target, (0.1, 0.9))) == pytest.approx((0.9 * 4 + 0.1 * 5) / 2)


def test_pinball_is_smallest_at_the_quantile():
    target = torch.arange(101.0)
    losses = [float(pinball(torch.full((101, 1), float(guess)), target, (0.8,))) for guess in range(101)]
    assert losses.index(min(losses)) == 80


def test_scores_and_coverage():
    forecast, target = torch.zeros(2, 2), torch.tensor([[3.0, -1.0], [1.0, 1.0]])
    assert scores(forecast, target) == {"mae": 1.5, "rmse": pytest.approx(3**0.5)}
    assert coverage(target - 1, target + torch.tensor([1.0, -0.5]), target) == 0.5
