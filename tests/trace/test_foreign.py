"""Layers of xlstm and transformers are traced as they come: unchanged, exactly, and under the names of what they do.

In float64 nothing is added to the mLSTM's denominator (see tests/models), but where a test says so.
"""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.models.test_large_parity import NXAI, HuggingFace, hugging, large  # noqa: F401  (fixtures)
from tests.models.test_nxai_parity import CASES, add_to_denominators, make, peer_config, shaken
from workbench.trace.attention import effective_attention
from workbench.trace.foreign import tracer
from workbench.trace.names import NAMES
from workbench.trace.record import record

xlstm = pytest.importorskip("xlstm", reason="needs xlstm: pip install -e '.[nxai]'")
STEPS, VOCABULARY = 12, 11
every_case = pytest.mark.parametrize("case", CASES)
every_width = pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-5), (torch.float64, 1e-10)], ids=str)
every_large = pytest.mark.parametrize("name", ["nxai_single", "nxai_fused", "transformers"])


def large_model(request, name, dtype=torch.float64, **sizes):
    """An xLSTM 7B of one of the packages, small, with random weights, and tokens."""
    if name == "transformers":
        peer = HuggingFace(request.getfixturevalue("hugging"), dtype, **sizes)
    else:
        peer = NXAI(request.getfixturevalue("large"), dtype, weight_mode=name.removeprefix("nxai_"), **sizes)
    return shaken(peer.model, dtype), torch.randint(VOCABULARY, (2, STEPS))


def layers(model):
    """The layers that are known, by path."""
    return {path: module for path, module in model.named_modules() if tracer(module) is not None}


def watched(model, run):
    """The trace of a run that must leave everything as it was: output, weights, hooks and random numbers."""
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    before, numbers = run(), torch.get_rng_state()
    with record(model) as trace:
        during = run()
    assert torch.equal(torch.get_rng_state(), numbers)
    assert torch.equal(before, during)
    assert_close(dict(model.state_dict()), weights, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in model.modules())
    return trace


@every_case
@every_width
def test_a_stack_of_2024_is_traced_exactly_and_unchanged(case, dtype, bound):
    peer, _, x = make(case, dtype)
    trace = watched(peer, lambda: peer(x))
    assert trace.exactness.keys() == layers(peer).keys()
    assert len(trace.cells) == len(peer.blocks)
    assert trace.error < bound
    assert {name.rpartition(".")[2] for name in trace.names()} <= set(NAMES)
    assert {(trace.cells[path]["kind"], type(layer).__name__) for path, layer in layers(peer).items()} <= {
        ("MLSTM", "mLSTMLayer"),
        ("SLSTM", "sLSTMLayer"),
    }


@every_large
@every_width
def test_an_xlstm_7b_is_traced_exactly_and_unchanged(request, name, dtype, bound):
    model, tokens = large_model(request, name, dtype)

    def run():
        with torch.no_grad():
            found = model(tokens)
        return found[0] if isinstance(found, tuple) else found.logits

    trace = watched(model, run)
    assert [cell["kind"] for cell in trace.cells.values()] == ["MLSTMLarge"] * 2
    assert trace.error < bound


def test_the_language_model_of_2024_is_traced_from_its_tokens():
    sizes = {"vocab_size": VOCABULARY, "slstm_at": [1], "num_blocks": 2, "context_length": STEPS}
    peer = shaken(xlstm.xLSTMLMModel(peer_config(xlstm.xLSTMLMModelConfig, **sizes)), torch.float32)
    tokens = torch.randint(VOCABULARY, (2, STEPS))
    trace = watched(peer, lambda: peer(tokens))
    assert trace["blocks.1.xlstm.forget"].dims == ("batch", "head", "time", "unit")
    assert trace["blocks.0.xlstm.forget"].dims == ("batch", "head", "time")
    assert trace.error < 5e-5


@pytest.mark.parametrize("case", ["mlstm", "mixed"])
def test_their_1e_6_is_stated(case):
    """In float64 it is all that a trace differs in: a hundred times as much, a hundred times the difference."""
    peer, _, x = make(case)
    found = {}
    for eps in (1e-8, 1e-6):
        with record(add_to_denominators(peer, eps)) as trace, torch.no_grad():
            peer(x)
        found[eps] = trace.exactness["blocks.0.xlstm"]
    assert 1e-9 < found[1e-6] < 1e-4
    assert found[1e-6] == pytest.approx(100 * found[1e-8], rel=0.02)


