"""The 2024 xLSTM equals NX-AI's package xlstm 2.0.6, both ways: weights, outputs, gradients, states.

The package adds 1e-6 to the denominator of its mLSTM, and we add nothing. In float32 this drowns in rounding. In
float64, where everything else agrees to 1e-10, the tests set it to 0, and one test of its own says what it costs.
Gradients are those of the package's parallel form. Its `step` writes into its state and cannot be differentiated.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from workbench.cells.states import map_state
from workbench.models.language import LanguageModelConfig
from workbench.models.layouts import LSTMStackConfig, XLSTMLargeStackConfig, XLSTMStackConfig
from workbench.models.nxai_states import from_nxai_state, to_nxai_state
from workbench.models.nxai_weights import from_nxai, nxai_stack, to_nxai

xlstm = pytest.importorskip("xlstm", reason="needs xlstm: pip install -e '.[nxai]'")
STEPS, CUT, VOCABULARY = 9, 4, 11
CASES = {  # what differs from the package's default
    "mlstm": {"slstm_at": []},
    "mixed": {"slstm_at": [1], "num_blocks": 3, "context_length": 3 * STEPS},
    "slstm": {"mlstm": None},
    "slstm-no-conv": {"slstm_at": [0], "slstm": {"conv1d_kernel_size": 0}},
    "slstm-no-mlp": {"slstm_at": [1], "mlp": None, "add_post_blocks_norm": False},
    "other-sizes": {
        "embedding_dim": 48,
        "num_blocks": 3,
        "slstm_at": [0, 2],
        "mlstm": {"num_heads": 2, "conv1d_kernel_size": 3, "qkv_proj_blocksize": 8, "proj_factor": 1.0},
        "slstm": {"num_heads": 6, "conv1d_kernel_size": 5},
        "mlp": {"proj_factor": 2.2},
    },
}
every_case = pytest.mark.parametrize("case", CASES)


def peer_config(kind, mlstm=(), slstm=(), mlp=(), **sizes):
    """A configuration of the package; None for a part leaves it out."""
    from xlstm.blocks.mlstm.layer import mLSTMLayerConfig
    from xlstm.blocks.slstm.layer import sLSTMLayerConfig
    from xlstm.components.feedforward import FeedForwardConfig

    mlp = None if mlp is None else FeedForwardConfig(**dict(mlp))
    layer = sLSTMLayerConfig(backend="vanilla", **dict(slstm))
    return kind(
        mlstm_block=None if mlstm is None else xlstm.mLSTMBlockConfig(mlstm=mLSTMLayerConfig(**dict(mlstm))),
        slstm_block=xlstm.sLSTMBlockConfig(slstm=layer, feedforward=mlp),
        **{"context_length": STEPS, "embedding_dim": 32, "num_blocks": 2} | sizes,
    )


def shaken(module, dtype):
    """Random weights everywhere, for fresh gates and recurrences are zero; ready to be asked.

    Smaller in float32: where a head answers with nearly the same number in all its units, the norm behind it
    magnifies rounding a hundredfold, and then neither side is within 1e-5 of float64.
    """
    for parameter in module.parameters():
        parameter.data = (0.3 if dtype == torch.float64 else 0.2) * torch.randn_like(parameter)
    return module.to(dtype).eval()


def add_to_denominators(peer, eps):
    """Let the package add another number to the denominators of its mLSTM."""
    from xlstm.blocks.mlstm.backends import parallel_stabilized_simple, recurrent_step_stabilized_simple

    for module in peer.modules():
        if hasattr(module, "backend_fn_step"):
            module.backend_fn = partial(parallel_stabilized_simple, eps=eps)
            module.backend_fn_step = partial(recurrent_step_stabilized_simple, eps=eps)
    return peer


def make(case, dtype=torch.float64):
    """The package's stack, ours with the same weights, and inputs; in float64 without its 1e-6."""
    peer = shaken(xlstm.xLSTMBlockStack(peer_config(xlstm.xLSTMBlockStackConfig, **CASES[case])), dtype)
    if dtype == torch.float64:
        add_to_denominators(peer, 0.0)
    return peer, ours_like(peer, dtype), torch.randn(2, STEPS, peer.config.embedding_dim, dtype=dtype)


def ours_like(peer, dtype):
    """Our stack, its sizes and weights read from those of the package."""
    weights = from_nxai(peer.state_dict())
    ours = nxai_stack(weights).build().to(dtype)
    ours.load_state_dict(weights)
    return ours


