"""Makes the goldens of flash-linear-attention's RWKV-7 and Gated DeltaNet layers. Needs a GPU, triton and fla.

    TRITON_F32_DEFAULT=ieee python tests/goldens/make_fla.py FOLDER

Each file holds weights, inputs, the outputs of one pass and of a continued one, the carried memory, and the
gradients of sum(y * weigh) towards the input and all weights: float32, with fla's own Triton kernels, products of
float32 in full (without the setting above they are rounded to TF32). Weights are random, so that nothing is zero.

One thing is not from a Triton kernel: the gradients of Gated DeltaNet. With Triton 3.4 to 3.7.0 on Hopper fla refuses
its backward kernel, because it is wrong there. So the pass that makes the gradients runs the layer with fla's naive
recurrence in the place of that kernel; everything else in the layer, and all outputs, are as they are. And its
forward kernel inverts its triangular matrices in TF32 whatever the setting, which costs 1e-4 of the output (6e-4 with
negative eigenvalues): here it is told not to.
"""

import datetime
import os
import sys
from pathlib import Path

import torch
import triton
import triton.language as tl
from safetensors.torch import save_file
from triton.runtime.autotuner import Autotuner

STEPS, MORE, WIDTH, SEED = 70, 6, 32, 20261125
tune = Autotuner.__init__


def two_configs(self: Autotuner, fn: object, arg_names: list, configs: list, *args: object, **options: object) -> None:
    """Try two configurations of each kernel instead of dozens: the numbers are wanted, not the speed."""
    tune(self, fn, arg_names, configs[:: max(len(configs) - 1, 1)], *args, **options)


Autotuner.__init__ = two_configs
import fla  # noqa: E402
from fla.layers import GatedDeltaNet, RWKV7Attention, gated_deltanet  # noqa: E402
from fla.models.utils import Cache  # noqa: E402
from fla.ops.gated_delta_rule import chunk_fwd  # noqa: E402
from fla.ops.gated_delta_rule.gate import naive_gdn_gate  # noqa: E402
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule  # noqa: E402

chunk_fwd.SOLVE_TRIL_DOT_PRECISION = tl.constexpr("ieee")


def naive(*, q, k, v, g, beta, A_log, dt_bias, allow_neg_eigval, **rest) -> tuple:
    """What the chunk kernel computes as the layer calls it, by fla's naive recurrence."""
    assert rest["initial_state"] is None
    assert not rest["output_final_state"]
    q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    return naive_recurrent_gated_delta_rule(q, k, v, beta, naive_gdn_gate(g, A_log, dt_bias))


def shake(layer: torch.nn.Module) -> torch.nn.Module:
    """Add to every weight, so that gates differ and nothing is zero."""
    for parameter in layer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return layer.cuda()


def record(layer: torch.nn.Module, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """One pass and a few steps more, the state carried over; then a pass with gradients."""
    x = torch.randn(2, STEPS + MORE, WIDTH, device="cuda")
    now, rest = x[:, :STEPS].clone().requires_grad_(), x[:, STEPS:]
    weigh = torch.randn(2, STEPS, WIDTH, device="cuda")
    first = {name: value[:, :STEPS] for name, value in more.items()}
    layer.eval()
    cache = Cache()
    with torch.no_grad():
        y, _, cache, *_ = layer(x[:, :STEPS], past_key_values=cache, use_cache=True, **first)
        memory = cache[layer.layer_idx]["recurrent_state"].clone()
        last = {name: value[:, STEPS:] for name, value in more.items()}
        y_rest, *_ = layer(rest, past_key_values=cache, use_cache=True, **last)
    layer.train()
    again = layer(now, **first)[0]
    (again * weigh).sum().backward()
    print(type(layer).__name__, "training pass against inference pass:", float((again - y).abs().max()), flush=True)
    found = {"x": x, "weigh": weigh, "y": y, "y_rest": y_rest, "memory": memory, "gradient.x": now.grad, **more}
    for name, parameter in layer.named_parameters():
        found[f"weight.{name}"] = parameter
        found[f"gradient.weight.{name}"] = parameter.grad
    return {name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in found.items()}


def fresh(layer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The initial values that are the same for every seed: those of vectors."""
    return {f"fresh.{n}": p.detach().clone().contiguous() for n, p in layer.named_parameters() if p.squeeze().ndim == 1}


def main(folder: Path) -> None:
    """Write one file for each layer."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(SEED)
    made = {}
    ranks = {f"{gate}_low_rank_dim": 8 for gate in ("decay", "gate", "a", "v")}
    for at in (0, 1):
        layer = RWKV7Attention(hidden_size=WIDTH, head_dim=16, layer_idx=at, num_hidden_layers=4, **ranks)
        start = fresh(layer)
        v_first = {"v_first": torch.randn(2, STEPS + MORE, WIDTH, device="cuda")} if at else {}
        made[f"fla_rwkv7_layer{at}"] = record(shake(layer), **v_first) | start
    kernel = gated_deltanet.chunk_gated_delta_rule
    for name, negative in (("fla_gated_deltanet", False), ("fla_gated_deltanet_negative", True)):
        layer = GatedDeltaNet(WIDTH, expand_v=2, head_dim=16, num_heads=2, allow_neg_eigval=negative, layer_idx=0)
        shake(layer)
        gated_deltanet.chunk_gated_delta_rule = lambda **a: (kernel if a["output_final_state"] else naive)(**a)
        made[name] = record(layer)
    provenance = {
        "source": f"flash-linear-attention {fla.__version__} (MIT), github.com/fla-org/flash-linear-attention",
        "versions": f"torch {torch.__version__}, triton {triton.__version__}",
        "device": torch.cuda.get_device_name(),
        "float32_products": os.environ.get("TRITON_F32_DEFAULT", "tf32"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": str(SEED),
        "script": "tests/goldens/make_fla.py",
    }
    for name, tensors in made.items():
        gradients = "naive recurrence of fla" if "delta" in name else "Triton kernels of fla"
        save_file(tensors, folder / f"{name}.safetensors", provenance | {"gradients": gradients})
        print(name, (folder / f"{name}.safetensors").stat().st_size, "bytes", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
