"""The language model: streams, ragged batches, what its options do, and that a checkpoint keeps all of it."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from workbench.cells.roles import ROLES, parameter_roles
from workbench.cells.states import map_state
from workbench.models.language import LanguageModelConfig
from workbench.models.layouts import (
    GatedDeltaStackConfig,
    GRUStackConfig,
    LSTMStackConfig,
    RWKV7StackConfig,
    TitansStackConfig,
    XLSTMLargeStackConfig,
    XLSTMStackConfig,
)
from workbench.models.zoo import config_from
from workbench.training.checkpoint import load_checkpoint, save_checkpoint
from workbench.training.optimizer import parameter_groups

VOCABULARY, STEPS = 13, 11
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
STACKS = {
    "lstm": LSTMStackConfig(width=16),
    "gru": GRUStackConfig(width=16),
    "xlstm": XLSTMStackConfig(width=16),
    "xlstm_large": XLSTMLargeStackConfig(width=16, heads=2),
    "gated_deltanet": GatedDeltaStackConfig(width=16),
    "rwkv7": RWKV7StackConfig(width=16, head_size=8),
    "titans": TitansStackConfig(width=16, heads=2, refresh=4, persistent=2),
    "titans_mlp": TitansStackConfig(width=16, heads=2, memory="mlp", factor=2, refresh=4),
}
SMALL = LanguageModelConfig(vocabulary=VOCABULARY, stack=LSTMStackConfig(width=8))
every_stack = pytest.mark.parametrize("kind", STACKS)


def make(kind="xlstm", **options):
    """A model in float64 whose gates and recurrences have random weights, and tokens (3, 11)."""
    model = LanguageModelConfig(vocabulary=VOCABULARY, stack=STACKS[kind], **options).build().double()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model, torch.randint(VOCABULARY, (3, STEPS))


def tensors(state):
    """The tensors of a state, in order."""
    seen = []
    map_state(lambda x: seen.append(x) or x, state)
    return seen


@every_stack
@pytest.mark.parametrize("cuts", [(4,), tuple(range(1, STEPS))], ids=["once", "every-step"])
def test_any_split_equals_one_pass(kind, cuts):
    """Logits, state, and gradients through the states in between."""
    model, tokens = make(kind, embedding_norm=True)
    wanted, last = model(tokens)
    state, outputs = None, []
    for start, end in pairwise((0, *cuts, STEPS)):
        logits, state = model(tokens[:, start:end], state)
        outputs.append(logits)
    got = torch.cat(outputs, 1)
    assert_close(got, wanted, **TIGHT)
    assert_close(tensors(state), tensors(last), **TIGHT)
    used = [p for p in model.parameters() if p.requires_grad]
    gradients = [
        torch.autograd.grad(y.square().sum(), used, allow_unused=True, materialize_grads=True) for y in (got, wanted)
    ]
    assert_close(*gradients, rtol=1e-9, atol=1e-9)


@every_stack
def test_a_ragged_batch_equals_its_sequences_one_by_one(kind):
    """Whatever the padding holds: -100 and numbers beyond the vocabulary are what others fill in."""
    model, tokens = make(kind, embedding_norm=True, head_bias=True)
    _, before = model(torch.randint(VOCABULARY, (3, 5)))
    lengths = torch.tensor([STEPS, 4, 1])
    tokens[1, 4:], tokens[2, 1:] = -100, 10**6
    logits, last = model(tokens, before, lengths=lengths)
    for b, length in enumerate(lengths):
        one = slice(b, b + 1)
        alone, state = model(tokens[one, :length], map_state(lambda x, one=one: x[one], before))
        assert_close(logits[one, :length], alone, **TIGHT)
        assert_close(tensors(map_state(lambda x, one=one: x[one], last)), tensors(state), **TIGHT)


@every_stack
def test_later_tokens_cannot_be_seen(kind):
    model, tokens = make(kind)
    logits, _ = model(tokens)
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % VOCABULARY
    other, _ = model(changed)
    assert_close(other[:, :6], logits[:, :6], rtol=0, atol=0)
    assert (other[:, 6:] - logits[:, 6:]).abs().amax(-1).min() > 1e-6


def test_logits_are_held_within_the_cap():
    """cap tanh(logit / cap): the same answers in the same order, never past the cap."""
    plain, tokens = make()
    capped, _ = make(logit_cap=0.5)
    capped.load_state_dict(plain.state_dict())
    wanted, got = plain(tokens)[0], capped(tokens)[0]
    assert wanted.abs().max() > 0.5 > got.abs().max()
    assert_close(got, 0.5 * torch.tanh(wanted / 0.5), **TIGHT)
    assert torch.equal(got.argmax(-1), wanted.argmax(-1))


def test_a_tied_head_reads_with_the_embedding():
    """One tensor, trained once, by the sum of what both uses ask for."""
    tied, tokens = make(tied=True)
    apart, _ = make()
    apart.load_state_dict(tied.state_dict())
    assert tied.head.weight is tied.embedding.weight
    assert len(list(apart.parameters())) == len(list(tied.parameters())) + 1
    gradients = []
    for model in (tied, apart):
        logits, _ = model(tokens)
        gradients.append(torch.autograd.grad(logits.square().sum(), [model.embedding.weight], retain_graph=True)[0])
        if model is apart:
            gradients[-1] = gradients[-1] + torch.autograd.grad(logits.square().sum(), [model.head.weight])[0]
    assert_close(*gradients, **TIGHT)
    trained = [p for group in parameter_groups(tied, weight_decay=0.1) for p in group["params"]]
    assert len({id(p) for p in trained}) == len(trained)


def test_the_norm_and_the_bias_at_the_ends_are_there_when_asked_for():
    plain, normed = (set(make(embedding_norm=on, head_bias=on)[0].state_dict()) for on in (False, True))
    assert normed - plain == {"embedding_norm.weight", "embedding_norm.bias", "head.bias"}


def test_the_norm_behind_the_embedding_takes_scale_and_shift_away():
    model, tokens = make(embedding_norm=True)
    model.embedding_norm.eps = 0.0
    wanted, _ = model(tokens)
    model.embedding.weight.data = 5 * model.embedding.weight + 1
    assert_close(model(tokens)[0], wanted, **TIGHT)


def test_same_seed_same_weights_and_the_callers_random_state_is_kept():
    before = torch.get_rng_state()
    a, b, c = SMALL.build(1), SMALL.build(1), SMALL.build(2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


@every_stack
def test_configuration_survives_json_and_every_parameter_has_a_role(kind):
    config = LanguageModelConfig(vocabulary=VOCABULARY, stack=STACKS[kind], embedding_norm=True)
    assert config_from(config.model_dump(mode="json")) == config
    model = config.build()
    roles = parameter_roles(model)
    assert roles.keys() == dict(model.named_parameters()).keys()
    inner = {"titans": {"persistent"}, "titans_mlp": {"memory"}}.get(kind, {"core"})
    assert {"input", "norm", "head", *inner} <= set(roles.values()) <= set(ROLES)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@every_stack
def test_a_checkpoint_brings_it_back(kind, tied, tmp_path):
    config = LanguageModelConfig(vocabulary=VOCABULARY, stack=STACKS[kind], tied=tied, logit_cap=30.0)
    model = config.build(3)
    again, card = load_checkpoint(save_checkpoint(tmp_path / "model", model, extra={"step": 7}), expect=config)
    tokens = torch.randint(VOCABULARY, (2, STEPS))
    assert torch.equal(again(tokens)[0], model.eval()(tokens)[0])
    assert card["extra"] == {"step": 7}
    assert (again.head.weight is again.embedding.weight) == tied


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path):
    folder = save_checkpoint(tmp_path / "model", SMALL.build())
    with pytest.raises(ValueError, match="another configuration: vocabulary is 13 there and 14 here"):
        load_checkpoint(folder, expect=SMALL.model_copy(update={"vocabulary": 14}))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("tokens", "error", "says"),
    [
        (
            [[0, 13]],
            ValueError,
            r"tokens run from 0 to 13, and must stay between 0 and 12 with vocabulary=13; encode wi",
        ),
        ([[0, 13]], ValueError, r"with this model's own tokens, or build the model with vocabulary=14\.$"),
        ([[-1, 12]], ValueError, r"tokens run from -1 to 12, and .* with this model's own tokens\.$"),
        (
            [[0.0, 1.0]],
            TypeError,
            r"tokens must be int64 or int32, and are torch.float32; convert them with \.long\(\)",
        ),
    ],
    ids=["above", "above-advice", "below", "float"],
)
def test_tokens_that_the_vocabulary_lacks_are_refused(tokens, error, says):
    with pytest.raises(error, match=says):
        SMALL.build()(torch.tensor(tokens))


def test_int32_tokens_are_taken():
    model, tokens = make()
    assert torch.equal(model(tokens.int())[0], model(tokens)[0])
