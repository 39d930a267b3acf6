"""The memory of titans-pytorch, computed again: Titans' recurrence for any network that it may train at test time.

Gates, queries, keys and values come from the module's own projections, called once more; so do the norms, the gate and
the projection behind the memory. Between them stands the recurrence of Eqs. 12-18, whose gradient is taken by autograd
through the module's network. With a `MemoryMLP` of one or two layers and `mem_model_norm_add_residual=False` this is
our `neural_memory` and `neural_memory_mlp`.

Its loss is a mean over the V units of a value, and the paper's is a sum: `step_size` here is theirs divided by V, and
`surprise`, the length of the error, is the root of V times their loss. `state_norm` and `surprise_norm` are over all
weights of the network, `state_rank` over its matrices. The memory begins with learned weights.

References:
    Behrouz et al. (2024), Titans: Learning to Memorize at Test Time, arXiv:2501.00663, Eqs. 12-18;
    package titans-pytorch 0.5.5.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from workbench.kernels.observe import STRETCH, size_and_rank
from workbench.shapes import Float, Tensor
from workbench.trace.retold import Retold, accept, title

FOREVER = 2**31 - 1  # steps that share their anchor where batch_size is None
Weights = dict[str, Tensor]  # of a network for each sequence and head, (B, H, ...)
Network = Callable[[Weights, Tensor], Tensor]


class NetworkState(NamedTuple):
    """Memory between steps, each as `Weights`."""

    weights: Weights
    momentum: Weights  # surprise, with momentum: what moves the weights
    anchor: Weights  # weights at which gradients are taken
    position: int  # steps since the anchor was taken


class NetworkGates(NamedTuple):
    """What happened inside, each (B, H, T)."""

    error: Tensor  # length of M(k) - v at the anchor: the root of the loss, Eq. 12
    size: Tensor  # Frobenius norm of all weights
    rank: Tensor  # effective rank of all matrices
    momentum: Tensor  # Frobenius norm of the surprise


def titans(layer: nn.Module) -> Retold:
    """`NeuralMemory` of titans-pytorch, with `chunk_size=1`.

    Larger chunks are another model: their steps share one decay and one momentum, and a query waits for its chunk to
    end. So are other losses, more than one key for each step, momentum of higher order, and changes to the gradient.
    """
    loss = layer.store_memory_loss_fn
    accept(
        layer,
        chunk_size=((layer.retrieve_chunk_size, layer.store_chunk_size), (1, 1)),
        store_memory_loss_fn=(getattr(loss, "__qualname__", repr(loss)), "default_loss_fn"),
        num_kv_per_token=(layer.num_kv_per_token, 1),
        momentum_order=(layer.momentum_order, 1),
        qkv_receives_diff_views=(layer.qkv_receives_diff_views, False),
        store_with_lookahead_value=(layer.store_with_lookahead_value, False),
        max_grad_norm=(layer.max_grad_norm, None),
        spectral_norm_surprises=(layer.spectral_norm_surprises, False),
        learned_momentum_combine=(layer.to_learned_momentum_combine is not None, False),
        per_parameter_lr_modulation=(layer.to_layer_modulation is not None, False),
        accept_weight_residual=(layer.to_learned_weight_residual_mix is not None, False),
        gated_transition=(layer.transition_gate is not None, False),
    )
    refresh = layer.batch_size or FOREVER

    def run(
        seq: Tensor,
        store_seq: Tensor | None = None,
        state: tuple | None = None,
        detach_mem_state: bool = False,
        prev_weights: object = None,
        store_mask: Tensor | None = None,
        return_surprises: bool = False,
        ttt_batch_size: int | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if store_seq is not None or ttt_batch_size not in (None, layer.batch_size):
            name = "ttt_batch_size" if store_seq is None else "store_seq"
            raise ValueError(f"{title(layer)} was called with {name}, and is traced without; make the call without it.")
        seq = seq[:, None] if seq.ndim == 2 else seq
        at = read(layer, seq, store_mask)
        h, _, seen = learn(network_of(layer), at, begin(layer, len(seq), state), refresh)
        return leave(layer, seq, h), quantities(layer, seq, at, h, seen)

    linear = type(layer.memory_model).__name__ == "MemoryMLP" and len(layer.memory_model.weights) == 1
    settings = {"heads": layer.heads, "memory": "linear" if linear else "mlp", "refresh": refresh}
    return Retold("Titans", run, settings, lambda *inputs, **options: True)


def read(layer: nn.Module, seq: Float[Tensor, "B T E"], mask: Tensor | None) -> tuple[Tensor, ...]:
    """What the recurrence needs: q, k, v (B, H, T, D), alpha, eta, theta (B, H, T), from the module's projections."""
    stored = layer.store_norm(seq)
    q = layer.q_norm(layer.split_heads(layer.to_queries(layer.retrieve_norm(seq))))
    k = layer.k_norm(layer.split_kv_heads(layer.to_keys(stored)))
    v = layer.split_kv_heads(layer.to_values(stored))
    shape = (len(seq), layer.heads, seq.shape[1])
    alpha = layer.to_decay_factor(stored).reshape(shape).sigmoid()
    eta = torch.zeros_like(alpha) if layer.to_momentum is None else layer.to_momentum(stored).reshape(shape).sigmoid()
    theta = layer.adaptive_step_transform(layer.to_adaptive_step(stored)).reshape(shape) / v.shape[-1]
    return q, k, v, alpha, eta, theta if mask is None else torch.where(mask[:, None], theta, 0)


