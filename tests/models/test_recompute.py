"""Recompute, of blocks over layers and of chunks over time: the same gradients, and the memory that it promises."""

import weakref
from typing import get_args

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from tests import contract
from tests.kernels import test_gated_delta, test_mlstm, test_mlstm_sigmoid, test_neural_memory, test_rwkv7
from workbench.cells.states import map_state
from workbench.kernels.backends import Choice
from workbench.kernels.mlstm import mlstm
from workbench.models.layouts import StackConfig

LAYOUTS = {layout.model_fields["kind"].default: layout for layout in get_args(get_args(StackConfig)[0])}
KERNELS = {
    "mlstm": test_mlstm.KERNEL,
    "mlstm_expforget": test_mlstm.EXPFORGET,
    "mlstm_sigmoid": test_mlstm_sigmoid.KERNEL,
    "gated_delta": test_gated_delta.KERNEL,
    "rwkv7": test_rwkv7.KERNEL,
    "neural_memory": test_neural_memory.linear(8),
    "neural_memory_mlp": test_neural_memory.mlp(8),
}
every_layout = pytest.mark.parametrize("kind", LAYOUTS)
every_kernel = pytest.mark.parametrize("kind", KERNELS)
SAME = {"rtol": 1e-12, "atol": 1e-12}
WIDTH, LAYERS, BATCH = 16, 6, 3


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that were made inside and still live, whoever holds them."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run an operation, and count what it makes."""
        tree_map_only(torch.Tensor, lambda x: self.known.setdefault(x.untyped_storage(), True), args)
        result = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.count, result)
        return result

    def count(self, x):
        """Count a tensor's memory once, until it is freed."""
        storage = x.untyped_storage()
        if storage not in self.known:
            self.known[storage] = True
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self.free, storage.nbytes())

    def free(self, size):
        """A tensor's memory has ended."""
        self.bytes -= size


def size(tensors):
    """Bytes of some tensors."""
    return sum(x.nbytes for x in tensors)


def parts(state):
    """The tensors of a state, in order."""
    seen = []
    map_state(lambda x: seen.append(x) or x, state)
    return seen


def stacks(kind, dtype=torch.float64, **options):
    """Two stacks of the same random weights, without and with recompute."""
    made = [LAYOUTS[kind](width=WIDTH, recompute=on, **options).build().to(dtype) for on in (False, True)]
    for plain, again in zip(*(stack.parameters() for stack in made), strict=True):
        plain.data += 0.2 * torch.randn_like(plain)
        again.data.copy_(plain)
    return made


def run(stack, x, before, lengths):
    """Output and state, and gradients of both towards input, weights and the state before."""
    x, before = x.clone().requires_grad_(), map_state(lambda s: s.clone().requires_grad_(s.is_floating_point()), before)
    torch.manual_seed(1)  # of the dropout
    y, state = stack(x, before, lengths=lengths)
    sources = [x, *stack.parameters(), *contract.real(parts(before))]
    total = contract.weigh([y, *contract.real(parts(state))])
    gradients = torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True)
    return y, parts(state), gradients


@every_layout
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_stack_has_the_same_gradients(kind, dropout):
    """From a carried state, in a ragged batch, towards everything."""
    made, x = stacks(kind, layers=3, dropout=dropout), torch.randn(BATCH, 13, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        _, before = made[0].eval()(torch.randn_like(x))
    wanted, got = (run(stack.train(), x, before, torch.tensor([13, 6, 1])) for stack in made)
    assert max(g.abs().max() for g in wanted[2]) > 1e-3
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b, **SAME)


@every_layout
def test_a_block_runs_again_in_the_backward_pass_only(kind):
    counts = []
    for stack in stacks(kind, layers=2):
        runs = []
        for block in stack.blocks:
            block.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        x = torch.randn(BATCH, 5, WIDTH, dtype=torch.float64)
        with torch.no_grad():
            stack(x)
        counts.append([len(runs)])
        y, _ = stack(x)
        counts[-1].append(len(runs))
        y.sum().backward()
        counts[-1].append(len(runs))
    assert counts == [[2, 4, 4], [2, 4, 6]]


