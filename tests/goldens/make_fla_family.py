"""Makes the goldens of flash-linear-attention's Mamba-2, MesaNet, PaTH, LightNet and Gated Slot Attention layers.

    TRITON_F32_DEFAULT=ieee python tests/goldens/make_fla_family.py FOLDER [NAME …]

As make_fla.py, on a GPU; the steps after the pass are taken one by one, because most of these layers can do no more.
Two things are not from Triton kernels: Mamba-2 is fla's torch path, which it takes without the package mamba_ssm; and
MesaNet's kernel solves by conjugate gradient to 1e-4 or so, which is no truth. So fla's own exact solve runs in its
place, and what the kernel says is kept beside it as `y_kernel`.
"""

import datetime
import os
import sys
from pathlib import Path

import torch
import triton
from make_fla import MORE, SEED, STEPS, WIDTH, shake  # first: it tames the autotuner
from safetensors.torch import save_file

import fla  # isort: skip
from fla.layers import GatedSlotAttention, LightNetAttention, Mamba2, MesaNet, PaTHAttention, mesa_net  # isort: skip
from fla.models.utils import Cache  # isort: skip
from fla.modules.l2norm import l2_norm  # isort: skip
from fla.ops.mesa_net.naive import naive_mesa_net_exact  # isort: skip

LAYERS = {
    "mamba2": (Mamba2, {"num_heads": 4, "head_dim": 16, "state_size": 16, "chunk_size": 32}),
    "mesanet": (MesaNet, {"num_heads": 2, "head_dim": 16}),
    "path": (PaTHAttention, {"num_heads": 2, "use_forget_gate": True}),
    "lightnet": (LightNetAttention, {"expand_ratio": 16, "gate_low_rank_dim": 8}),
    "gsa": (GatedSlotAttention, {"num_heads": 2, "num_slots": 16}),
}
KERNELS = mesa_net.chunk_mesa_net, mesa_net.mesa_net_decoding_one_step


def exact(*, q, k, v, g, beta, lamb, output_final_state, max_CG_iteration, use_qk_l2norm_in_kernel, cu_seqlens):
    """What MesaNet's kernel solves, solved exactly."""
    return naive_mesa_net_exact(l2_norm(q), l2_norm(k), v, g, lamb, beta)


def exact_step(*, q, k, v, g, lamb, beta, prev_h_kk, prev_h_kv, max_CG_iteration):
    """The same for one more step."""
    one = (x.unsqueeze(1) for x in (q, k, v, g))
    o, h_kk, h_kv = naive_mesa_net_exact(*one, lamb, beta.unsqueeze(1), prev_h_kk, prev_h_kv)
    return o.squeeze(1), h_kk, h_kv


def use_exact(yes: bool) -> None:
    """Put the exact solve in the place of the kernels, or the kernels back."""
    mesa_net.chunk_mesa_net, mesa_net.mesa_net_decoding_one_step = (exact, exact_step) if yes else KERNELS


def continued(layer: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """One pass over one sequence and a few single steps more; the memory after the pass."""
    cache, mask = Cache(), isinstance(layer, PaTHAttention)
    ones = torch.ones(1, STEPS + MORE, dtype=torch.long, device="cuda")
    y, _, cache = layer(x[:, :STEPS], ones[:, :STEPS] if mask else None, past_key_values=cache, use_cache=True)[:3]
    state = cache[layer.layer_idx]
    memory = state["attn_state"] if mask else state["recurrent_state"]
    memory = [part.clone() for part in (memory if isinstance(memory, (tuple, list)) else (memory,))]
    rest = []
    for at in range(STEPS, STEPS + MORE):
        seen = ones[:, : at + 1] if mask else None
        rest.append(layer(x[:, at : at + 1], seen, past_key_values=cache, use_cache=True)[0])
    return y, torch.cat(rest, 1), memory


def record(name: str, layer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All that is compared."""
    x = torch.randn(2, STEPS + MORE, WIDTH, device="cuda")
    weigh = torch.randn(2, STEPS, WIDTH, device="cuda")
    use_exact(True)
    with torch.no_grad():
        y, y_rest, memory = zip(*(continued(layer.eval(), x[b : b + 1]) for b in range(2)), strict=True)
    y, y_rest, memory = torch.cat(y), torch.cat(y_rest), [torch.cat(parts) for parts in zip(*memory, strict=True)]
    now = x[:, :STEPS].clone().requires_grad_()
    again = layer.train()(now)[0]
    (again * weigh).sum().backward()
    print(name, "training pass against inference pass:", (again - y).abs().max().item(), flush=True)
    found = {"x": x, "weigh": weigh, "y": y, "y_rest": y_rest, "gradient.x": now.grad}
    found |= {f"memory.{at}": part for at, part in enumerate(memory)}
    use_exact(False)
    if name == "mesanet":
        with torch.no_grad():
            found["y_kernel"] = layer.eval()(x[:, :STEPS])[0]
            print("kernel against exact solve:", float((found["y_kernel"] - y).abs().max()), flush=True)
    for its, parameter in layer.named_parameters():
        found[f"weight.{its}"], found[f"gradient.weight.{its}"] = parameter, parameter.grad
    return {its: tensor.detach().float().cpu().contiguous().clone() for its, tensor in found.items()}


def main(folder: Path, names: list[str]) -> None:
    """Write one file for each layer, or for those named."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    facts = {
        "source": f"flash-linear-attention {fla.__version__} (MIT), github.com/fla-org/flash-linear-attention",
        "versions": f"torch {torch.__version__}, triton {triton.__version__}",
        "device": torch.cuda.get_device_name(),
        "float32_products": os.environ.get("TRITON_F32_DEFAULT", "tf32"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": str(SEED),
        "script": "tests/goldens/make_fla_family.py",
    }
    for name in names or LAYERS:
        kind, arguments = LAYERS[name]
        torch.manual_seed(SEED)
        tensors = record(name, shake(kind(hidden_size=WIDTH, layer_idx=0, **arguments)))
        path = folder / f"fla_{name}.safetensors"
        save_file(tensors, path, facts | {"arguments": repr(arguments)})
        print(name, path.stat().st_size, "bytes", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