def begin(layer: nn.Module, batch: int, state: tuple | None) -> NetworkState:
    """The memory before the first step: the module's learned weights, or what its last call returned."""

    def apart(weights: Iterable[tuple[str, Tensor]]) -> Weights:
        return {name: w.unflatten(0, (batch, layer.heads)) for name, w in weights}

    if state is None:
        first = apart(layer.init_weights(batch).items())
        return NetworkState(first, {name: torch.zeros_like(w) for name, w in first.items()}, first, 0)
    steps, anchor, _, (weights, momentum), _ = state
    weights, anchor = apart(weights.items()), apart(anchor.items())
    momentum = apart((name, s[0]) for name, s in momentum.items())  # of order one, and nothing where momentum=False
    momentum = {name: momentum.get(name, torch.zeros_like(w)) for name, w in weights.items()}
    return NetworkState(weights, momentum, anchor, steps % (layer.batch_size or FOREVER))


def network_of(layer: nn.Module) -> Network:
    """The module's network as a function of its weights and of one input (D,)."""
    return lambda weights, x: functional_call(layer.memory_model, weights, x[None])[0]


def learn(
    network: Network, at: tuple[Tensor, ...], state: NetworkState, refresh: int
) -> tuple[Float[Tensor, "B H T D"], NetworkState, NetworkGates]:
    """Run the recurrence over a sequence, for any network: its answers, what it becomes, and what happened inside.

    Gradients of a span are taken together, for they share their anchor.

    Args:
        network: from weights and an input (D,) to an output (D,).
        at: q, k, v (B, H, T, D), alpha, eta, theta (B, H, T).
        state: memory before the first step.
        refresh: steps that share an anchor, counted from the empty memory.
    """

    def loss(weights: Weights, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        wrong = network(weights, k) - v
        return wrong.square().sum(), wrong  # Eq. 12

    slopes = across(vmap(grad(loss, has_aux=True), in_dims=(None, 0, 0)), 2)
    q, k, v, *gates = at
    steps, found, states, errors = q.shape[2], [], [state], []
    cuts = {*range(0, steps, STRETCH), *range(refresh - state.position, steps, refresh), steps}
    for start, stop in pairwise(sorted(cuts)):
        slope, wrong = slopes(states[-1].anchor, k[:, :, start:stop], v[:, :, start:stop])  # at M_t' of Eq. 16
        errors.append(wrong.norm(dim=-1))
        for t in range(start, stop):
            at_t = {name: g[:, :, t - start] for name, g in slope.items()}
            states.append(move(states[-1], at_t, *(gate[:, :, t] for gate in gates), refresh))
        if stop % STRETCH == 0 or stop == steps:
            found.append(look(network, q[:, :, stop + 1 - len(states) : stop], states[1:], torch.cat(errors, 2)))
            states, errors = states[-1:], []
    h, *seen = (torch.cat(parts, 2) for parts in zip(*found, strict=True))
    return h, states[-1], NetworkGates(*seen)


def move(state: NetworkState, slope: Weights, alpha: Tensor, eta: Tensor, theta: Tensor, refresh: int) -> NetworkState:
    """The memory after one step down a slope; the gates are (B, H)."""
    momentum = {name: like(eta, s) * s - like(theta, s) * slope[name] for name, s in state.momentum.items()}  # Eq. 14
    weights = {name: (1 - like(alpha, w)) * w + momentum[name] for name, w in state.weights.items()}  # Eq. 13
    due = state.position + 1 >= refresh
    return NetworkState(weights, momentum, weights if due else state.anchor, 0 if due else state.position + 1)


def look(
    network: Network, q: Float[Tensor, "B H T D"], states: list[NetworkState], error: Float[Tensor, "B H T"]
) -> tuple[Tensor, ...]:
    """The answers of some steps, and what happened in them, from the states behind them."""
    weights, momentum = (in_time([getattr(state, name) for state in states]) for name in ("weights", "momentum"))
    _, rank = size_and_rank(*(w for w in weights.values() if w.ndim > 4))
    h = across(network, 3)(weights, q)  # Eq. 15
    return h, error, size(weights), rank, size(momentum)


def leave(layer: nn.Module, seq: Float[Tensor, "B T E"], h: Float[Tensor, "B H T D"]) -> Float[Tensor, "B T E"]:
    """The way from the memory's answer to the output of the module."""
    h = layer.multihead_rmsnorm(h)
    if layer.retrieve_gate is not None:
        h = h * layer.retrieve_gate(layer.retrieve_norm(seq))
    return layer.combine_heads(layer.merge_heads(h))


def quantities(
    layer: nn.Module, seq: Tensor, at: tuple[Tensor, ...], h: Tensor, seen: NetworkGates
) -> dict[str, Tensor]:
    """All of it by name (see workbench.trace); the output gate where there is one."""
    q, k, v, alpha, eta, theta = at
    decay = layer.to_decay_factor(layer.store_norm(seq)).reshape(alpha.shape)
    gate = layer.retrieve_gate
    return {
        "forget": 1 - alpha,
        "log_forget": F.logsigmoid(-decay),
        "step_size": theta,
        "momentum": eta,
        "surprise": seen.error,
        "surprise_norm": seen.momentum,
        "state_norm": seen.size,
        "state_rank": seen.rank,
        "query": q,
        "key": k,
        "value": v,
        "hidden": h,
    } | ({} if gate is None else {"output": gate(layer.retrieve_norm(seq))[..., 0]})


def across(function: Callable, axes: int) -> Callable:
    """A function of one network and its inputs as a function of many, their axes first."""
    for _ in range(axes):
        function = vmap(function)
    return function


def like(gate: Float[Tensor, "B H"], weight: Tensor) -> Tensor:
    """A gate of each memory, to multiply one of its weights."""
    return gate.reshape(*gate.shape, *[1] * (weight.ndim - 2))


def in_time(states: list[Weights]) -> Weights:
    """The weights of some moments, side by side (B, H, T, ...)."""
    return {name: torch.stack([weights[name] for weights in states], 2) for name in states[0]}


def size(weights: Weights) -> Float[Tensor, "B H T"]:
    """Frobenius norm of all weights together."""
    return torch.cat([w.flatten(3) for w in weights.values()], -1).norm(dim=-1)
