"""causal_conv1d in torch: derivatives, opcheck, compilation, refused calls."""

from __future__ import annotations

import re

import pytest
import torch
from ops.causal_conv1d_calls import channels_last, example

from suffuse import ops


@pytest.mark.parametrize("activation", [None, "silu"])
def test_gradcheck(activation):
    tensors = example((2, 3, 5, 3), torch.float64)
    index = torch.tensor([0, 0, 1, 1, -1], dtype=torch.int32).expand(2, -1)

    def function(*values):
        named = dict(zip(tensors, values, strict=True))
        return ops.causal_conv1d(
            **named, activation=activation, seq_idx=index, return_final_state=True
        )

    leaves = [x.requires_grad_() for x in tensors.values()]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("last", [False, True], ids=["steps_adjacent", "channels_adjacent"])
def test_opcheck(last):
    t = example((2, 6, 5, 3), torch.float32)
    x = (channels_last(t) if last else t)["x"]
    index = torch.zeros(2, 5, dtype=torch.int32)
    arguments = (x, t["weight"], t["bias"], t["initial_state"], index, True)
    torch.library.opcheck(torch.ops.suffuse.causal_conv1d_fwd.default, arguments)
    torch.library.opcheck(torch.ops.suffuse.causal_conv1d_bwd.default, (x, *arguments))


def test_compile_without_a_graph_break():
    tensors = example((1, 16, 20, 4), torch.float32)
    x = tensors.pop("x").requires_grad_()

    def loss(x):
        return ops.causal_conv1d(x, **tensors, activation="silu").square().sum()

    (expected,) = torch.autograd.grad(loss(x), x)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), x)
    assert torch.equal(got, expected)


def test_forward_mode_is_refused():
    tensors = example((1, 2, 5, 3), torch.float64)
    x = tensors.pop("x")
    with pytest.raises(NotImplementedError, match="causal_conv1d: forward-mode"):
        torch.func.jvp(lambda x: ops.causal_conv1d(x, **tensors), (x,), (x,))


F64 = torch.float64
WRONG = {
    "x_rank": ("x", torch.zeros(6, 5), RuntimeError, "[B, D, L]", "(6, 5)"),
    "x_dtype": (
        "x",
        torch.zeros(2, 6, 5, dtype=torch.int64),
        RuntimeError,
        "float64, float32",
        "Long",
    ),
    "x_kind": ("x", None, TypeError, "a tensor", "NoneType"),
    "weight_rank": ("weight", torch.zeros(6, 1, 3), RuntimeError, "[D, W]", "(6, 1, 3)"),
    "weight_channels": ("weight", torch.zeros(5, 3), RuntimeError, "(6, 3)", "(5, 3)"),
    "weight_width": ("weight", torch.zeros(6, 0), RuntimeError, "1 or more", "(6, 0)"),
    "bias_shape": ("bias", torch.zeros(5), RuntimeError, "(6,)", "(5,)"),
    "bias_kind": ("bias", 0.5, TypeError, "a tensor", "float"),
    "initial_state_shape": (
        "initial_state",
        torch.zeros(2, 6, 3),
        RuntimeError,
        "(2, 6, 2)",
        "(2, 6, 3)",
    ),
    "seq_idx_shape": (
        "seq_idx",
        torch.zeros(2, 6, dtype=torch.int32),
        RuntimeError,
        "(2, 5)",
        "(2, 6)",
    ),
    "seq_idx_dtype": (
        "seq_idx",
        torch.zeros(2, 5, dtype=torch.int64),
        RuntimeError,
        "int32",
        "Long",
    ),
    "activation": ("activation", "relu", ValueError, "None, 'silu' or 'swish'", "'relu'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call(name):
    argument, value, error, expected, got = WRONG[name]
    tensors = {**example((2, 6, 5, 3), torch.float32), argument: value}
    with pytest.raises(error) as raised:
        ops.causal_conv1d(**tensors)
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"causal_conv1d: {argument}: expected ", message), message
    assert expected in message and got in message, message
