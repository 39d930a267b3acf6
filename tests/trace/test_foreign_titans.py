"""Memories of titans-pytorch are traced as they come, whatever network they train: unchanged, exactly, by our names."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from workbench.kernels.neural_memory import (
    NeuralMemoryState,
    first_state,
    neural_memory,
    neural_memory_gates,
    neural_memory_mlp,
    neural_memory_mlp_gates,
)
from workbench.kernels.observe import STRETCH
from workbench.trace.foreign import tracer
from workbench.trace.foreign_titans import FOREVER, NetworkState, learn
from workbench.trace.names import NAMES
from workbench.trace.record import record

STEPS, WIDTH = 13, 8
HEADS = {"heads": 2, "dim_head": 4}
CASES = {  # the network, and what differs from the package's default
    "default": (None, {}),
    "spans-of-1": (None, {"batch_size": 1}),
    "spans-of-4": (None, {"batch_size": 4}),
    "one-matrix": (("MemoryMLP", {"depth": 1}), {"mem_model_norm_add_residual": False, "batch_size": 1}),
    "two-layers": (("MemoryMLP", {"depth": 2}), {"mem_model_norm_add_residual": False, "batch_size": 5}),
    "heads": (None, HEADS | {"batch_size": 3, "qk_rmsnorm": True, "post_rmsnorm": True}),
    "heads-begin-alike": (None, HEADS | {"per_head_learned_parameters": False}),
    "no-momentum": (None, {"momentum": False, "pre_rmsnorm": False}),
    "activation": (None, {"activation": torch.nn.SiLU(), "batch_size": 4}),
    "swiglu": (("MemorySwiGluMLP", {}), {"batch_size": 4}),
    "factorized": (("FactorizedMemoryMLP", {"depth": 2, "k": 4}), {"batch_size": 4}),
    "attention": (("MemoryAttention", {}), {"batch_size": 4}),
}
every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def peer():
    """The package."""
    return pytest.importorskip("titans_pytorch", reason="needs titans-pytorch: pip install -e '.[dev]'")


def make(peer, case, dtype=torch.float64, **more):
    """A memory whose gates differ between steps, and inputs."""
    network, options = CASES[case]
    model = None if network is None else getattr(peer, network[0])(WIDTH, **network[1])
    memory = peer.NeuralMemory(WIDTH, model=model, **{"default_step_transform_max_lr": 0.05} | options | more).to(dtype)
    for name in ("to_decay_factor", "to_momentum", "to_adaptive_step"):
        for parameter in getattr(memory, name).parameters() if getattr(memory, name) is not None else ():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return memory, torch.randn(2, STEPS, WIDTH, dtype=dtype)


def read(trace, name):
    """One quantity as a tensor."""
    return torch.from_numpy(trace.read(name))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-5), (torch.float64, 1e-10)], ids=str)
@every_case
def test_it_is_traced_exactly_and_unchanged(peer, case, dtype, bound):
    memory, x = make(peer, case, dtype)
    weights = {name: w.clone() for name, w in memory.state_dict().items()}
    before, _ = memory(x)
    numbers = torch.get_rng_state()
    with record(memory) as trace:
        during, _ = memory(x)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert torch.equal(before, during)
    assert trace.error < bound
    assert_close(dict(memory.state_dict()), weights, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in memory.modules())
    assert set(trace.names()) <= set(NAMES)
    assert trace["forget"].shape == trace["surprise"].shape == (2, memory.heads, STEPS)
    assert ("output" in trace) == (memory.heads > 1)


@every_case
def test_it_goes_on_from_its_own_state_in_the_middle_of_a_span(peer, case):
    memory, x = make(peer, case)
    with record(memory, join=True) as trace:
        _, state = memory(x[:, :7])
        _, state = memory(x[:, 7], state=state)  # one step, without an axis for it
        memory(x[:, 8:], state=state)
    assert trace.error < 1e-10
    with record(memory) as whole:
        memory(x)
    for name in trace.names():
        np.testing.assert_allclose(trace.read(name), whole.read(name), rtol=1e-8, atol=1e-10, err_msg=name)


@every_case
def test_surprise_and_steps_are_those_that_it_returns(peer, case):
    """Its loss is a mean over the units of a value, and ours a sum."""
    memory, x = make(peer, case)
    with record(memory) as trace:
        _, _, (loss, step) = memory(x, return_surprises=True)
    units = WIDTH // memory.heads
    assert_close(read(trace, "surprise"), (units * loss).sqrt())
    assert_close(read(trace, "step_size"), step / units)


def test_gates_are_those_of_its_own_projections(peer):
    memory, x = make(peer, "heads")
    heard = {}
    for name in ("to_decay_factor", "to_momentum", "retrieve_gate"):
        getattr(memory, name)[0].register_forward_hook(lambda _, __, y, name=name: heard.setdefault(name, []).append(y))
    memory(x)
    decay, momentum = (torch.cat(heard[name], 1).transpose(1, 2) for name in ("to_decay_factor", "to_momentum"))
    output = heard["retrieve_gate"][0][:, 1:].transpose(1, 2)  # it puts a query before the first step
    with record(memory) as trace:
        memory(x)
    assert_close(read(trace, "forget"), (-decay).sigmoid())
    assert_close(read(trace, "log_forget").exp(), (-decay).sigmoid())
    assert_close(read(trace, "momentum"), momentum.sigmoid())
    assert_close(read(trace, "output"), output.sigmoid())


@pytest.mark.parametrize("case", ["one-matrix", "two-layers"])
def test_with_one_or_two_layers_its_memory_is_our_kernel(peer, case):
    """From the traced quantities alone, and its first weights."""
    memory, x = make(peer, case)
    with record(memory) as trace:
        _, state = memory(x)
    q, k, v, forget, eta, theta = (
        read(trace, name) for name in ("query", "key", "value", "forget", "momentum", "step_size")
    )
    settings = tracer(memory).settings
    inputs, refresh = (q, k, v, 1 - forget, eta, theta), settings["refresh"]
    first = [w.data for w in memory.memory_model_parameters]
    if case == "one-matrix":
        m = first[0].expand(2, -1, -1, -1)
        begin = NeuralMemoryState(m, torch.zeros_like(m), m, torch.zeros(2, dtype=torch.int64))
        y, after = neural_memory(*inputs, begin, refresh=refresh)
        last = [after.m]
    else:
        y, after = neural_memory_mlp(*inputs, *(w.mT for w in first), refresh=refresh)
        last = [after.w1.mT, after.w2.mT]
    assert settings["memory"] == {"one-matrix": "linear", "two-layers": "mlp"}[case]
    assert_close(read(trace, "hidden"), y)
    assert_close([w[:, 0] for w in last], [w.detach() for w in state.states[0].values()])
    sizes = torch.stack([w.square().sum((-1, -2)) for w in last]).sum(0).sqrt()
    assert_close(read(trace, "state_norm")[:, :, -1], sizes)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("refresh", [1, 5, FOREVER])
def test_the_recurrence_of_any_network_is_that_of_our_kernels(layers, refresh):
    """Answers, states, and what happened inside; the package is not asked."""
    q, k, v = torch.randn(3, 2, 3, 2 * STRETCH + 5, 5, dtype=torch.float64)
    alpha, eta = torch.rand(2, 2, 3, 2 * STRETCH + 5, dtype=torch.float64)
    inputs = (q, k, v, 0.2 * alpha, 0.5 * eta, 0.001 + 0.002 * alpha)
    begin = first_state(torch.randn(3, 6, 5).double(), torch.randn(3, 5, 6).double(), 2)
    weights = {"w1": begin.w1, "w2": begin.w2}
    network = lambda w, x: w["w2"] @ torch.nn.functional.gelu(w["w1"] @ x)  # noqa: E731
    if layers == 1:
        weights = {"m": torch.zeros(2, 3, 5, 5, dtype=torch.float64)}
        network = lambda w, x: x @ w["m"]  # noqa: E731
    zero = {name: torch.zeros_like(w) for name, w in weights.items()}
    y, last, seen = learn(network, inputs, NetworkState(weights, zero, weights, 0), refresh)
    if layers == 1:
        wanted, state, gates = neural_memory_gates(*inputs, refresh=refresh)
    else:
        wanted, state, gates = neural_memory_mlp_gates(*inputs, begin, refresh=refresh)
    assert y.isfinite().all()
    assert_close(list(last.weights.values()), list(state[: len(weights)]))
    assert_close(y, wanted)
    assert_close(tuple(seen), tuple(gates))


def test_what_a_mask_leaves_out_is_not_learned(peer):
    memory, x = make(peer, "spans-of-4")
    mask = torch.arange(STEPS).expand(2, -1) % 3 > 0
    with record(memory) as trace:
        memory(x, store_mask=mask)
    assert trace.error < 1e-10
    assert_close(read(trace, "step_size")[:, 0] > 0, mask)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("chunk_size", 4),
        ("num_kv_per_token", 2),
        ("qkv_receives_diff_views", True),
        ("store_with_lookahead_value", True),
        ("max_grad_norm", 1.0),
        ("spectral_norm_surprises", True),
        ("per_parameter_lr_modulation", True),
        ("accept_weight_residual", True),
        ("gated_transition", True),
        ("momentum_order", 2),
        ("store_memory_loss_fn", lambda predicted, wanted: (predicted - wanted).abs().mean(-1)),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_setting_that_makes_another_memory_is_refused_by_name(peer, setting, value):
    memory, _ = make(peer, "default", **{setting: value})
    with pytest.raises(ValueError, match=rf"NeuralMemory of titans_pytorch with {setting}=.* cannot be traced; with"):
        tracer(memory)


def test_calls_that_are_another_memory_are_refused_by_name(peer):
    memory, x = make(peer, "spans-of-4")
    for name, value in (("store_seq", x), ("ttt_batch_size", 2)):
        with pytest.raises(ValueError, match=f"was called with {name}, and is traced without"), record(memory):
            memory(x, **{name: value})
    with record(memory):
        memory(x, ttt_batch_size=4)


def test_it_is_said_that_a_trace_does_not_hold_the_first_weights(peer):
    memory, x = make(peer, "default")
    assert tracer(memory).carried(x)
