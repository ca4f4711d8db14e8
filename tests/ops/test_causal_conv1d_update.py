"""causal_conv1d_update and causal_conv1d_varlen_states against their references and the whole convolution."""

from __future__ import annotations

import re

import pytest
import torch
from ops.causal_conv1d_calls import DTYPES, check_update, example, update_example

from suffuse import ops
from suffuse.reference import causal_conv1d as formula
from suffuse.testing import cpu_isas, use_isa, use_threads

# batch, channels, steps (0: x [B, D]), width; places of the state
SHAPES = [
    ((1, 1, 0, 1), 0),
    ((3, 17, 0, 4), 3),
    ((2, 40, 0, 4), 4),
    ((2, 18, 1, 3), 5),
    ((3, 5, 3, 4), 7),
    ((2, 16, 9, 2), 4),
    ((1, 33, 21, 9), 8),
]


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "places"), SHAPES, ids=str)
def test_error_rule(shape, places, dtype, isa):
    with use_isa(isa):
        for ring in (False, True):
            for slots in (False, True):
                tensors = update_example(shape, places, dtype, ring, slots)
                check_update(tensors, activation="silu" if slots else None)


def test_layouts():
    tensors = update_example((2, 20, 3, 4), 5)
    for name in ("x", "conv_state"):
        last = tensors[name].transpose(1, 2).contiguous().transpose(1, 2)
        check_update({**tensors, name: last})
    spread = torch.stack([tensors["x"], tensors["x"]], -1)[..., 0]
    check_update({**tensors, "x": spread})
    one = update_example((2, 20, 0, 4), 5)
    check_update({**one, "x": torch.stack([one["x"], one["x"]], -1)[..., 0]})


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("ring", [False, True])
def test_steps_are_the_whole_convolution(ring, steps):
    tensors = example((2, 20, 20, 4), torch.float64)
    initial = tensors.pop("initial_state")
    whole = ops.causal_conv1d(**tensors, initial_state=initial, activation="silu")
    state = torch.randn(2, 20, 8, dtype=torch.float64)
    seen = torch.tensor([3, 3], dtype=torch.int32) if ring else None
    state[:, :, :3] = initial
    if not ring:
        state = state.roll(-3, 2)
    x, pieces = tensors.pop("x"), []
    for t in range(0, 20, steps):
        pieces.append(
            ops.causal_conv1d_update(
                x[..., t : t + steps], state, **tensors, activation="silu", cache_seqlens=seen
            )
        )
        seen = None if seen is None else seen + steps
    torch.testing.assert_close(torch.cat(pieces, 2), whole, rtol=1e-14, atol=1e-14)


def test_padding_touches_nothing():
    tensors = update_example((3, 20, 0, 4), 4, slots=True)
    before = tensors["conv_state"].clone()
    out = ops.causal_conv1d_update(**tensors)
    assert not out[1].any() and out[0].all()
    untouched = [0, 2, 3, 4, 6]
    assert torch.equal(tensors["conv_state"][untouched], before[untouched])


def test_nothing_to_do():
    for shape in ((0, 5, 1, 4), (2, 0, 1, 4), (2, 5, 1, 4)):
        tensors = update_example(shape, 4)
        x = tensors["x"][..., :0] if shape[0] * shape[1] else tensors["x"]
        before = tensors["conv_state"].clone()
        out = ops.causal_conv1d_update(**{**tensors, "x": x})
        assert out.shape == x.shape and torch.equal(tensors["conv_state"], before)


def test_same_bits_for_any_number_of_threads():
    tensors = update_example((64, 200, 2, 4), 4)
    with use_threads(1):
        expected = ops.causal_conv1d_update(**{k: t.clone() for k, t in tensors.items()})
    with use_threads(3):
        assert torch.equal(ops.causal_conv1d_update(**tensors), expected)


def test_bad_numbers_stay_where_the_reference_has_them():
    tensors = update_example((2, 20, 3, 4), 5)
    tensors["x"][0, 3, 1], tensors["conv_state"][1, 7, 4] = torch.nan, torch.inf
    check_update(tensors)


@pytest.mark.parametrize("ring", [False, True])
def test_gradcheck(ring):
    tensors = update_example((2, 3, 2, 3), 4, torch.float64, ring)
    state, seen = tensors.pop("conv_state"), tensors.pop("cache_seqlens", None)

    def function(x, weight, bias):
        return ops.causal_conv1d_update(
            x, state.clone(), weight, bias, activation="silu", cache_seqlens=seen
        )

    leaves = [t.requires_grad_() for t in tensors.values()]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_with_gradients_the_state_is_the_same():
    tensors = update_example((2, 20, 3, 4), 5)
    other = {k: t.clone() for k, t in tensors.items()}
    other["weight"].requires_grad_()
    torch.testing.assert_close(
        ops.causal_conv1d_update(**other).detach(), ops.causal_conv1d_update(**tensors)
    )
    assert torch.equal(other["conv_state"], tensors["conv_state"])


