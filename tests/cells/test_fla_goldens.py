"""Gated DeltaNet and RWKV-7 equal the layers of flash-linear-attention: outputs, memory and gradients.

The files in tests/goldens were made once on a GPU, in float32 with fla's own Triton kernels (make_fla.py there);
ours runs in float64 on the same float32 weights, so that what differs is their rounding.
"""

import re

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from workbench.cells.gated_delta import GatedDelta
from workbench.cells.rwkv7 import RWKV7, Ranks

GATED = {
    "write.weight": ["b_proj.weight"],
    "forget.weight": ["a_proj.weight"],
    "log_rate": ["A_log"],
    "forget_bias": ["dt_bias"],
    "gate.weight": ["g_proj.weight"],
    "norm.weight": ["o_norm.weight"],
    "down.weight": ["o_proj.weight"],
    "qkv.weight": [f"{x}_proj.weight" for x in "qkv"],
    "conv.weight": [f"{x}_conv1d.weight" for x in "qkv"],
}
LOW_RANK = {"decay": "w_lora", "rate": "a_lora", "share": "v_lora", "gate": "g_lora"}
TIME_MIX = {
    "blend": [f"x_{x}" for x in "rwkvag"],
    "receptance.weight": ["r_proj.weight"],
    "key.weight": ["k_proj.weight"],
    "value.weight": ["v_proj.weight"],
    "output.weight": ["o_proj.weight"],
    "removal": ["k_k"],
    "replacement": ["k_a"],
    "bonus": ["r_k"],
    "norm.weight": ["g_norm.weight"],
    "norm.bias": ["g_norm.bias"],
    **{f"{ours}.down": [f"{theirs}.lora.0.weight"] for ours, theirs in LOW_RANK.items()},
    **{f"{ours}.up": [f"{theirs}.lora.2.weight"] for ours, theirs in LOW_RANK.items()},
    **{f"{ours}.bias": [f"{theirs}.lora.2.bias"] for ours, theirs in LOW_RANK.items() if ours != "gate"},
}
FILES = ["fla_gated_deltanet", "fla_gated_deltanet_negative", "fla_rwkv7_layer0", "fla_rwkv7_layer1"]


def read(root, name):
    """The tensors of a golden, in float64."""
    with safe_open(root / "tests" / "goldens" / f"{name}.safetensors", "pt") as file:
        assert "flash-linear-attention" in file.metadata()["source"]
        return {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118  (not a dict)


def ours(parameters, golden, prefix):
    """Their tensors under our names and in our shapes; every one of theirs must be taken."""
    names = GATED if "qkv.weight" in parameters else TIME_MIX
    left, found = {name for name in golden if name.startswith(prefix)}, {}
    for name, parameter in parameters.items():
        if f"{prefix}{names[name][0]}" not in golden:
            assert name.startswith("share."), name  # they leave out what layer 0 does not use
            continue
        parts = [golden[prefix + their] for their in names[name]]
        left -= {prefix + their for their in names[name]}
        parts = [part.mT if re.search(r"\.(down|up)$", name) else part for part in parts]
        found[name] = torch.cat([part.reshape(-1, *parameter.shape[1:]) if len(parts) > 1 else part for part in parts])
        found[name] = found[name].reshape(parameter.shape)
    assert not left
    return found


def build(name, golden):
    """Our layer with their weights."""
    if "rwkv7" in name:
        ranks = Ranks(8, 8, 8, 8)
        cell = RWKV7(32, head_size=16, layer=int(name[-1]), layers=4, ranks=ranks).double()
    else:
        cell = GatedDelta(32, heads=2, head_size=16, negative_eigenvalues="negative" in name).double()
    parameters = dict(cell.named_parameters())
    cell.load_state_dict(ours(parameters, golden, "weight."), strict=name != "fla_rwkv7_layer0")
    return cell


@pytest.mark.parametrize("name", FILES)
def test_outputs_memory_and_gradients(root, name):
    golden = read(root, name)
    cell, steps = build(name, golden), golden["y"].shape[1]
    shared = {"v_first": golden["v_first"]} if "v_first" in golden else {}
    x = golden["x"][:, :steps].requires_grad_()
    y, state = cell(x, **{key: value[:, :steps] for key, value in shared.items()})
    close = {"rtol": 1e-4, "atol": 2e-5}
    assert_close(y, golden["y"], **close)
    memory = golden["memory"]
    assert_close(state.memory.s, memory.mT if memory.shape[-2:] != state.memory.s.shape[-2:] else memory, **close)
    more, _ = cell(golden["x"][:, steps:], state, **{key: value[:, steps:] for key, value in shared.items()})
    assert_close(more, golden["y_rest"], **close)
    (y * golden["weigh"]).sum().backward()
    gradients = ours(dict(cell.named_parameters()), golden, "gradient.weight.")
    got = {key: parameter.grad for key, parameter in cell.named_parameters() if key in gradients}
    for key, wanted in {**gradients, "x": golden["gradient.x"]}.items():
        found = x.grad if key == "x" else got[key]
        assert (found - wanted).norm() / wanted.norm() < 1e-4, key


@pytest.mark.parametrize("layer", [0, 1])
def test_initial_values_of_rwkv7(root, layer):
    golden = read(root, f"fla_rwkv7_layer{layer}")
    cell = RWKV7(32, head_size=16, layer=layer, layers=4, ranks=Ranks(8, 8, 8, 8)).double()
    fresh = {name.removeprefix("fresh."): value for name, value in golden.items() if name.startswith("fresh.")}
    parameters = dict(cell.named_parameters())
    names = {name: their for name, their in TIME_MIX.items() if their[0] in fresh}
    assert {their for names_of in names.values() for their in names_of} == fresh.keys()
    for name, theirs in names.items():
        wanted = torch.cat([fresh[their].flatten() for their in theirs])
        assert_close(
            parameters[name].detach().flatten(), wanted, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
