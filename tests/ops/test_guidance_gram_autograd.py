"""Gradients of guidance_gram, and torch's transforms: compile, vmap, func."""

from __future__ import annotations

import importlib

import pytest
import torch
from guidance_gram_calls import BF16, DOUBLE, FLOAT, HALF, example
from torch import Tensor

from suffuse.ops import guidance_gram
from suffuse.reference import guidance_gram as formula


@pytest.mark.parametrize("center", [True, False])
def test_gradients_and_their_gradients(center: bool):
    tensors = [t.requires_grad_() for t in example((2, 3), DOUBLE, 3)]

    def function(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(guidance_gram(inputs, center=center))  # type: ignore[return-value]

    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("dtype", [FLOAT, BF16, HALF])
def test_gradients_equal_the_references(dtype: torch.dtype):
    found = []
    tensors = example((3, 50), dtype, 2)
    for function in (guidance_gram, formula.guidance_gram):
        leaves = [t.clone().requires_grad_() for t in tensors]
        gram, means = function(leaves, center=True)
        found.append(torch.autograd.grad(gram.square().sum().sqrt() + means.sum(), leaves))
    for got, expected in zip(*found, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected)


def test_gradient_for_one_tensor_only():
    first, second = example((2, 3))
    first.requires_grad_()
    (grad,) = torch.autograd.grad(guidance_gram([first, second]).gram[:, 0, 1].sum(), first)
    torch.testing.assert_close(grad, second)


def test_no_graph_where_no_gradient_is_asked_for():
    first, second = example((2, 3))
    assert guidance_gram([first, second]).gram.grad_fn is None
    first.requires_grad_()
    with torch.no_grad():
        assert guidance_gram([first, second]).gram.grad_fn is None


def test_func_grad_and_vmap():
    first, second = torch.randn(3, 2, 5), torch.randn(2, 5)

    def length(a: Tensor, b: Tensor) -> Tensor:
        return guidance_gram([a, b]).gram[:, 0, 1].sum()

    got = torch.func.vmap(length, in_dims=(0, None))(first, second)
    torch.testing.assert_close(got, (first * second).sum((1, 2)).double())
    torch.testing.assert_close(torch.func.grad(length)(first[0], second), second)
    gradients = torch.func.vmap(torch.func.grad(length), in_dims=(0, None))(first, second)
    torch.testing.assert_close(gradients, second.expand(3, 2, 5))
    last = torch.func.vmap(lambda a: guidance_gram([a, second]).means, in_dims=2)
    torch.testing.assert_close(last(first.movedim(0, 2))[:, :, 0], first.mean(2).double())


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend: str):
    def model(first: Tensor, second: Tensor) -> Tensor:
        gram, means = guidance_gram([first.sin(), second], center=True)
        return gram[:, 0, 1] / gram[:, 1, 1] + means[:, 0]

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    first, second = example((2, 40))
    torch.testing.assert_close(compiled(first, second), model(first, second))
    first.requires_grad_()
    got, expected = (
        torch.autograd.grad(f(first, second).square().sum(), first)[0] for f in (compiled, model)
    )
    torch.testing.assert_close(got, expected)


def test_reference_runs_with_a_warning_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch):
    module = importlib.import_module("suffuse.ops.guidance_gram")  # its function hides its name
    monkeypatch.setattr(module, "_has_kernel", lambda t: False)
    tensors = example((2, 30))
    with pytest.warns(UserWarning, match="guidance_gram has no kernel for cpu tensors"):
        got = guidance_gram(tensors)
    for g, e in zip(got, formula.guidance_gram(tensors), strict=True):
        assert torch.equal(g, e)