def stepped(peer, x, state=None):
    """What the package's `step` makes of a sequence, and its state."""
    outputs = []
    with torch.no_grad():
        for t in range(x.shape[1]):
            y, state = peer.step(x[:, t : t + 1], state)
            outputs.append(y)
    return torch.cat(outputs, 1), state


def unscaled(state):
    """A state as what it stands for: exp(m) c and exp(m) n, whatever the m."""
    blocks = []
    for block in state.blocks:
        memory = block.memory
        size = memory.m.exp()
        if hasattr(memory, "h"):
            blocks.append((block.tail, memory.h, memory.c * size, memory.n * size))
        else:
            blocks.append((block.tail, memory.c * size[..., None, None], memory.n * size[..., None]))
    return blocks


def gradients(module, y):
    """Gradients towards all weights of a fixed mixture of outputs, by name."""
    mixture = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape).cos()
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad((y * mixture).sum(), parameters), strict=True))


def converted(theirs):
    """Their gradients by our names: as weights, but for the 1 that norms hold there apart."""
    return {name: g - 1 if name.endswith("norm.weight") else g for name, g in from_nxai(theirs).items()}


def split_norms(weights):
    """Weights of norms apart from the others."""
    norms = {name: x for name, x in weights.items() if name.endswith(("norm.weight", "outnorm.weight"))}
    return norms, {name: x for name, x in weights.items() if name not in norms}


def close(tolerance):
    """Arguments of a comparison, relative and absolute alike."""
    return {"rtol": tolerance, "atol": tolerance}


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_outputs_agree(case, dtype, tolerance):
    peer, ours, x = make(case, dtype)
    assert_close(ours(x)[0], peer(x), **close(tolerance))


@every_case
def test_gradients_of_all_weights_agree(case):
    peer, ours, x = make(case)
    wanted, got = converted(gradients(peer, peer(x))), gradients(ours, ours(x)[0])
    assert wanted.keys() == got.keys()
    assert all(g.abs().max() > 1e-6 for g in wanted.values())
    assert_close(got, wanted, **close(1e-10))


@every_case
def test_weights_convert_back_bit_by_bit(case):
    """Those of norms, stored less 1 there, within one rounding."""
    peer, ours, _ = make(case, torch.float32)
    theirs = peer.state_dict()
    back = to_nxai(ours.state_dict())
    assert back.keys() == theirs.keys()
    for wanted, got, bound in zip(split_norms(theirs), split_norms(back), (2**-23, 0), strict=True):
        assert_close(got, wanted, rtol=0, atol=bound)
    again = from_nxai(to_nxai(from_nxai(back), "cuda"))
    for wanted, got, bound in zip(split_norms(from_nxai(back)), split_norms(again), (2**-23, 0), strict=True):
        assert_close(got, wanted, rtol=0, atol=bound)


@every_case
def test_weights_of_ours_run_there(case):
    peer, ours, x = make(case)
    for parameter in ours.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    peer.load_state_dict(to_nxai(ours.state_dict()))
    assert_close(peer(x), ours(x)[0], **close(1e-10))


@every_case
def test_states_agree_after_every_step(case):
    peer, ours, x = make(case)
    config, state, theirs = nxai_stack(ours.state_dict()), None, None
    for t in range(STEPS):
        wanted, theirs = stepped(peer, x[:, t : t + 1], theirs)
        y, state = ours(x[:, t : t + 1], state)
        assert_close(y, wanted, **close(1e-10))
        assert_close(unscaled(state), unscaled(from_nxai_state(theirs, config)), **close(1e-10))


@every_case
def test_their_state_goes_on_here(case):
    """A whole pass here, from where the package's steps ended; what came from there is a copy."""
    peer, ours, x = make(case)
    _, theirs = stepped(peer, x[:, :CUT])
    state = from_nxai_state(theirs, nxai_stack(ours.state_dict()))
    wanted, theirs = stepped(peer, x[:, CUT:], theirs)  # writes into what it is given
    y, _ = ours(x[:, CUT:], state)
    assert_close(y, wanted, **close(1e-10))


@every_case
def test_our_state_goes_on_there(case):
    peer, ours, x = make(case)
    wanted, _ = ours(x)
    _, state = ours(x[:, :CUT])
    before = map_state(torch.clone, state)
    y, _ = stepped(peer, x[:, CUT:], to_nxai_state(state))
    assert_close(y, wanted[:, CUT:], **close(1e-10))
    assert_close(state, before, rtol=0, atol=0)