def test_gates_of_an_slstm_are_those_of_its_own_projections():
    """Computed by hand for every unit, without recurrent weights: `igate` makes the forget gate, `fgate` the input."""
    peer, _, x = make("slstm")
    layer, seen = peer.blocks[0].xlstm, {}
    layer.slstm_cell._recurrent_kernel_.data.zero_()
    for gate in ("igate", "fgate", "zgate", "ogate"):
        getattr(layer, gate).register_forward_hook(lambda _, __, y, gate=gate: seen.setdefault(gate, y.detach()))
    with record(peer) as trace:
        peer(x)
    bias = layer.slstm_cell.bias.clone()  # (H, 4, D), in the right order there: i, f, z, o

    def gate(name, at):
        return (seen[name].unflatten(-1, (4, 8)) + bias[:, at]).transpose(1, 2)

    got = {name: torch.from_numpy(trace.read(f"blocks.0.xlstm.{name}")) for name in ("forget", "log_input", "output")}
    assert_close(got["forget"], gate("igate", 1).sigmoid())
    assert_close(got["log_input"], gate("fgate", 0))
    assert_close(got["output"], gate("ogate", 3).sigmoid())
    assert_close(torch.from_numpy(trace.read("blocks.0.xlstm.candidate")), gate("zgate", 2).tanh())


def test_gates_of_an_mlstm_are_those_of_its_own_projections():
    peer, _, x = make("mlstm")
    cell, seen = peer.blocks[1].xlstm.mlstm_cell, {}
    for gate in ("igate", "fgate"):
        getattr(cell, gate).register_forward_hook(lambda _, __, y, gate=gate: seen.setdefault(gate, y.detach()))
    with record(peer) as trace:
        peer(x)
    assert_close(torch.from_numpy(trace.read("blocks.1.xlstm.log_input")), seen["igate"].transpose(1, 2))
    assert_close(torch.from_numpy(trace.read("blocks.1.xlstm.forget")), seen["fgate"].transpose(1, 2).sigmoid())


@every_large
def test_gates_of_an_xlstm_7b_are_softly_capped(request, name):
    model, tokens = large_model(request, name)
    path, layer = next(iter(layers(model).items()))
    heard = []
    layer.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    with record(model) as trace, torch.no_grad():
        model(tokens)
        if hasattr(layer, "ifgate_preact"):
            i, f = layer.ifgate_preact(heard[0]).chunk(2, -1)
        else:
            i, f = layer.igate_preact(heard[0]), layer.fgate_preact(heard[0])
    i, f = (15 * torch.tanh(gate / 15).transpose(1, 2) for gate in (i, f))
    assert_close(torch.from_numpy(trace.read(f"{path}.log_input")), i)
    assert_close(torch.from_numpy(trace.read(f"{path}.forget")), f.sigmoid())


def test_a_matrix_memory_of_another_package_is_read_like_ours():
    """The weights of its effective attention make its answers out of its values."""
    peer, _, x = make("mlstm")
    with record(peer) as trace:
        peer(x)
    answers = effective_attention(trace, "blocks.0.xlstm") @ trace.read("blocks.0.xlstm.value")
    np.testing.assert_allclose(answers, trace.read("blocks.0.xlstm.hidden"), atol=1e-10)


@pytest.mark.parametrize("case", ["slstm", "slstm-no-conv", "other-sizes"])
def test_an_slstm_goes_on_from_its_own_state(case):
    """And from either half of it; a convolution's state may be longer than it needs."""
    peer, _, x = make(case)
    layer, x = peer.blocks[0].xlstm, x.detach()
    with torch.no_grad():
        whole = layer(x)
        _, state = layer(x[:, :4], return_last_state=True)
        y = layer(x[:, 4:], **state)
    assert_close(y, whole[:, 4:])
    again, _ = tracer(layer)(x[:, 4:], **state)
    assert_close(again, whole[:, 4:])
    for half in ({"slstm_state": state["slstm_state"]}, {"conv_state": x[:, :4]}):
        if layer.config.conv1d_kernel_size or "slstm_state" in half:
            assert_close(tracer(layer)(x[:, 4:], **half)[0], layer(x[:, 4:], **half))
    assert not tracer(layer).carried(x)
    assert not tracer(layer).carried(x, None, torch.zeros_like(state["slstm_state"]))
    assert tracer(layer).carried(x, **state)


def test_a_returned_state_is_no_part_of_the_answer():
    peer, _, x = make("slstm")
    layer = peer.blocks[0].xlstm
    with record(layer) as trace, torch.no_grad():
        layer(x, return_last_state=True)
    assert trace.error < 1e-10


