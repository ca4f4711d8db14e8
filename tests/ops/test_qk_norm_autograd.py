"""Gradients of qk_norm, and torch's transforms: compile, vmap, func."""

from __future__ import annotations

import pytest
import torch
from ops.qk_norm_calls import BF16, DOUBLE, FLOAT, example
from torch import Tensor
from torch.autograd import forward_ad

from suffuse import ops
from suffuse.ops import _dispatch
from suffuse.reference import qk_norm as formula

SHAPE = (2, 3, 2, 1, 6)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotated", [None, 4])
@pytest.mark.parametrize("weights", [False, True])
def test_gradients_and_their_gradients(weights, rotated, interleaved):
    tensors = example(SHAPE, rotated, DOUBLE, weights)
    tables = {name: tensors.pop(name) for name in ("cos", "sin") if rotated is not None}
    leaves = [t.requires_grad_() for t in tensors.values()]

    def function(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return ops.qk_norm(*inputs, **tables, interleaved=interleaved)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_gradients_of_tables():
    leaves = [t.requires_grad_() for t in example(SHAPE, 4, DOUBLE).values()]

    def function(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        *heads, cos, sin = inputs
        return ops.qk_norm(*heads, cos=cos, sin=sin)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("dtype", [FLOAT, BF16, DOUBLE], ids=str)
def test_gradients_of_tables_of_another_dtype(dtype):
    tensors = example(SHAPE, 4, BF16)
    tensors |= {name: tensors[name].to(dtype).requires_grad_() for name in ("cos", "sin")}
    q, k = ops.qk_norm(**tensors)
    grads = torch.autograd.grad(q.sum() + k.sum(), [tensors["cos"], tensors["sin"]])
    assert all(g.dtype == dtype and bool(g[:3].any()) for g in grads)


@pytest.mark.parametrize("wanted", [("q",), ("k",), ("q_weight",), ("q", "k_weight")], ids=str)
def test_gradients_of_some(wanted):
    found = []
    for function in (ops.qk_norm, formula.qk_norm):
        tensors = example(SHAPE, 4, DOUBLE)
        leaves = [tensors[name].requires_grad_() for name in wanted]
        q, k = function(**tensors)
        loss = q.square().sin().sum() + k.square().sin().sum()
        found.append(torch.autograd.grad(loss, leaves))
    torch.testing.assert_close(*found)


def test_one_result_alone():
    tensors = example(SHAPE, 4)
    leaves = [tensors[name].requires_grad_() for name in ("q", "k", "q_weight", "k_weight")]
    q, _ = ops.qk_norm(**tensors)
    grads = torch.autograd.grad(q.sin().sum(), leaves)
    assert grads[0].any() and grads[2].any() and not grads[1].any() and not grads[3].any()


def test_no_graph_where_no_gradient_is_asked_for():
    tensors = example(SHAPE, 4)
    assert ops.qk_norm(**tensors)[0].grad_fn is None
    tensors["q"].requires_grad_()
    with torch.no_grad():
        assert ops.qk_norm(**tensors)[0].grad_fn is None


def test_forward_mode_says_that_it_does_not():
    tensors = example(SHAPE, 4)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(tensors["q"], torch.ones_like(tensors["q"]))
        with pytest.raises(NotImplementedError, match="qk_norm: forward-mode"):
            ops.qk_norm(**{**tensors, "q": dual})


def test_func_grad_and_vmap():
    tensors = example(SHAPE, 4)
    many = torch.randn(4, 2, 3, 2, 6)

    def energy(q: Tensor, k: Tensor, weight: Tensor) -> Tensor:
        q, k = ops.qk_norm(q, k, weight, cos=tensors["cos"], sin=tensors["sin"])
        return (q * torch.arange(6.0)).square().sum() + k.sum()

    k, weight = tensors["k"], tensors["q_weight"]
    mapped = torch.func.vmap(energy, in_dims=(0, None, None))(many, k, weight)
    torch.testing.assert_close(mapped, torch.stack([energy(one, k, weight) for one in many]))
    gradient = torch.func.grad(energy, argnums=(0, 2))
    for got, expected in zip(
        torch.func.vmap(gradient, in_dims=(0, None, None))(many, k, weight),
        zip(*(gradient(one, k, weight) for one in many), strict=True),
        strict=True,
    ):
        torch.testing.assert_close(got, torch.stack(expected))


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend):
    tensors = example(SHAPE, 4)
    leaves = [t.requires_grad_() for name, t in tensors.items() if name not in ("cos", "sin")]

    def model(**given: Tensor) -> Tensor:
        q, k = ops.qk_norm(**{**given, "q": given["q"].sin()})
        return (q * k).sum(-1)

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(**tensors), model(**tensors))
    got, expected = (
        torch.autograd.grad(f(**tensors).square().sum(), leaves) for f in (compiled, model)
    )
    torch.testing.assert_close(got, expected)


def test_reference_runs_with_a_warning_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_dispatch, "_library", type("None", (), {"LOADED": []}))
    monkeypatch.setattr(_dispatch, "_warned", set())
    tensors = example(SHAPE, 4)

    class Elsewhere(torch.Tensor):
        is_cpu = False

    with pytest.warns(UserWarning, match="qk_norm: no kernel for device 'cpu' in this build"):
        got = ops.qk_norm(**{**tensors, "q": tensors["q"].as_subclass(Elsewhere)})
    for a, b in zip(got, formula.qk_norm(**tensors), strict=True):
        assert torch.equal(a.as_subclass(torch.Tensor), b)