@every_case
def test_states_convert_back(case):
    """Bit by bit but for the keys' scale, whose square root rounds."""
    _, ours, x = make(case)
    _, state = ours(x)
    back = from_nxai_state(to_nxai_state(state), nxai_stack(ours.state_dict()))
    assert_close(back, state, rtol=1e-15, atol=0)


def test_an_empty_memory_goes_there_and_back():
    """A sequence of length 0 leaves m = -inf here; there, an empty memory has m = 0."""
    peer, ours, x = make("mixed")
    _, state = ours(x[:, :CUT], lengths=torch.tensor([CUT, 0]))
    wanted, _ = ours(x[:, CUT:], state)
    theirs = to_nxai_state(state)
    assert (theirs["block_0"]["mlstm_state"][2][1] == 0).all()
    y, _ = stepped(peer, x[:, CUT:], theirs)
    assert_close(y, wanted, **close(1e-10))


@pytest.mark.parametrize("case", ["mlstm", "mixed"])
def test_their_1e_6_is_all_that_differs_in_float64(case):
    """It breaks 1e-10, and the difference grows with it: a hundred times as much, a hundred times the difference."""
    peer, ours, x = make(case)
    with torch.no_grad():
        y = ours(x)[0]
        difference = {eps: float((add_to_denominators(peer, eps)(x) - y).abs().max()) for eps in (0.0, 1e-8, 1e-6)}
    assert difference[0.0] < 1e-12
    assert 1e-9 < difference[1e-6] < 1e-4
    assert difference[1e-6] == pytest.approx(100 * difference[1e-8], rel=0.02)


def test_igate_of_an_slstm_drives_the_forget_gate():
    """By behaviour: a push on `igate` there is a push on the forget gate here, and the other way round."""
    peer, ours, x = make("slstm-no-conv")
    plain = ours(x)[0]
    for theirs, mine in (("igate", "f"), ("fgate", "i")):
        getattr(peer.blocks[0].xlstm, theirs).weight.data += 1
        ours.blocks[0].cell.gates[mine].weight.data += 1
        assert_close(ours(x)[0], peer(x), **close(1e-10))
        assert (peer(x) - plain).abs().max() > 1e-3


def test_the_memory_there_holds_scaled_keys():
    peer, ours, x = make("mlstm")
    _, theirs = stepped(peer, x)
    c, n, m = theirs["block_0"]["mlstm_state"]
    memory = ours(x)[1].blocks[0].memory
    size = (memory.m - m[..., 0, 0]).exp()  # theirs begins at m = 0
    scale = (c.shape[2] ** -0.5) * size
    assert_close(c, memory.c * scale[..., None, None], **close(1e-10))
    assert_close(n[..., 0], memory.n * scale[..., None], **close(1e-10))


def test_the_mlp_may_pass_its_gate_through_silu():
    """Weights do not tell: the configuration must be told."""
    mlp = {"act_fn": "swish"}
    peer = shaken(xlstm.xLSTMBlockStack(peer_config(xlstm.xLSTMBlockStackConfig, mlstm=None, mlp=mlp)), torch.float64)
    weights = from_nxai(peer.state_dict())
    config, x = nxai_stack(weights), torch.randn(2, STEPS, 32, dtype=torch.float64)
    for activation, same in (("silu", True), ("gelu", False)):
        shape = config.shape.model_copy(update={"mlp_activation": activation})
        ours = config.model_copy(update={"shape": shape}).build().double()
        ours.load_state_dict(weights)
        assert torch.allclose(ours(x)[0], peer(x), **close(1e-10)) == same


