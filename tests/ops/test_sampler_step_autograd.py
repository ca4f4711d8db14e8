"""Gradients of sampler_step, and torch's transforms: compile, vmap, func, autocast."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
import torch
from sampler_step_calls import BF16, DOUBLE, FLOAT, HALF, check, example
from torch import Tensor

from suffuse.ops import sampler_step as public
from suffuse.ops import step_coefficients
from suffuse.reference import sampler_step as formula

NAMES = ("x", "model0", "model1", "history", "anchor", "extra", "noise", "table")


def differentiable(per_sample: bool, **options: Any):
    """A function of all tensors of a small float64 call, and the tensors."""
    made = isinstance(options.get("noise"), tuple)
    operands = ("anchor", "extra") if made else ("anchor", "extra", "noise")
    x, models, table, kwargs = example(
        (2, 3), DOUBLE, outputs=2, history=1, operands=operands, per_sample=per_sample,
        next_input=DOUBLE, **options,
    )  # fmt: skip
    tensors = [x, *models, *kwargs["history"], *(kwargs[name] for name in operands), table]
    used = (table != 0).to(DOUBLE)  # numerical differences must not touch what has no operand

    def function(x, first, second, history, anchor, extra, *rest):
        noise = {} if made else {"noise": rest[0]}
        options_ = kwargs | {"history": [history], "anchor": anchor, "extra": extra} | noise
        return tuple(public(x, [first, second], rest[-1] * used, **options_))

    return function, [t.requires_grad_() for t in tensors]


OPTIONS = {
    "clip": {"clip": 1.0},
    "no clip": {"clip": 50.0},
    "threshold": {"clip": 50.0, "threshold": (0.7, 4.0)},
    "made noise": {"noise": (3, 4)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("per_sample", [True, False])
def test_gradients_and_their_gradients(per_sample: bool, options: dict[str, Any]):
    function, tensors = differentiable(per_sample, **options)
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("dtype", [FLOAT, BF16, HALF])
def test_gradients_equal_the_references(dtype: torch.dtype):
    x, models, table, kwargs = example((3, 50), dtype, outputs=2, history=2, operands=("noise",))
    leaves = [x, *models, *kwargs["history"], kwargs["noise"], table.float()]
    found = []
    for step in (public, formula.sampler_step):
        variables = [t.detach().clone().requires_grad_() for t in leaves]
        options = {"history": variables[3:5], "noise": variables[5], "next_input": FLOAT}
        sample, other, following = step(variables[0], variables[1:3], variables[6], **options)
        loss = sample.float().square().mean() + other.float().sum() + following.square().sum()
        found.append(torch.autograd.grad(loss, variables))
    for got, expected, leaf in zip(*found, leaves, strict=True):
        assert got.dtype == leaf.dtype
        torch.testing.assert_close(got, expected, rtol=1e-2 if dtype != FLOAT else 1e-5, atol=1e-5)


def test_gradient_for_one_operand_only():
    x, models, table, kwargs = example((2, 3))
    models[0].requires_grad_()
    step = public(x, models, table, **kwargs)
    (grad,) = torch.autograd.grad(step.sample.sum(), models[0])
    assert grad.shape == x.shape and bool((grad != 0).any())


def test_no_graph_where_no_gradient_is_asked_for():
    x, models, table, kwargs = example((2, 3))
    assert public(x, models, table, **kwargs).sample.grad_fn is None
    x.requires_grad_()
    with torch.no_grad():
        assert public(x, models, table, **kwargs).sample.grad_fn is None


def test_func_grad_and_jacrev():
    function, tensors = differentiable(True)
    tensors = [t.detach() for t in tensors]

    def loss(*args: Tensor) -> Tensor:
        return sum((out.square().sum() for out in function(*args)), torch.zeros((), dtype=DOUBLE))

    got = torch.func.grad(loss, argnums=tuple(range(len(tensors))))(*tensors)
    leaves = [t.clone().requires_grad_() for t in tensors]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    for g, e, name in zip(got, expected, NAMES, strict=True):
        torch.testing.assert_close(g, e, msg=name)
    jacobian = torch.func.jacrev(lambda x: function(x, *tensors[1:])[0])(tensors[0])
    assert jacobian.shape == (2, 3, 2, 3)


@pytest.mark.parametrize("options", [{}, {"noise": (3, 4)}, {"threshold": (0.8, 2.0)}])
@pytest.mark.parametrize("batched_table", [True, False])
def test_vmap(options: dict[str, Any], batched_table: bool):
    _, models, table, kwargs = example((2, 5), outputs=2, history=1, **options)
    xs, firsts = torch.randn(3, 2, 5), torch.randn(2, 5, 3)
    tables = torch.stack([table, table, table]) if batched_table else table
    if batched_table:
        tables[:, formula.X] = torch.tensor([0.1, 0.2, 0.3])

    def step(x: Tensor, first: Tensor, table: Tensor) -> Tensor:
        return public(x, [first, models[1]], table, **kwargs).sample

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = torch.func.vmap(step, in_dims=(0, 2, 0 if batched_table else None))(
            xs, firsts, tables
        )
        gradient = torch.func.vmap(torch.func.grad(lambda x, f: step(x, f, table).sum()), (0, 2))(
            xs, firsts
        )
    for i in range(3):
        row = tables[i] if batched_table else table
        assert torch.equal(got[i], step(xs[i], firsts[..., i], row))
    assert gradient.shape == xs.shape


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend: str):
    table = step_coefficients(
        x=0.5, data=0.4, noise=0.3, data_from_x=1.0, data_from_model=-0.5, guidance=(2.0, -1.0)
    )

    def model(x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        step = public(x.sin(), [first, second], table, noise=(3, 4), next_input=BF16)
        return tuple(t for t in step if t is not None)

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    x, first, second = torch.randn(3, 2, 40).unbind()
    for got, expected in zip(compiled(x, first, second), model(x, first, second), strict=True):
        torch.testing.assert_close(got, expected)
    x.requires_grad_()
    first.requires_grad_()
    grads = [
        torch.autograd.grad(f(x, first, second)[0].square().sum(), (x, first))
        for f in (compiled, model)
    ]
    for got, expected in zip(*grads, strict=True):
        torch.testing.assert_close(got, expected)


def test_autocast_leaves_the_types():
    call = example((2, 30), FLOAT, BF16)
    expected = check(*call)
    with torch.autocast("cpu", dtype=BF16):
        step = public(*call[:2], call[2].float(), **call[3])
    assert step.sample.dtype == FLOAT and torch.equal(step.sample, expected.sample)


def test_reference_runs_with_a_warning_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch):
    module = importlib.import_module("suffuse.ops.sampler_step")  # its function hides its name
    monkeypatch.setattr(module, "_has_kernel", lambda x: False)
    x, models, table, kwargs = example((2, 30), history=1, noise=(3, 4), next_input=BF16)
    with pytest.warns(UserWarning, match="sampler_step has no kernel for cpu tensors"):
        got = public(x, models, table, **kwargs)
    expected = formula.sampler_step(x, models, table, **kwargs)
    for g, e in zip(got, expected, strict=True):
        assert g is not None and e is not None and torch.equal(g, e)
