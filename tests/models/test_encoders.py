"""Encoders by name: what comes out, what there is to plot, ragged batches, and who is refused."""

import sys

import pytest
import torch
from torch.testing import assert_close

from workbench.cells.roles import ROLES, parameter_roles
from workbench.cells.states import map_state
from workbench.models import encoders
from workbench.models.encoders import EncoderConfig, create, list_available, register, state_norms
from workbench.models.heads import Pool
from workbench.models.nxai_weights import from_nxai
from workbench.models.zoo import config_from
from workbench.trace.record import record
from workbench.training.checkpoint import load_checkpoint, save_checkpoint

NAMES = ["lstm", "gru", "slstm", "mlstm", "xlstm", "xlstm_nxai", "gated_deltanet", "rwkv7", "titans"]
OURS = [name for name in NAMES if name != "xlstm_nxai"]
POOLS = ["last", "mean", "attention"]
FEATURES, WIDTH, STEPS = 5, 16, 11
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
every_name = pytest.mark.parametrize("name", NAMES)
every_pool = pytest.mark.parametrize("pool", POOLS)


def make(name, **options):
    """An encoder in float64 with random weights, and an input (3, 11, 5)."""
    if name == "xlstm_nxai":
        pytest.importorskip("xlstm", reason="needs xlstm: pip install -e '.[nxai]'")
    encoder = create(name, **{"n_features": FEATURES, "hidden_size": WIDTH, **options}).double()
    for parameter in encoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return encoder, torch.randn(3, STEPS, FEATURES, dtype=torch.float64)


def test_all_names_are_listed():
    assert list_available() == NAMES


@every_name
@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_vector_for_each_sequence_and_what_there_is_to_plot(name, num_layers):
    encoder, x = make(name, num_layers=num_layers, pool="attention")
    encoded, info = encoder(x)
    assert encoded.shape == (3, WIDTH)
    assert encoded.isfinite().all()
    assert info["encoder_type"] == name
    assert info["pooling_weights"].shape == (3, STEPS)
    assert_close(info["pooling_weights"].sum(1), torch.ones(3, dtype=torch.float64))
    if name == "xlstm_nxai":
        assert "state_norm" not in info
    else:
        assert info["state_norm"].shape == (3, num_layers)
        assert info["state_norm"].min() > 0
    assert not any(part.requires_grad for part in info.values() if isinstance(part, torch.Tensor))


@every_name
def test_every_step_reaches_the_vector(name):
    encoder, x = make(name, pool="mean")
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(x).encoded.square().sum(), x)
    assert gradient.abs().amax(-1).min() > 1e-8


@every_name
@every_pool
def test_a_ragged_batch_equals_its_sequences_one_by_one(name, pool):
    """Whatever the padding holds; a sequence without steps becomes zeros."""
    encoder, x = make(name, pool=pool)
    lengths = torch.tensor([STEPS, 4, 0])
    x[1, 4:], x[2] = torch.nan, torch.nan
    encoded, info = encoder(x, lengths=lengths)
    for b, length in enumerate([STEPS, 4]):
        alone = encoder(x[b : b + 1, :length])
        assert_close(encoded[b : b + 1], alone.encoded, **TIGHT)
        assert_close(info["pooling_weights"][b : b + 1, :length], alone.info["pooling_weights"], **TIGHT)
        assert info["pooling_weights"][b, length:].abs().sum() == 0
        if name in OURS:
            assert_close(info["state_norm"][b : b + 1], alone.info["state_norm"], **TIGHT)
    assert encoded[2].abs().sum() + info["pooling_weights"][2].abs().sum() == 0
    used = [p for p in encoder.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(encoded.square().sum(), used, allow_unused=True, materialize_grads=True)
    assert all(g.isfinite().all() for g in gradients)


@every_pool
def test_pooling_weights_are_what_is_used(pool):
    layer, hidden = Pool(6, pool), torch.randn(3, 7, 6)
    if layer.query is not None:
        layer.query.data.normal_()
    for lengths in (None, torch.tensor([7, 3, 1])):
        weights = layer.weights(hidden, lengths)
        assert_close(layer(hidden, lengths), (weights[..., None] * hidden).sum(1))
    assert_close(layer(hidden, torch.tensor([7, 7, 7])), layer(hidden), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["mlstm", "gated_deltanet", "rwkv7", "titans"])
def test_state_norm_is_that_of_the_trace(name):
    """Of all heads of a layer together, after the last step."""
    encoder, x = make(name)
    with record(encoder) as trace:
        _, info = encoder(x)
    for layer in range(2):
        heads = torch.from_numpy(trace[f"body.blocks.{layer}.cell.state_norm"].values[:, :, -1].copy()).double()
        assert_close(info["state_norm"][:, layer], heads.square().sum(1).sqrt(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in OURS), ("titans", {"memory": "mlp"})])
