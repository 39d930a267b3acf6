"""Titans' neural memory with two layers: what is peculiar to it. Its contract is in test_neural_memory.py."""

import torch
from torch.testing import assert_close

from tests import contract
from tests.kernels.test_neural_memory import B, F, H, K, V, both_forms, make_inputs_mlp, mlp
from workbench.kernels.backends import Choice
from workbench.kernels.neural_memory import first_state, neural_memory_mlp, neural_memory_mlp_gates
from workbench.kernels.neural_memory.mlp_reference import gradients, slope


def test_gradients_are_those_of_the_loss():
    g = torch.Generator().manual_seed(0)
    k, v, w1, w2 = (torch.randn(B, H, *size, generator=g, dtype=torch.float64) for size in ((K,), (V,), (F, K), (V, F)))
    w1, w2 = w1.requires_grad_(), w2.requires_grad_()
    answer = torch.einsum("bhvf,bhf->bhv", w2, torch.nn.functional.gelu(torch.einsum("bhfk,bhk->bhf", w1, k)))
    wanted = torch.autograd.grad((answer - v).square().sum(), (w1, w2))
    u1, u2, error = gradients(k, v, w1, w2)
    assert_close((u1, u2), wanted, **contract.TIGHT)
    assert_close(error, answer - v)


def test_slope_is_the_derivative_of_the_gelu():
    h = torch.linspace(-40, 40, 801).double().requires_grad_()
    (wanted,) = torch.autograd.grad(torch.nn.functional.gelu(h).sum(), h)
    assert_close(slope(h), wanted, rtol=1e-13, atol=1e-13)


def test_slope_is_finite_everywhere():
    h = torch.tensor([-1e30, -200.0, 0.0, 200.0, 1e30], requires_grad=True)
    (bend,) = torch.autograd.grad(slope(h).sum(), h)
    assert_close(slope(h).detach(), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    assert bend.isfinite().all()


@both_forms
def test_gradcheck_towards_the_initial_weights(form):
    *inputs, w1, w2 = make_inputs_mlp(torch.Generator().manual_seed(1), 3)

    def flat(w1, w2):
        y, state = neural_memory_mlp(*inputs, w1, w2, refresh=2, backend=form)
        return y, *contract.real(state)

    assert torch.autograd.gradcheck(flat, contract.leaves([w1, w2]))


@both_forms
def test_empty_memory_is_the_initial_weights(form):
    inputs = make_inputs_mlp(torch.Generator().manual_seed(2), 9)
    got = neural_memory_mlp(*inputs, refresh=4, backend=form)
    wanted = neural_memory_mlp(*inputs, first_state(*inputs[-2:], B), refresh=4, backend=form)
    assert_close(got, wanted, rtol=0, atol=0)


@both_forms
def test_without_steps_it_is_the_network(form):
    q, k, v, alpha, eta, theta, w1, w2 = make_inputs_mlp(torch.Generator().manual_seed(3), 9)
    y, state = neural_memory_mlp(q, k, v, 0 * alpha, eta, 0 * theta, w1, w2, refresh=4, backend=form)
    wanted = torch.nn.functional.gelu(q @ w1.mT) @ w2.mT
    assert_close(y, wanted, **contract.TIGHT)
    assert_close(state.w1, w1.expand_as(state.w1))


@both_forms
def test_it_learns_to_answer(form):
    """One pair, shown again and again, comes back as its value."""
    g = torch.Generator().manual_seed(4)
    _, k, v, *_, w1, w2 = make_inputs_mlp(g, 1)
    k, v = k.expand(-1, -1, 400, -1), v.expand(-1, -1, 400, -1)
    gates = (torch.full((B, H, 400), value, dtype=torch.float64) for value in (0.0, 0.5, 0.05))
    y, _ = neural_memory_mlp(k, k, v, *gates, w1, w2, backend=form)
    assert_close(y[:, :, -1], v[:, :, -1], rtol=0, atol=1e-6)


def test_gates_are_those_of_the_run():
    inputs, state = contract.make(mlp(4), 9, carried=True)
    y, last, gates = neural_memory_mlp_gates(*inputs[:6], state, refresh=4)
    wanted, _ = neural_memory_mlp(*inputs, state, refresh=4, backend="reference")
    assert_close(y, wanted, rtol=0, atol=0)
    for size, layers in ((gates.size, (last.w1, last.w2)), (gates.momentum, (last.s1, last.s2))):
        assert_close(size[:, :, -1].square(), sum(w.square().sum((-1, -2)) for w in layers))
    *_, error = gradients(inputs[1][:, :, 0], inputs[2][:, :, 0], state.anchor1, state.anchor2)
    assert_close(gates.error[:, :, 0], error.norm(dim=-1))


def test_state_is_the_same_for_any_chunk():
    """Chunks divide the span, whatever was asked for."""
    inputs, state = contract.make(mlp(6), 11, carried=True)
    wanted = contract.run(mlp(6), inputs, state, "reference")
    for size in (1, 2, 4, 5, 100):
        got = contract.run(mlp(6), inputs, state, Choice("chunkwise", size))
        contract.assert_same(got, wanted, **contract.TIGHT)