@every_layout
@pytest.mark.parametrize("steps", [24, 96])
def test_a_stack_keeps_one_tensor_for_each_block(kind, steps):
    """Its input, to which come the states, the output of the last block and what its norm keeps, and what blocks share.

    With six blocks, 12 to 220 times as much is kept without it, and the peak of a training step is 2.8 to 4.9 times.
    """
    kept, peak = [], []
    for stack in stacks(kind, torch.float32, layers=LAYERS):
        x = torch.randn(BATCH, steps, WIDTH)
        with Live() as live:
            y, state = stack(x)
            kept.append((live.bytes - size(parts(state))) / x.nbytes)
            y.sum().backward()
        peak.append(live.peak / x.nbytes)
    assert LAYERS <= kept[1] < LAYERS + 2.3
    assert kept[0] > 8 * kept[1]
    assert peak[0] > 2 * peak[1]


@every_kernel
@pytest.mark.parametrize("carried", [False, True], ids=["empty", "carried"])
@pytest.mark.parametrize("steps", [1, 15, 70])
def test_a_chunkwise_form_has_the_same_gradients(kind, carried, steps):
    inputs, state = contract.make(KERNELS[kind], steps, carried)
    wanted, got = (
        contract.run(KERNELS[kind], inputs, state, Choice("chunkwise", 4, recompute=on)) for on in (False, True)
    )
    contract.assert_same(got, wanted, **SAME)


def kept_by_everybody(kind, y, inputs):
    """Bytes that are kept in any form: inputs, output, and what the kernel makes of the inputs before it runs."""
    gates, first = 2 * y[..., 0].nbytes, 0  # log f, and what its gradient needs
    if kind == "neural_memory_mlp":
        first = 2 * size(inputs[-2:]) + 16  # the initial weights of each sequence, and their position
    steps = y.shape[0] * y.shape[2]  # a bool for each, whether it is inside its sequence
    made = {"mlstm": gates, "mlstm_sigmoid": gates, "neural_memory": steps, "neural_memory_mlp": steps + first}
    return size(inputs) + y.nbytes + made.get(kind, 0)


@every_kernel
@pytest.mark.parametrize("chunks", [4, 16])
def test_a_chunkwise_form_keeps_the_square_root_of_its_states(kind, chunks):
    """Of N chunks sqrt(N) states, to the byte; without it, 3.8 to 11 times as much is kept in all."""
    kept = []
    for on in (False, True):
        inputs, _ = contract.make(KERNELS[kind], 16 * chunks, carried=False)
        inputs = contract.leaves([x.float() for x in inputs])
        with Live() as live:
            y, state = KERNELS[kind].call(*inputs, backend=Choice("chunkwise", 16, recompute=on))
        kept.append(live.bytes + size(inputs))
    assert kept[0] > 3.5 * kept[1]
    assert kept[1] - kept_by_everybody(kind, y, inputs) == chunks**0.5 * size(parts(state))


def test_both_kinds_work_together():
    """A stack that computes its blocks again, with cells that compute their chunks again."""
    made, x = stacks("xlstm", layers=2, slstm_at=()), torch.randn(BATCH, 37, WIDTH, dtype=torch.float64)
    for block in made[1].blocks:
        block.cell.backend = Choice("chunkwise", 4, recompute=True)
    for block in made[0].blocks:
        block.cell.backend = Choice("chunkwise", 4)
    for a, b in zip(*(run(stack, x, None, None) for stack in made), strict=True):
        assert_close(a, b, **SAME)


@pytest.mark.parametrize("form", ["reference", "parallel"])
def test_only_the_chunkwise_form_recomputes(form):
    inputs, _ = contract.make(KERNELS["mlstm"], 4, carried=False)
    with pytest.raises(ValueError, match=f"recompute=True belongs to the chunkwise form, not to {form!r}"):
        mlstm(*inputs, backend=Choice(form, recompute=True))
