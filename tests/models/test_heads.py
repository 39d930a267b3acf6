"""Heads: how large they are, what attention looks at, and that padding never counts."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from workbench.cells.roles import parameter_roles
from workbench.models.heads import AttentionPool, HeadKind, Pool, Readout, forecast_head
from workbench.trace.record import record

WIDTH, STEPS, HORIZON, CHANNELS = 8, 6, 3, 2
KINDS = HeadKind.__args__
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def make(kind, **options):
    """A head in float64 with random weights."""
    tokens = STEPS if kind == "flatten" else None
    head = forecast_head(kind, width=WIDTH, horizon=HORIZON, channels=CHANNELS, tokens=tokens, **options).double()
    return randomised(head)


def randomised(module):
    for parameter in module.parameters():
        parameter.data.normal_()
    return module


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("kind", "options", "parameters"),
    [
        ("last", {}, 172_704),
        ("mean", {}, 172_704),
        ("mean_mlp", {}, 476_320),
        ("attention", {}, 739_744),
        ("flatten", {"tokens": 3 * 512, "hidden": 512}, 201_671_840),
        ("flatten", {"tokens": 512}, 88_081_056),
    ],
    ids=["last", "mean", "mean_mlp", "attention", "flatten-three-streams", "flatten-direct"],
)
def test_heads_have_exactly_these_sizes(kind, options, parameters):
    """At width 256, for 96 steps of 7 channels."""
    with torch.device("meta"):
        assert count(forecast_head(kind, width=256, horizon=96, channels=7, **options)) == parameters


def test_a_norm_before_the_mlp_adds_two_widths():
    with torch.device("meta"):
        head = forecast_head("attention", width=256, horizon=96, channels=7)
        normed = Readout(head.pool, nn.Sequential(nn.LayerNorm(256), head.decode), horizon=96)
    assert count(normed) == 740_256
    assert count(head.pool) == 4 * 256**2 + 5 * 256


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantiles", [1, 3])
def test_every_step_target_and_quantile_is_forecast(kind, quantiles):
    y = make(kind, quantiles=quantiles)(torch.randn(5, STEPS, WIDTH, dtype=torch.float64))
    assert y.shape == (5, HORIZON, CHANNELS, quantiles)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_never_counts(kind):
    """Whatever it holds, in values and in gradients; a sequence without steps gets what zeros get."""
    head, hidden = make(kind), torch.randn(3, STEPS, WIDTH, dtype=torch.float64)
    hidden[1, 2:], hidden[2] = torch.nan, torch.nan
    y = head(hidden, torch.tensor([STEPS, 2, 0]))
    assert_close(y[:1], head(hidden[:1]), **TIGHT)
    if kind == "flatten":
        alone = torch.cat([hidden[1:2, :2], torch.zeros(1, STEPS - 2, WIDTH, dtype=torch.float64)], 1)
    else:
        alone = hidden[1:2, :2]
    assert_close(y[1:2], head(alone), **TIGHT)
    empty = head.decode(torch.zeros(1, head.pool(hidden[:1]).shape[1], dtype=torch.float64))
    assert_close(y[2].flatten(), empty.flatten(), **TIGHT)
    gradients = torch.autograd.grad(y.square().sum(), list(head.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("kind", ["last", "mean", "attention", "mean_mlp"])
def test_a_head_that_pools_takes_any_length(kind):
    head = make(kind)
    for steps in (1, 4, 50):
        assert head(torch.randn(2, steps, WIDTH, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("lengths", [None, torch.tensor([STEPS, 4, 1, 0])], ids=["whole", "ragged"])
def test_weights_add_up_to_one_and_are_nothing_behind_the_end(lengths):
    pool = randomised(AttentionPool(WIDTH, heads=2)).double()
    weights = pool.weights(torch.randn(4, STEPS, WIDTH, dtype=torch.float64), lengths)
    assert weights.shape == (4, 2, STEPS)
    ends = torch.full((4,), STEPS) if lengths is None else lengths
    assert_close(weights.sum(-1), (ends > 0).double()[:, None].expand(-1, 2), **TIGHT)
    for row, end in zip(weights, ends, strict=True):
        assert (row[:, end:] == 0).all()
        assert (row[:, :end] > 0).all()


def test_one_step_gets_all_the_weight():
    pool = randomised(AttentionPool(WIDTH, heads=2))
    assert torch.equal(pool.weights(torch.randn(3, 1, WIDTH)), torch.ones(3, 2, 1))


def test_attention_is_that_of_torch():
    ours = randomised(AttentionPool(WIDTH, heads=2)).double()
    theirs = nn.MultiheadAttention(WIDTH, 2, batch_first=True, dtype=torch.float64)
    linears = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.data = torch.cat([linear.weight.data for linear in linears])
    theirs.in_proj_bias.data = torch.cat([linear.bias.data for linear in linears])
    theirs.out_proj.load_state_dict(ours.mix.state_dict())
    hidden, lengths = torch.randn(3, STEPS, WIDTH, dtype=torch.float64), torch.tensor([STEPS, 4, 1])
    padding = torch.arange(STEPS) >= lengths[:, None]
    question = ours.question.expand(3, 1, -1)
    y, weights = theirs(question, hidden, hidden, key_padding_mask=padding, average_attn_weights=False)
    assert_close(ours(hidden, lengths), y[:, 0], **TIGHT)
    assert_close(ours.weights(hidden, lengths), weights[:, :, 0], **TIGHT)


def test_a_fresh_pool_weighs_all_alike_and_can_learn():
    pool, hidden = AttentionPool(WIDTH, heads=2), torch.randn(3, STEPS, WIDTH)
    assert_close(pool.weights(hidden), torch.full((3, 2, STEPS), 1 / STEPS))
    (gradient,) = torch.autograd.grad(pool(hidden).square().sum(), pool.question)
    assert gradient.abs().min() > 0


def test_attention_finds_the_step_that_its_question_asks_for():
    """Keys that say where they are, and a question for one of them."""
    pool = AttentionPool(WIDTH, heads=1).double()
    pool.query.weight.data = pool.key.weight.data = torch.eye(WIDTH, dtype=torch.float64)
    pool.question.data[3] = 100.0
    weights = pool.weights(torch.eye(WIDTH, dtype=torch.float64)[None])
    assert weights[0, 0].argmax() == 3
    assert weights[0, 0, 3] > 0.999


@pytest.mark.parametrize("lengths", [None, torch.tensor([STEPS, 3])], ids=["whole", "ragged"])
def test_weights_are_in_the_trace(lengths):
    head, hidden = make("attention", heads=2), torch.randn(2, STEPS, WIDTH, dtype=torch.float64)
    with record(head) as trace:
        y = head(hidden, lengths)
    assert_close(head(hidden, lengths), y, rtol=0, atol=0)
    kept = trace["pool.pooling_weights"]
    assert kept.dims == ("batch", "head", "time")
    there = torch.from_numpy(kept.values).nan_to_num(0)
    assert torch.equal(there, head.pool.weights(hidden, lengths))
    assert trace.error == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_a_head_says_so(kind):
    assert set(parameter_roles(make(kind)).values()) == {"head"}


def test_mean_and_attention_differ_in_the_attention_alone():
    attention, mean = make("attention"), make("mean_mlp")
    assert attention.decode.state_dict().keys() == mean.decode.state_dict().keys()
    assert count(attention) - count(mean) == 4 * WIDTH**2 + 5 * WIDTH
    assert isinstance(mean.pool, Pool)
    assert mean.pool.kind == "mean"


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("flat", {}, "forecast head 'flat' is unknown; choose one of last, mean, attention, mean_mlp, flatten"),
        ("flatten", {}, "'flatten' got tokens=None; 'flatten' needs it"),
        ("mean", {"tokens": 4}, "'mean' got tokens=4; 'flatten' needs it, and no other head has it"),
        ("last", {"hidden": 4}, "'last' got hidden=4, and has no MLP; 'mean_mlp' has one"),
        ("attention", {"heads": 3}, "width=8 is not a multiple of heads=3"),
        ("attention", {"heads": 0}, "width=8 is not a multiple of heads=0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(kind, options, says):
    with pytest.raises(ValueError, match=says):
        forecast_head(kind, width=WIDTH, horizon=HORIZON, **options)


def test_a_flat_head_says_for_which_length_it_was_made():
    with pytest.raises(ValueError, match="tokens=6 got 7 steps; it has weights for each step"):
        make("flatten")(torch.randn(2, 7, WIDTH, dtype=torch.float64))
