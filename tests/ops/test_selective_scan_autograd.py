"""selective_scan under autograd, torch.func, torch.compile and torch.library's own checks."""

from __future__ import annotations

import pytest
import torch
from selective_scan_inputs import Shape, make

from suffuse import ops

SMALL = Shape(2, 3, 5, 2)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("shape", [SMALL, Shape(1, 4, 4, 2, G=2, constant_B=True)], ids=str)
def test_gradcheck(shape, reverse):
    tensors = make(shape, torch.float64)
    names = list(tensors)
    index = torch.tensor([0, 0, 1, 1, 1][: shape.L], dtype=torch.int32).expand(shape.B, -1)

    def function(*values):
        return ops.selective_scan(
            **dict(zip(names, values, strict=True)), delta_softplus=True, return_last_state=True, seq_idx=index,
            reverse=reverse,
        )  # fmt: skip

    leaves = [x.requires_grad_() for x in tensors.values()]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_gradient_of_the_last_state_alone():
    tensors = make(SMALL, torch.float64)
    u = tensors.pop("u").requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: ops.selective_scan(x, **tensors, delta_softplus=True, return_last_state=True)[1],
        u,
    )


def test_opcheck():
    t = make(SMALL, torch.float32)
    index = torch.zeros(2, 5, dtype=torch.int32)
    rows = [t[n] for n in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    arguments = (*rows, t["initial_state"], index, True, False, True)
    torch.library.opcheck(torch.ops.suffuse.selective_scan_fwd.default, arguments)
    out, last, states, ungated = torch.ops.suffuse.selective_scan_fwd(*arguments)
    backward = (out, last, *rows, index, states, ungated, True, False)
    torch.library.opcheck(torch.ops.suffuse.selective_scan_bwd.default, backward)


def test_compile_without_a_graph_break():
    tensors = make(Shape(1, 16, 20, 4), torch.float32)
    u = tensors.pop("u").requires_grad_()

    def loss(x):
        return ops.selective_scan(x, **tensors, delta_softplus=True).square().sum()

    (expected,) = torch.autograd.grad(loss(u), u)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(u), u)
    assert torch.equal(got, expected)


def test_functional_gradient():
    tensors = make(SMALL, torch.float64)
    u = tensors.pop("u")
    got = torch.func.grad(
        lambda x: ops.selective_scan(x, **tensors, delta_softplus=True).sin().sum()
    )(u)
    leaf = u.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        ops.selective_scan(leaf, **tensors, delta_softplus=True).sin().sum(), leaf
    )
    assert torch.equal(got, expected)


def test_forward_mode_is_refused():
    tensors = make(SMALL, torch.float64)
    u = tensors.pop("u")
    with pytest.raises(NotImplementedError):
        torch.func.jvp(lambda x: ops.selective_scan(x, **tensors), (u,), (u,))
