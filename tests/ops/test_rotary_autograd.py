"""Gradients of rotary, and torch's transforms: compile, vmap, func."""

from __future__ import annotations

import pytest
import torch
from ops.rotary_calls import DOUBLE, FLOAT, example, integers
from torch import Tensor
from torch.autograd import forward_ad

from suffuse import ops
from suffuse.ops import _dispatch
from suffuse.reference import rotary as formula


def leaves_of(**shape) -> list[Tensor]:
    tensors = example(**shape, dtype=DOUBLE)
    return [t.clone().requires_grad_() for t in tensors.values()]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_and_their_gradients(inverse, interleaved):
    for own in (False, True):
        leaves = leaves_of(shape=(2, 3, 2, 6), rotated=4, positions=9, own=own)

        def function(*inputs: Tensor) -> Tensor:
            return ops.rotary(
                *inputs, interleaved=interleaved, inverse=inverse, offsets=integers(1, 5)
            )

        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


def test_gradients_of_packed_sequences():
    leaves = leaves_of(shape=(1, 7, 2, 6), positions=9)

    def function(*inputs: Tensor) -> Tensor:
        return ops.rotary(*inputs, cu_seqlens=integers(0, 4, 4, 7), offsets=2)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
def test_gradients_of_some(wanted):
    found = []
    for function in (ops.rotary, formula.rotary):
        tensors = list(example((2, 3, 2, 10), dtype=torch.bfloat16, wide=True).values())
        for i in wanted:
            tensors[i].requires_grad_()
        found.append(
            torch.autograd.grad(function(*tensors).square().sum(), [tensors[i] for i in wanted])
        )
    for got, expected in zip(*found, strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected)


def test_no_graph_where_no_gradient_is_asked_for():
    tensors = example((2, 3, 2, 10))
    assert ops.rotary(**tensors).grad_fn is None
    tensors["x"].requires_grad_()
    with torch.no_grad():
        assert ops.rotary(**tensors).grad_fn is None


@pytest.mark.parametrize("name", ["x", "cos", "sin"])
def test_in_place_has_no_gradient(name):
    tensors = example((2, 3, 2, 10))
    tensors[name].requires_grad_()
    with pytest.raises(ValueError, match=f"rotary_: {name}: expected a tensor without gradient"):
        ops.rotary_(**tensors)
    with torch.no_grad():
        expected = ops.rotary(**tensors)
        assert torch.equal(ops.rotary_(**tensors), expected)


@pytest.mark.parametrize("op", ["rotary", "rotary_"])
def test_forward_mode_says_that_it_does_not(op):
    tensors = example((2, 3, 2, 10))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(tensors["x"], torch.ones_like(tensors["x"]))
        with pytest.raises(NotImplementedError, match="rotary: forward-mode"):
            getattr(ops, op)(**{**tensors, "x": dual})


def test_func_grad_and_vmap():
    tensors = example((2, 3, 2, 10))
    x = torch.randn(4, 2, 3, 2, 10)

    def energy(x: Tensor, cos: Tensor) -> Tensor:
        out = ops.rotary(x, cos, tensors["sin"])
        return (out * torch.arange(10.0)).square().sum()

    plain = torch.stack([ops.rotary(one, tensors["cos"], tensors["sin"]) for one in x])
    mapped = torch.func.vmap(lambda one: ops.rotary(one, tensors["cos"], tensors["sin"]))(x)
    torch.testing.assert_close(mapped, plain)
    last = torch.func.vmap(
        lambda one: ops.rotary(one, tensors["cos"], tensors["sin"]), in_dims=4, out_dims=4
    )(x.movedim(0, 4))
    torch.testing.assert_close(last.movedim(4, 0), plain)
    gradients = torch.func.vmap(torch.func.grad(energy), in_dims=(0, None))(x, tensors["cos"])
    for one, got in zip(x, gradients, strict=True):
        leaf = one.clone().requires_grad_()
        expected = torch.autograd.grad(energy(leaf, tensors["cos"]), leaf)[0]
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend):
    tensors = example((2, 3, 2, 10), positions=30)

    def model(x: Tensor, cos: Tensor, sin: Tensor, offset: int) -> Tensor:
        return ops.rotary(x.sin(), cos, sin, offsets=offset).cos()

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    x, cos, sin = (t.requires_grad_() for t in tensors.values())
    for offset in (0, 5, 11, 12):
        torch.testing.assert_close(compiled(x, cos, sin, offset), model(x, cos, sin, offset))
    got, expected = (
        torch.autograd.grad(f(x, cos, sin, 3).square().sum(), (x, cos, sin))
        for f in (compiled, model)
    )
    torch.testing.assert_close(got, expected)


def test_positions_that_change_do_not_compile_again():
    tensors = example((1, 1, 2, 10), positions=40)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(ops.rotary, fullgraph=True, backend=counter)
    for offset in range(2, 12):
        compiled(**tensors, offsets=offset)
    assert counter.frame_count <= 2  # the first position, and all others


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_in_place_compiles_without_a_graph_break(backend):
    tensors = example((2, 3, 2, 10), positions=9)

    def model(cache: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ops.rotary_(cache[:, 1:4], cos, sin, offsets=1)
        return cache.sum(1)

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    first = torch.randn(2, 6, 2, 10)
    second = first.clone()
    got = compiled(first, tensors["cos"], tensors["sin"])
    torch.testing.assert_close(got, model(second, tensors["cos"], tensors["sin"]))
    torch.testing.assert_close(first, second)


def test_reference_runs_with_a_warning_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_dispatch, "_library", type("None", (), {"LOADED": []}))
    monkeypatch.setattr(_dispatch, "_warned", set())
    tensors = example((2, 3, 2, 10), dtype=FLOAT)

    class Elsewhere(torch.Tensor):
        is_cpu = False

    x = tensors["x"].as_subclass(Elsewhere)
    with pytest.warns(UserWarning, match="rotary: no kernel for device 'cpu' in this build"):
        got = ops.rotary(x, tensors["cos"], tensors["sin"])
    expected = formula.rotary(**tensors)
    assert torch.equal(got.as_subclass(torch.Tensor), expected)
    ops.rotary_(x, tensors["cos"], tensors["sin"])
    assert torch.equal(tensors["x"], expected)
