"""causal_conv1d against its float64 reference: widths, dtypes, instruction sets, layouts, packed sequences."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suffuse import ops
from suffuse.reference.causal_conv1d import causal_conv1d as reference
from suffuse.testing import (
    assert_close_to_reference,
    cpu_isas,
    relative_error,
    use_isa,
    use_threads,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FLOOR = {dtype: (4 if dtype.itemsize > 2 else 0.5) * torch.finfo(dtype).eps for dtype in DTYPES}
# batch, channels, steps, width
SHAPES = [
    (1, 1, 1, 1),
    (2, 17, 35, 4),
    (1, 32, 64, 3),
    (2, 5, 2, 4),
    (1, 16, 50, 9),
    (1, 3, 40, 33),
    (3, 20, 31, 2),
]


def make(shape, dtype, seed=0, state=True) -> dict[str, torch.Tensor]:
    batch, channels, length, width = shape
    generator = torch.Generator().manual_seed(seed)
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*size, to=dtype):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(to)

    tensors = {
        "x": normal(batch, channels, length),
        "weight": normal(channels, width, to=wide),
        "bias": normal(channels, to=wide),
    }
    return {**tensors, "initial_state": normal(batch, channels, width - 1)} if state else tensors


def plain(x, weight, bias=None, *, activation=None, initial_state=None, return_final_state=True):
    """What one writes without the op: torch's own convolution, in the dtype of the weight."""
    if initial_state is None:
        initial_state = x.new_zeros(*x.shape[:2], weight.shape[1] - 1)
    window = torch.cat([initial_state, x], 2)
    out = F.conv1d(window.to(weight.dtype), weight[:, None], bias, groups=x.shape[1])
    out = F.silu(out) if activation else out
    return out.to(x.dtype), window[..., x.shape[2] :]


def results(function, tensors, **options):
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    out, final = function(**leaves, **options, return_final_state=True)
    generator = torch.Generator().manual_seed(1)
    dtype = tensors["x"].dtype
    cotangents = [
        torch.randn(y.shape, generator=generator, dtype=torch.float64).to(torch.bfloat16).to(dtype)
        for y in (out, final)
    ]
    grads = torch.autograd.grad(
        (out, final), list(leaves.values()), cotangents, materialize_grads=True
    )
    return {"out": out.detach(), "final": final.detach(), **dict(zip(leaves, grads, strict=True))}


def check(tensors, **options):
    dtype = tensors["x"].dtype
    exact = results(reference, {name: x.double() for name, x in tensors.items()}, **options)
    naive = results(plain, tensors, **{k: v for k, v in options.items() if k != "seq_idx"})
    for name, ours in results(ops.causal_conv1d, tensors, **options).items():
        assert_close_to_reference(ours, naive[name].to(ours.dtype), exact[name], FLOOR[dtype], name)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_rule(shape, dtype, activation, isa):
    with use_isa(isa):
        check(make(shape, dtype), activation=activation)


def test_without_bias_and_state():
    tensors = make((2, 18, 40, 4), torch.float32, state=False)
    check(tensors)
    del tensors["bias"]
    check(tensors, activation="swish")


def test_long_rows_are_cut_without_a_seam():
    tensors = make((1, 2, 5000, 4), torch.float64)
    assert relative_error(ops.causal_conv1d(**tensors), reference(**tensors)) < 1e-15


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("length", [40, 4500])
def test_packed_sequences(length, isa):
    """seq_idx: every sequence gives what it gives alone, padding gives 0, states belong to the ends."""
    cuts = [0, 2, 3, 19, length - 8, length - 5, length]
    index = torch.zeros(1, length, dtype=torch.int32)
    for i, (begin, end) in enumerate(itertools.pairwise(cuts)):
        index[:, begin:end] = -1 if i == 2 else i
    tensors = make((1, 18, length, 4), torch.float64)
    with use_isa(isa):
        out, final = ops.causal_conv1d(
            **tensors, activation="silu", seq_idx=index, return_final_state=True
        )
        for i, (begin, end) in enumerate(itertools.pairwise(cuts)):
            if i == 2:
                assert not out[..., begin:end].any()
                continue
            alone = {**tensors, "x": tensors["x"][..., begin:end]}
            if i:
                del alone["initial_state"]
            expected, last = ops.causal_conv1d(**alone, activation="silu", return_final_state=True)
            assert relative_error(out[..., begin:end], expected) < 1e-15
        assert torch.equal(final, last)
        ours = results(ops.causal_conv1d, tensors, activation="silu", seq_idx=index)
        exact = results(reference, tensors, activation="silu", seq_idx=index)
        for name in ours:
            assert relative_error(ours[name], exact[name]) < 1e-13, name