def test_state_norm_is_of_the_memory_alone(name, options):
    """Tails of convolutions, scales and normalisers are no part of it."""
    encoder, x = make(name, **options)
    _, state = encoder.body(encoder.project(x))
    memories = {"c", "h", "s", "m", "w1", "w2"} - ({"h"} if name not in ("gru",) else set())
    memories -= {"m"} if name != "titans" else {"s"}
    for layer, block in enumerate(state.blocks):
        kernel = block
        while not any(isinstance(getattr(kernel, field, None), torch.Tensor) for field in memories):
            kernel = kernel.cell if hasattr(kernel, "cell") else kernel.memory
        total = sum(getattr(kernel, field).square().flatten(1).sum(1) for field in memories & set(kernel._fields))
        assert_close(state_norms(state)[:, layer], total.sqrt(), **TIGHT)
        assert state_norms(map_state(lambda s: 2 * s, state))[0, layer] == 2 * state_norms(state)[0, layer]


@every_name
def test_a_checkpoint_brings_it_back(name, tmp_path):
    encoder = make(name, num_layers=1)[0].float()
    again, _ = load_checkpoint(save_checkpoint(tmp_path / "model", encoder), expect=encoder.config)
    x = torch.randn(2, STEPS, FEATURES)
    assert torch.equal(again(x).encoded, encoder.eval()(x).encoded)


@every_name
def test_every_parameter_has_a_role(name):
    encoder, _ = make(name, pool="attention")
    roles = parameter_roles(encoder)
    assert roles.keys() == dict(encoder.named_parameters()).keys()
    assert {"input", "head"} < set(roles.values()) <= set(ROLES)


def test_roles_of_the_package_are_those_of_ours():
    """Weight for weight, so that an optimiser treats both alike."""
    theirs, ours = ({}, {})
    for name, roles in (("xlstm_nxai", theirs), ("xlstm", ours)):
        encoder, _ = make(name, hidden_size=32, num_layers=3)
        for parameter, role in parameter_roles(encoder).items():
            roles[role] = roles.get(role, 0) + encoder.get_parameter(parameter).numel()
    assert theirs == ours


@pytest.mark.parametrize("name", ["slstm", "mlstm", "xlstm", "xlstm_nxai"])
def test_the_name_and_slstm_at_decide_which_blocks_are_slstm(name):
    """The package says "layer" after the kind."""
    options = {"slstm_at": (1,)} if name.startswith("xlstm") else {}
    encoder, _ = make(name, num_layers=3, **options)
    blocks = encoder.body.stack.blocks if name == "xlstm_nxai" else encoder.body.blocks
    kinds = [type(block.xlstm if name == "xlstm_nxai" else block.cell).__name__[:5].lower() for block in blocks]
    assert kinds == {"slstm": 3 * ["slstm"], "mlstm": 3 * ["mlstm"]}.get(name, ["mlstm", "slstm", "mlstm"])


@pytest.mark.parametrize("options", [{"slstm_at": (1,), "heads": 2}, {"conv": 3}, {"shape": {"inner": 48}}], ids=str)
def test_options_reach_the_network_and_survive_json(options):
    encoder = create("xlstm", n_features=2, hidden_size=WIDTH, num_layers=2, dropout=0.1, pool="mean", **options)
    plain = create("xlstm", n_features=2, hidden_size=WIDTH, num_layers=2)
    shapes = [{name: x.shape for name, x in e.state_dict().items()} for e in (encoder, plain)]
    assert shapes[0] != shapes[1]
    assert config_from(encoder.config.model_dump(mode="json")) == encoder.config
    assert encoder.body.blocks[0].dropout.p == 0.1


