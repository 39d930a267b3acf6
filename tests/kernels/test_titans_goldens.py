"""Neural memory equals that of titans-pytorch: answers, weights, momentum and anchors, gradients, and a cut.

Both are in float64. The definitions agree with one head, without norms and residual around the memory network, and
with `chunk_size=1`: gates of each step, a query answered after its own step, decay towards zero and not towards the
first weights, gradients at weights taken anew every `batch_size` steps, counted across calls (our `refresh`).

They do not agree in the loss, which is a mean over the V units of a value there and a sum in the paper and here: their
step size is V times ours. With `chunk_size` above 1 theirs is another model, in which the steps of a chunk share one
decay and one momentum and a query waits for its chunk to end; nothing here is that. Convolution, normalised keys and
the gate on the way out are in our layer alone.
"""

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from tests.contract import TIGHT, leaves, real
from workbench.kernels.backends import Choice
from workbench.kernels.neural_memory import NeuralMemoryState, neural_memory, neural_memory_mlp

STEPS, WIDTH = 22, 8
FORMS = {"reference": "reference", "chunkwise": "chunkwise", "chunks-of-4": Choice("chunkwise", chunk_size=4)}
every_case = pytest.mark.parametrize("case", [f"layers{n}.refresh{r}" for n in (1, 2) for r in (1, 5)])
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
INPUTS = ("q", "k", "v", "alpha", "eta", "theta")


@pytest.fixture
def golden(root, case):
    """The tensors of one case, and the largest step size."""
    with safe_open(root / "tests" / "goldens" / "titans_pytorch.safetensors", "pt") as file:
        assert "titans-pytorch" in file.metadata()["source"]
        names = [name for name in file.keys() if name.startswith(case)]  # noqa: SIM118  (not a dict)
        tensors = {name.removeprefix(f"{case}."): file.get_tensor(name) for name in names}
        return tensors, float(file.metadata()["largest_step"])


def gates(tensors, largest):
    """What our kernel takes of theirs: heads of one, sigmoids, and steps of a loss that is a sum."""
    q, k, v, *preactivations = (tensors[name][:, None] for name in INPUTS)
    alpha, eta, theta = (x.sigmoid() for x in preactivations)
    return q, k, v, alpha, eta, largest / WIDTH * theta


def run(case, inputs, weights, form, state=None):
    """Our kernel on their first weights, which they keep with inputs first; ours with one matrix does too."""
    refresh = int(case[-1])
    if len(weights) == 2:
        return neural_memory_mlp(*inputs, *(w.mT for w in weights), state, refresh=refresh, backend=form)
    if state is None:
        first = weights[0].expand(len(inputs[0]), -1, -1, -1)
        zero = torch.zeros(len(first), dtype=torch.int64)
        state = NeuralMemoryState(first, torch.zeros_like(first), first, zero)
    return neural_memory(*inputs, state, refresh=refresh, backend=form)


def theirs(tensors, name):
    """One kind of weights of theirs, in our shapes."""
    found = [tensors[key][:, None] for key in (f"{name}0", f"{name}1") if key in tensors]
    return [w.mT for w in found] if len(found) == 2 else found


def first_weights(tensors):
    """Weights before the first step, as they keep them (1, in, out)."""
    return [tensors[key] for key in ("w0", "w1") if key in tensors]


@every_case
@every_form
def test_answers_weights_momentum_and_anchors(case, form, golden):
    tensors, largest = golden
    inputs = [x[:, :, :STEPS] for x in gates(tensors, largest)]
    y, state = run(case, inputs, first_weights(tensors), form)
    assert_close(y[:, 0], tensors["y"], **TIGHT)
    wanted = [w for name in ("last", "momentum", "anchor") for w in theirs(tensors, name)]
    assert_close(list(state[:-1]), wanted, **TIGHT)
    assert (state.position == STEPS % int(case[-1])).all()


@every_case
@every_form
def test_a_stream_goes_on_in_the_middle_of_a_span(case, form, golden):
    tensors, largest = golden
    inputs = gates(tensors, largest)
    _, state = run(case, [x[:, :, :STEPS] for x in inputs], first_weights(tensors), form)
    y, _ = run(case, [x[:, :, STEPS:] for x in inputs], first_weights(tensors), form, state)
    assert_close(y[:, 0], tensors["y_rest"], **TIGHT)


@every_case
@every_form
def test_gradients(case, form, golden):
    """Towards queries, keys, values, the gates before their sigmoids, and the first weights."""
    tensors, largest = golden
    cut = dict(zip(INPUTS, leaves(tensors[name][:, :STEPS] for name in INPUTS), strict=True))
    weights = leaves(first_weights(tensors))
    y, state = run(case, gates(cut, largest), weights, form)
    moved = real(state)[: 2 * len(weights)]
    total = (y[:, 0] * tensors["weigh"]).sum() + sum(x.square().sum() for x in moved)
    found = torch.autograd.grad(total, [*cut.values(), *weights])
    names = [*INPUTS, *(f"w{at}" for at in range(len(weights)))]
    for name, gradient in zip(names, found, strict=True):
        assert_close(gradient, tensors[f"gradient.{name}"], **TIGHT, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", ["layers2.refresh5"])
def test_a_loss_that_is_a_sum_is_another_memory(case, golden):
    """Without the division by V nothing would agree: the goldens can tell."""
    tensors, largest = golden
    inputs = [x[:, :, :STEPS] for x in gates(tensors, largest * WIDTH)]
    y, _ = run(case, inputs, first_weights(tensors), "reference")
    assert (y[:, 0] - tensors["y"]).abs().max() > 0.1
