"""Makes the goldens of titans-pytorch's neural memory. Needs torch and titans-pytorch, no GPU.

    python tests/goldens/make_titans_pytorch.py FOLDER

Its memory is ours where its additions are off: no norms, no residual around the memory network, one head, and
`chunk_size=1`, with which gates belong to steps and a query is answered after its own step is written. Its
`batch_size` is then our `refresh`. One thing stays different, and the test undoes it: its loss is the mean over the
units of a value, not the sum, which divides step sizes by their number.

The cases, one or two layers and a batch size of 1 or 5, hold in float64: queries, keys, values and gates before their
sigmoids, the weights before the first step; answers of one pass and of a continued one, weights, momentum and anchor
in between, in the middle of a span of 5; and gradients of sum(y * weigh) plus the sum of squares of weights and
momentum, towards all of these inputs.
"""

import datetime
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from titans_pytorch import MemoryMLP, NeuralMemory

STEPS, MORE, WIDTH, LARGEST, SEED = 22, 4, 8, 0.2, 20261126
PARTS = {  # our name: theirs, and the axis of the steps in what it returns
    "q": ("to_queries", 1),
    "k": ("to_keys", 1),
    "v": ("to_values", 1),
    "alpha": ("to_decay_factor", 1),
    "eta": ("to_momentum", 2),
    "theta": ("to_adaptive_step", 1),
}


def make(depth: int, batch_size: int) -> NeuralMemory:
    """A memory without additions that forgets slowly, with gates that differ between steps."""
    memory = NeuralMemory(
        dim=WIDTH,
        chunk_size=1,
        batch_size=batch_size,
        model=MemoryMLP(WIDTH, depth=depth, expansion_factor=2.0),
        pre_rmsnorm=False,
        mem_model_norm_add_residual=False,
        default_step_transform_max_lr=LARGEST,
        init_decay_bias=-3.0,
        init_momentum_bias=0.5,
    ).double()
    for theirs, _ in PARTS.values():
        for parameter in getattr(memory, theirs).parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return memory


def listen(memory: NeuralMemory) -> dict[str, list[torch.Tensor]]:
    """What its projections return, in the pieces in which it calls them."""
    seen = {name: [] for name in PARTS}
    for name, (theirs, _) in PARTS.items():
        getattr(memory, theirs).register_forward_hook(lambda _, __, y, name=name: seen[name].append(y))
    return seen


def join(name: str, pieces: list[torch.Tensor]) -> torch.Tensor:
    """Pieces of a sequence in a row (B, T) or (B, T, D); the query that it puts before the first step is dropped."""
    whole = torch.cat([piece.detach() for piece in pieces], PARTS[name][1])
    if name == "q":
        return whole[:, 1:]
    return whole if name in "kv" else whole.reshape(len(pieces[0]) if name != "eta" else whole.shape[1], -1)


def record(depth: int, batch_size: int) -> dict[str, torch.Tensor]:
    """One pass with its gradients, and a few steps more from the state that it left."""
    memory = make(depth, batch_size)
    first = list(memory.memory_model_parameters)
    x = torch.randn(2, STEPS + MORE, WIDTH, dtype=torch.float64)
    weigh = torch.randn(2, STEPS, WIDTH, dtype=torch.float64)
    seen = listen(memory)
    y, state = memory(x[:, :STEPS])
    last, momentum = ([*part.values()] for part in state.states)
    momentum = [s[0] for s in momentum]  # of order one
    total = (y * weigh).sum() + sum(w.square().sum() for w in last + momentum)
    pieces = [piece for parts in seen.values() for piece in parts]
    gradients = list(torch.autograd.grad(total, [*pieces, *first]))
    found = {"y": y, "weigh": weigh}
    for name, parts in seen.items():
        now, gradients = gradients[: len(parts)], gradients[len(parts) :]
        found |= {f"gradient.{name}": join(name, now)}
    found |= {f"gradient.w{at}": g for at, g in enumerate(gradients)}
    for name, values in (("w", first), ("last", last), ("momentum", momentum), ("anchor", [*state.weights.values()])):
        found |= {f"{name}{at}": value for at, value in enumerate(values)}
    found["y_rest"], _ = memory(x[:, STEPS:], state=state)
    queries = [seen["q"][0], *(piece[:, 1:] for piece in seen["q"][1:])]  # each call puts one before its first step
    found |= {name: join(name, queries if name == "q" else parts) for name, parts in seen.items()}
    return {name: tensor.detach().contiguous().clone() for name, tensor in found.items()}


def main(folder: Path) -> None:
    """Write one file."""
    torch.manual_seed(SEED)
    made = {}
    for layers in (1, 2):
        for refresh in (1, 5):
            case = record(layers, refresh)
            print(layers, refresh, "last answer", float(case["y_rest"].abs().max()), flush=True)
            made |= {f"layers{layers}.refresh{refresh}.{name}": tensor for name, tensor in case.items()}
    provenance = {
        "source": f"titans-pytorch {version('titans-pytorch')} (MIT), github.com/lucidrains/titans-pytorch",
        "versions": f"torch {torch.__version__}, assoc-scan {version('assoc-scan')}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": str(SEED),
        "largest_step": str(LARGEST),
        "script": "tests/goldens/make_titans_pytorch.py",
    }
    path = folder / "titans_pytorch.safetensors"
    save_file(made, path, provenance)
    print(path.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