def test_both_forms_of_the_slstm_hold_the_same():
    """The package's own views of its forms for CPUs and for GPUs say so."""
    from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

    _, ours, _ = make("slstm", torch.float32)
    seen = []
    for form in ("vanilla", "cuda"):
        weights = to_nxai(ours.state_dict(), form)
        assert_close(split_norms(from_nxai(weights))[1], split_norms(ours.state_dict())[1], rtol=0, atol=0)
        cell = sLSTMCell(sLSTMCellConfig(hidden_size=32, num_heads=4, backend=form), skip_backend_init=True)
        prefix = "blocks.1.xlstm.slstm_cell."
        cell.load_state_dict({n.removeprefix(prefix): x for n, x in weights.items() if n.startswith(prefix)})
        seen.append((cell.recurrent_kernel.clone(), cell.bias.clone()))
    assert_close(*seen, rtol=0, atol=0)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_language_models_agree(tied):
    sizes = {"vocab_size": VOCABULARY, "tie_weights": tied, "slstm_at": [1], "num_blocks": 3}
    peer = xlstm.xLSTMLMModel(peer_config(xlstm.xLSTMLMModelConfig, **sizes))
    peer = add_to_denominators(shaken(peer, torch.float64), 0.0)
    weights = from_nxai(peer.state_dict())
    ours = LanguageModelConfig(vocabulary=VOCABULARY, stack=nxai_stack(weights), tied=tied).build().double()
    ours.load_state_dict(weights)
    assert_close(to_nxai(ours.state_dict()), dict(peer.state_dict()), rtol=0, atol=2**-53)
    tokens = torch.randint(VOCABULARY, (2, STEPS))
    logits, last = ours(tokens)
    assert_close(logits, peer(tokens), **close(1e-10))
    wanted = gradients(peer, peer(tokens))
    if tied:  # named once there, by the embedding
        wanted |= {"lm_head.weight": wanted["token_embedding.weight"]}
    got, wanted = gradients(ours, logits), converted(wanted)
    assert_close(got, {name: wanted[name] for name in got}, **close(1e-10))
    stream, theirs = stepped(peer, tokens)
    assert_close(stream, logits, **close(1e-10))
    assert_close(unscaled(from_nxai_state(theirs, ours.config.stack)), unscaled(last), **close(1e-10))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bias": True}, r"has the unknown .*blocks.0.xlstm.proj_down.bias.*bias=False"),
        ({"drop": "blocks.0.xlstm.learnable_skip"}, "lacks blocks.0.xlstm.learnable_skip and has the unknown nothing"),
        ({"drop": "blocks.0."}, r"hold blocks \[1\], and must hold all from 0 upwards"),
    ],
    ids=["bias", "missing", "gap"],
)
def test_weights_without_a_counterpart_here_are_refused(change, says):
    drop = change.pop("drop", "nothing")
    peer = xlstm.xLSTMBlockStack(peer_config(xlstm.xLSTMBlockStackConfig, slstm_at=[], **change))
    weights = {name: x for name, x in peer.state_dict().items() if not name.startswith(drop)}
    with pytest.raises(ValueError, match=says):
        from_nxai(weights)


def test_weights_without_a_counterpart_there_are_refused():
    model = LanguageModelConfig(vocabulary=3, stack=XLSTMStackConfig(width=8), head_bias=True).build()
    with pytest.raises(ValueError, match=r"lacks nothing and has the unknown head.bias"):
        to_nxai(model.state_dict())
    with pytest.raises(ValueError, match=r"has the unknown blocks.0.cell.input_forget.bias"):
        to_nxai(XLSTMLargeStackConfig(width=16).build().state_dict())


def test_a_hidden_width_that_ours_cannot_have_is_refused():
    mlp = {"round_proj_up_to_multiple_of": 8}
    peer = xlstm.xLSTMBlockStack(peer_config(xlstm.xLSTMBlockStackConfig, slstm_at=[0], mlp=mlp))
    with pytest.raises(ValueError, match="the MLP behind an sLSTM is 48 wide, and must be a multiple of 64"):
        nxai_stack(from_nxai(peer.state_dict()))


def test_states_of_other_stacks_are_refused(unchecked):
    peer, ours, x = make("mixed")
    _, theirs = stepped(peer, x)
    config = nxai_stack(ours.state_dict())
    with pytest.raises(ValueError, match="the state and the stack's 2 blocks differ in block_2"):
        from_nxai_state(theirs, XLSTMStackConfig(width=32, layers=2))
    with pytest.raises(ValueError, match="block_0 is an slstm here, and its state differs in mlstm_state, slstm_state"):
        from_nxai_state(theirs, config.model_copy(update={"slstm_at": (0,)}))
    with pytest.raises(TypeError, match="block 0 is a LSTMState, and the official package has no such block"):
        to_nxai_state(LSTMStackConfig(width=4).build()(torch.randn(1, 2, 4))[1])
    sigmoid = XLSTMStackConfig(width=8, slstm_at=(), gates="sigmoid").build()
    with pytest.raises(TypeError, match="memory is MLSTMSigmoidState, and the official package knows MLSTMState alone"):
        to_nxai_state(sigmoid(torch.randn(1, 2, 8))[1])
    with pytest.raises(ValueError, match="form 'triton' is unknown; choose one of vanilla, cuda"):
        to_nxai(nn.Linear(1, 1).state_dict(), "triton")