def test_pieces_joined_by_their_states_are_the_whole():
    tensors = make((1, 16, 50, 5), torch.float64)
    whole, final = ops.causal_conv1d(**tensors, return_final_state=True)
    state, pieces = tensors["initial_state"], []
    for begin, end in ((0, 2), (2, 3), (3, 50)):
        piece = {**tensors, "x": tensors["x"][..., begin:end], "initial_state": state}
        out, state = ops.causal_conv1d(**piece, return_final_state=True)
        pieces.append(out)
    assert torch.equal(torch.cat(pieces, -1), whole)
    assert torch.equal(state, final)


def test_layouts_are_read_in_place_or_copied():
    tensors = make((2, 19, 37, 4), torch.float32)
    expected = results(ops.causal_conv1d, tensors, activation="silu")
    channels_last = {**tensors, "x": tensors["x"].transpose(1, 2).contiguous().transpose(1, 2)}
    spread = {name: torch.stack([x, x], -1)[..., 0] for name, x in tensors.items()}
    for other in (channels_last, spread):
        for name, value in results(ops.causal_conv1d, other, activation="silu").items():
            assert torch.equal(value, expected[name]), name
    assert ops.causal_conv1d(**channels_last).stride(1) == 1


@pytest.mark.parametrize("shape", [(2, 8, 0, 4), (0, 8, 5, 4), (2, 0, 5, 4)], ids=str)
def test_nothing_to_do(shape):
    got = results(ops.causal_conv1d, make(shape, torch.float32))
    assert got["out"].shape == shape[:3]


def test_same_bits_for_any_number_of_threads():
    tensors = make((2, 40, 5000, 4), torch.float32)
    with use_threads(1):
        expected = results(ops.causal_conv1d, tensors, activation="silu")
    for threads in (2, 3):
        with use_threads(threads):
            for name, value in results(ops.causal_conv1d, tensors, activation="silu").items():
                assert torch.equal(value, expected[name]), (threads, name)


def test_nan_and_infinity_stay_where_the_reference_has_them():
    tensors = make((1, 16, 40, 4), torch.float32)
    tensors["x"][0, 3, 10], tensors["x"][0, 5, 20] = torch.nan, torch.inf
    ours, exact = ops.causal_conv1d(**tensors), reference(**tensors)
    assert torch.equal(ours.isnan(), exact.isnan()) and torch.equal(ours.isinf(), exact.isinf())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 70)),
        draw(st.integers(1, 12)),
    )
    tensors = make(
        shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99)), draw(st.booleans())
    )
    with use_isa(draw(st.sampled_from(cpu_isas()))):
        check(tensors, activation=draw(st.sampled_from([None, "silu"])))


@pytest.mark.parametrize("activation", [None, "silu"])
def test_gradcheck(activation):
    tensors = make((2, 3, 5, 3), torch.float64)
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
    t = make((2, 6, 5, 3), torch.float32)
    x = t["x"].transpose(1, 2).contiguous().transpose(1, 2) if last else t["x"]
    index = torch.zeros(2, 5, dtype=torch.int32)
    arguments = (x, t["weight"], t["bias"], t["initial_state"], index, True)
    torch.library.opcheck(torch.ops.suffuse.causal_conv1d_fwd.default, arguments)
    torch.library.opcheck(torch.ops.suffuse.causal_conv1d_bwd.default, (x, *arguments))


def test_compile_without_a_graph_break():
    tensors = make((1, 16, 20, 4), torch.float32)
    x = tensors.pop("x").requires_grad_()

    def loss(x):
        return ops.causal_conv1d(x, **tensors, activation="silu").square().sum()

    (expected,) = torch.autograd.grad(loss(x), x)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), x)
    assert torch.equal(got, expected)


def test_forward_mode_is_refused():
    tensors = make((1, 2, 5, 3), torch.float64)
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
    tensors = {**make((2, 6, 5, 3), torch.float32), argument: value}
    with pytest.raises(error) as raised:
        ops.causal_conv1d(**tensors)
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"causal_conv1d: {argument}: expected ", message), message
    assert expected in message and got in message, message