def test_same_seed_same_weights_and_the_callers_random_state_is_kept():
    before = torch.get_rng_state()
    a, b, c = (create("gru", n_features=2, hidden_size=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


@pytest.mark.parametrize("slstm_at", [(), (0,), (0, 1)], ids=str)
def test_the_package_computes_what_ours_does(slstm_at):
    """With its weights, where its widths need no rounding to 64. It adds 1e-6 in the mLSTM, and we add nothing."""
    theirs, x = make("xlstm_nxai", hidden_size=32, slstm_at=slstm_at)
    ours, _ = make("xlstm", hidden_size=32, slstm_at=slstm_at)
    ours.body.load_state_dict(from_nxai(theirs.body.stack.state_dict()))
    ours.project.load_state_dict(theirs.project.state_dict())
    assert_close(ours(x).encoded, theirs(x).encoded, **(TIGHT if slstm_at == (0, 1) else {"rtol": 1e-5, "atol": 1e-5}))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "xlstm"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "xlstm", None)
    with pytest.raises(
        RuntimeError, match=r"needs the package xlstm .*pip install .*encoder xlstm is our own form of it"
    ):
        create("xlstm_nxai", n_features=2, hidden_size=8)
    assert create("xlstm", n_features=2, hidden_size=8)(torch.randn(1, 3, 2)).encoded.shape == (1, 8)


@pytest.fixture
def registry():
    """What a test registers is forgotten after it."""
    before = dict(encoders._ENCODERS)
    yield
    encoders._ENCODERS.clear()
    encoders._ENCODERS.update(before)


@pytest.mark.usefixtures("registry")
def test_one_function_adds_a_name():
    @register("wide_gru")
    def wide_gru(config):
        return encoders.gru(config.model_copy(update={"hidden_size": 2 * config.hidden_size}))

    assert list_available() == [*NAMES, "wide_gru"]
    assert create("wide_gru", n_features=2, hidden_size=4)(torch.randn(1, 3, 2)).encoded.shape == (1, 8)
    with pytest.raises(ValueError, match="encoder 'wide_gru' is there already"):
        register("wide_gru")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("transformer", {}, r"encoder 'transformer' is unknown; choose one of lstm, gru, slstm, mlstm, xlstm, xlstm_n"),
        ("rwkv7", {"heads": 4}, r"encoder 'rwkv7' has no option heads; it has recompute, head_size, ranks"),
        ("slstm", {"slstm_at": (0,)}, r"encoder 'slstm' has no option slstm_at; it has recompute, heads"),
        ("xlstm", {"width": 8}, r"encoder 'xlstm' has no option width"),
        (
            "xlstm_nxai",
            {"backend": "cuda"},
            r"'xlstm_nxai' has no option backend; it has heads, slstm_at, context_length",
        ),
        ("xlstm", {"slstm_at": (2,)}, r"slstm_at holds \[2\], and must name blocks from 0 to 1"),
        ("xlstm_nxai", {"slstm_at": (2,)}, r"slstm_at holds \[2\], and must name blocks from 0 to 1"),
        ("xlstm_nxai", {"heads": 3}, r"width=16 is not a multiple of heads=3"),
        ("lstm", {"hidden_size": 0}, "greater than or equal to 1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(name, options, says):
    with pytest.raises(ValueError, match=says):
        create(name, **{"n_features": FEATURES, "hidden_size": WIDTH, **options})


@pytest.mark.usefixtures("unchecked")
def test_inputs_that_do_not_fit_are_refused():
    encoder, x = make("gru")
    with pytest.raises(ValueError, match=r"x is \(3, 11, 4\), and must be \(B, T, F\) with F = n_features = 5"):
        encoder(x[..., 1:])
    with pytest.raises(ValueError, match=r"x is \(11, 5\), and must be \(B, T, F\)"):
        encoder(x[0])
    with pytest.raises(ValueError, match=r"encoder: lengths run from 1 to 12, and must stay between 0 and T = 11"):
        encoder(x, lengths=torch.tensor([1, 12, 3]))
    theirs, x = make("xlstm_nxai", context_length=8)
    with pytest.raises(ValueError, match=r"x has T = 11 steps, .* made for context_length=8; make it with context_len"):
        theirs(x)


def test_configurations_of_encoders_know_their_names():
    with pytest.raises(ValueError, match="encoder 'oracle' is unknown; choose one of lstm"):
        EncoderConfig(name="oracle", n_features=1)
