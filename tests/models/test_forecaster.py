"""Forecaster and heads: shapes, pooling, what each input can reach."""

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from workbench.cells.roles import parameter_roles
from workbench.models.forecaster import ForecasterConfig
from workbench.models.heads import Pool, forecast_head
from workbench.models.layouts import LSTMStackConfig, XLSTMStackConfig
from workbench.models.zoo import config_from

CONFIG = ForecasterConfig(inputs=3, known=2, horizon=5, stack=XLSTMStackConfig(width=8, heads=2))


def test_output_is_every_quantile_of_every_step():
    past, known = CONFIG.example()
    assert CONFIG.build()(past, known).shape == (2, 5, 3)


def test_same_seed_same_weights_and_the_callers_random_state_is_kept():
    before = torch.get_rng_state()
    a, b, c = CONFIG.build(1), CONFIG.build(1), CONFIG.build(2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_what_is_known_of_a_step_reaches_that_step_only():
    model, (past, known) = CONFIG.build(), CONFIG.example()
    y, changed = model(past, known), known.clone()
    changed[:, 2] += 1
    difference = (model(past, changed) - y).abs().amax((0, 2))
    assert difference[2] > 0
    assert difference[[0, 1, 3, 4]].max() == 0


def test_forecast_moves_with_the_last_value():
    """Shifting the level of a still network's input by one shifts the forecast by one."""
    model, (past, known) = CONFIG.build(), CONFIG.example()
    for parameter in model.head.read.parameters():
        parameter.data.zero_()
    assert_close(model(past + 1, known), model(past, known) + 1)


@pytest.mark.parametrize("kind", ["last", "mean", "attention"])
def test_pooling_weights_add_up_and_are_what_is_used(kind):
    pool, hidden = Pool(6, kind), torch.randn(2, 7, 6)
    if pool.query is not None:
        pool.query.data.normal_()
    weights = pool.weights(hidden)
    assert_close(weights.sum(-1), torch.ones(2))
    assert_close(pool(hidden), (weights[..., None] * hidden).sum(1))


@pytest.mark.usefixtures("unchecked")
def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="choose one of last, mean, attention"):
        forecast_head("best", width=4, horizon=2)
    with pytest.raises(ValueError, match="this version knows forecaster"):
        config_from({"kind": "oracle"})
    with pytest.raises(ValidationError, match=r"must rise between 0 and 1 and hold 0\.5"):
        ForecasterConfig(inputs=1, horizon=1, quantiles=(0.9, 0.1))


@pytest.mark.parametrize("stack", [LSTMStackConfig(width=8), XLSTMStackConfig(width=8, heads=2)], ids=["lstm", "xlstm"])
def test_configuration_survives_json_and_every_parameter_has_a_role(stack):
    config = ForecasterConfig(inputs=3, known=2, horizon=5, stack=stack)
    assert config_from(config.model_dump(mode="json")) == config
    assert {"input", "core", "head"} <= set(parameter_roles(config.build()).values())