@pytest.mark.parametrize("name", ["nxai_single", "nxai_fused"])
def test_an_xlstm_7b_goes_on_from_its_own_state(request, name):
    """The model writes into the state that it is given, after its layers were traced."""
    model, tokens = large_model(request, name)
    with record(model, join=True) as trace, torch.no_grad():
        _, state = model(tokens[:, :4])
        model(tokens[:, 4:], state)
    assert trace.error < 1e-10
    with record(model) as whole, torch.no_grad():
        model(tokens)
    for quantity in ("forget", "hidden", "query"):
        at = f"backbone.blocks.1.mlstm_layer.{quantity}"
        np.testing.assert_allclose(trace.read(at), whole.read(at), rtol=1e-9, atol=1e-10)


def test_transformers_goes_on_from_its_cache(request):
    model, tokens = large_model(request, "transformers")
    module = request.getfixturevalue("hugging")
    cache = module.xLSTMCache(model.config, 2, dtype=torch.float64)
    layer = next(iter(layers(model).values()))
    begun = []
    layer.register_forward_pre_hook(lambda known, inputs: begun.append(tracer(known).carried(*inputs)))
    with record(model, join=True) as trace, torch.no_grad():
        model(tokens[:, :4], cache=cache)
        model(tokens[:, 4:], cache=cache)
    assert trace.error < 1e-10
    assert trace.steps == STEPS
    assert begun == [False, True]  # its first cache is full of zeros, which is an empty memory


def test_each_call_is_traced_with_the_weights_of_that_moment():
    peer, _, x = make("mixed")
    for _ in range(2):
        with record(peer) as trace, torch.no_grad():
            peer(x)
        assert trace.error < 1e-10
        for parameter in peer.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)


def test_step_goes_around_the_trace():
    """The package's own steps call no layer as a module: nothing is traced, and nothing wrongly."""
    peer, _, x = make("mixed")
    with record(peer) as trace, torch.no_grad():
        peer.step(x[:, :1])
    assert trace.names() == []
    with pytest.raises(KeyError, match="no cell has run"):
        trace.find("forget")


def test_only_classes_that_are_known_are_traced():
    peer, _, _ = make("slstm")
    layer = peer.blocks[0].xlstm
    assert tracer(torch.nn.Linear(2, 2)) is None
    assert tracer(peer.blocks[0]) is None
    layer.__class__ = type("sLSTMLayer", (type(layer),), {})
    assert tracer(layer) is None  # it may compute something else


@pytest.mark.parametrize(
    ("case", "setting", "value"),
    [
        ("mlstm", "bias", True),
        ("slstm", "function", "lstm"),
        ("slstm", "group_norm_weight", False),
        ("slstm", "gradient_recurrent_clipval", 1.0),
    ],
)
def test_a_setting_that_changes_the_equations_is_refused_by_name(case, setting, value):
    peer, _, _ = make(case)
    config = peer.blocks[1].xlstm.config
    config.backend = "cuda" if setting == "gradient_recurrent_clipval" else "vanilla"
    setattr(config, setting, value)
    with pytest.raises(ValueError, match=rf"LSTMLayer of xlstm with {setting}={value!r} computes what nothing here"):
        tracer(peer.blocks[1].xlstm)
    with pytest.raises(ValueError, match=setting), record(peer):
        pass


@pytest.mark.parametrize("sizes", [{"use_bias": True}, {"v_dim_factor": 0.5}], ids=str)
def test_settings_of_an_xlstm_7b_are_refused_by_name(request, sizes):
    model, _ = large_model(request, "nxai_single", **sizes)
    setting, value = next(iter(sizes.items()))
    with pytest.raises(ValueError, match=rf"mLSTMLayer of xlstm with {setting}={value} computes what nothing here"):
        tracer(model.backbone.blocks[0].mlstm_layer)


@pytest.mark.parametrize("sizes", [{"gate_soft_cap": 5.0}, {"qk_dim_factor": 1.0}, {"norm_eps": 1e-2}], ids=str)
def test_other_sizes_of_an_xlstm_7b_are_traced(request, sizes):
    model, tokens = large_model(request, "nxai_single", **sizes)
    with record(model) as trace, torch.no_grad():
        model(tokens)
    assert trace.error < 1e-10


def test_dropout_is_refused_while_it_draws():
    peer = xlstm.xLSTMBlockStack(peer_config(xlstm.xLSTMBlockStackConfig, slstm_at=[1], dropout=0.1))
    x = torch.randn(2, 9, 32)
    for layer in (peer.blocks[0].xlstm, peer.blocks[1].xlstm):
        with pytest.raises(ValueError, match=r"dropout=0\.1\), which cannot be computed again; call model\.eval\(\)"):
            tracer(layer.train())(x)
        assert tracer(layer.eval())(x)[0].shape == x.shape