@pytest.mark.parametrize("steps", [1, 3])
def test_opcheck(steps):
    t = update_example((2, 6, steps, 3), 4, ring=True, slots=True)
    names = ("x", "conv_state", "weight", "bias", "cache_seqlens", "conv_state_indices")
    arguments = (*(t[name] for name in names), True)
    torch.library.opcheck(torch.ops.suffuse.causal_conv1d_update.default, arguments)


def test_compile_without_a_graph_break():
    tensors = update_example((2, 20, 0, 4), 4)
    other = {k: t.clone() for k, t in tensors.items()}
    compiled = torch.compile(ops.causal_conv1d_update, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(**other), ops.causal_conv1d_update(**tensors))
    assert torch.equal(other["conv_state"], tensors["conv_state"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_varlen_states(dtype):
    x = torch.randn(23, 5).to(dtype)
    cuts = [0, 0, 2, 9, 10, 23]
    states = ops.causal_conv1d_varlen_states(x, torch.tensor(cuts, dtype=torch.int32), 4)
    assert states.shape == (5, 5, 4) and states.stride(1) == 1
    for b, state in enumerate(states):
        own = x[cuts[b] : cuts[b + 1]]
        padded = torch.cat([x.new_zeros(4, 5), own])[-4:]
        assert torch.equal(state, padded.T)


def test_varlen_states_are_what_update_goes_on_from():
    tensors = example((1, 20, 12, 4), torch.float64, state=False)
    x = tensors.pop("x")
    state = ops.causal_conv1d_varlen_states(x[0, :, :11].T, torch.tensor([0, 11]), 3)
    out = ops.causal_conv1d_update(x[..., 11:], state, **tensors)
    torch.testing.assert_close(out, ops.causal_conv1d(x, **tensors)[..., 11:])


def test_varlen_states_of_nothing_and_gradients():
    none = ops.causal_conv1d_varlen_states(torch.zeros(0, 5), torch.zeros(3, dtype=torch.int64), 4)
    assert none.shape == (2, 5, 4) and not none.any()
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    cuts = torch.tensor([0, 1, 7])
    assert torch.autograd.gradcheck(lambda x: formula.causal_conv1d_varlen_states(x, cuts, 3), [x])


def integers(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


GAPS = torch.zeros(2, 12, 8)[:, ::2, ::2]
WRONG = {
    "x_rank": ("x", torch.zeros(6), RuntimeError, "[B, D, L]", "(6,)"),
    "x_kind": ("x", 1, TypeError, "a tensor", "int"),
    "weight_channels": ("weight", torch.zeros(5, 3), RuntimeError, "(6, 3)", "(5, 3)"),
    "bias_shape": ("bias", torch.zeros(5), RuntimeError, "(6,)", "(5,)"),
    "conv_state_rank": ("conv_state", torch.zeros(6, 4), RuntimeError, "[B, D, S]", "(6, 4)"),
    "conv_state_batch": ("conv_state", torch.zeros(3, 6, 4), RuntimeError, "(2, 6, 4)", "(3, 6"),
    "conv_state_short": (
        "conv_state",
        torch.zeros(2, 6, 1),
        RuntimeError,
        "(2, 6, 2)",
        "(2, 6, 1)",
    ),
    "conv_state_dtype": ("conv_state", torch.zeros(2, 6, 4).half(), RuntimeError, "32", "float16"),
    "conv_state_gaps": ("conv_state", GAPS, RuntimeError, "stride 1", "(96, 16, 2)"),
    "conv_state_gradient": (
        "conv_state",
        torch.zeros(2, 6, 4, requires_grad=True),
        ValueError,
        "without gradient",
        "needs it",
    ),
    "cache_seqlens_shape": ("cache_seqlens", integers(1), RuntimeError, "(2,)", "(1,)"),
    "cache_seqlens_dtype": ("cache_seqlens", torch.ones(2), RuntimeError, "int32", "float32"),
    "conv_state_indices_range": ("conv_state_indices", integers(0, 2), RuntimeError, "than 2", "2"),
    "conv_state_indices_kind": ("conv_state_indices", [0, 1], TypeError, "a tensor", "list"),
    "activation": ("activation", "relu", ValueError, "None, 'silu' or 'swish'", "'relu'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call(name):
    argument, value, error, expected, got = WRONG[name]
    tensors = {**update_example((2, 6, 1, 3), 4), argument: value}
    with pytest.raises(error) as raised:
        ops.causal_conv1d_update(**tensors)
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"causal_conv1d_update: {argument}: expected ", message), message
    assert expected in message and got in message, message


def test_wrong_call_of_varlen_states():
    for x, cuts, length, name in (
        (torch.zeros(5), torch.zeros(2), 3, "x"),
        (torch.zeros(5, 2), torch.zeros(2, 1), 3, "cu_seqlens"),
        (torch.zeros(5, 2), torch.zeros(2), -1, "state_len"),
    ):
        with pytest.raises(RuntimeError, match=f"causal_conv1d_varlen_states: {name}: expected"):
            ops.causal_conv1d_varlen_states(x, cuts, length)
