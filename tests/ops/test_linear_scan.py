"""linear_scan against its float64 reference: real and complex, both directions, layouts, packed sequences."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops.linear_scan_calls import COMPLEX, REAL, double_of, floor, make, packed, parts

from suffuse import ops
from suffuse.reference.linear_scan import linear_scan as reference
from suffuse.testing import (
    assert_close_to_reference,
    cpu_isas,
    relative_error,
    use_isa,
    use_threads,
)

SHAPES = [(1, 1, 1), (2, 17, 35), (1, 32, 64), (3, 5, 18)]  # batch, channels, steps


def plain(a, x, *, initial_state, return_last_state=True, seq_idx=None, reverse=False):
    """What one writes without the op: the loop, in the dtype of the state."""
    a = (a[:, None] if a.dim() == 1 else a).expand(x.shape).to(initial_state.dtype)
    order = list(range(x.shape[2]))[:: -1 if reverse else 1]
    state, states = initial_state, [initial_state] * x.shape[2]
    for i, t in enumerate(order):
        if seq_idx is not None and i:
            state = state * (seq_idx[:, t] == seq_idx[:, order[i - 1]])[:, None]
        state = a[:, :, t] * state + x[:, :, t].to(initial_state.dtype)
        states[t] = state
    h = torch.stack(states, -1) if states else torch.zeros_like(x)
    return h.to(x.dtype), state


def results(function, tensors, **options):
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    h, last = function(**leaves, **options, return_last_state=True)
    generator = torch.Generator().manual_seed(1)
    cotangents = []
    for y in (h, last):
        value = torch.randn(y.shape, generator=generator, dtype=double_of(y.dtype))
        rounding = tensors["x"].dtype
        value = value if rounding.is_complex else value.to(torch.bfloat16)
        cotangents.append(
            value.to(torch.complex64 if rounding.is_complex else torch.bfloat16).to(y.dtype)
        )
    grads = torch.autograd.grad(
        (h, last), list(leaves.values()), cotangents, materialize_grads=True
    )
    return {"h": h.detach(), "last": last.detach(), **dict(zip(leaves, grads, strict=True))}


def check(tensors, **options):
    dtype = tensors["x"].dtype
    exact = results(reference, {n: x.to(double_of(dtype)) for n, x in tensors.items()}, **options)
    naive = results(plain, tensors, **options)
    for name, ours in results(ops.linear_scan, tensors, **options).items():
        expected = naive[name].to(ours.dtype)
        assert_close_to_reference(
            parts(ours), parts(expected), parts(exact[name]), floor(dtype), name
        )


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("dtype", REAL + COMPLEX, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_rule(shape, dtype, constant, reverse, isa):
    with use_isa(isa):
        check(make(shape, dtype, constant=constant), reverse=reverse)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_float32_decays_with_half_precision_inputs(dtype):
    check(make((2, 20, 70), dtype, wide_a=True))


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_packed_sequences(reverse, dtype, isa):
    cuts = [0, 1, 17, 24, 54, 56]
    lengths = torch.tensor([end - begin for begin, end in itertools.pairwise(cuts)])
    index = torch.repeat_interleave(torch.arange(5), lengths).int().expand(2, -1)
    tensors = make((2, 20, 56), dtype)
    tensors["initial_state"].zero_()
    with use_isa(isa):
        check(tensors, seq_idx=index, reverse=reverse)
        whole = ops.linear_scan(tensors["a"], tensors["x"], seq_idx=index, reverse=reverse)
        for begin, end in itertools.pairwise(cuts):
            alone = (tensors[name][..., begin:end] for name in ("a", "x"))
            assert torch.equal(whole[..., begin:end], ops.linear_scan(*alone, reverse=reverse))


def test_pieces_joined_by_their_states_are_the_whole():
    tensors = make((1, 16, 50), torch.complex128)
    whole, last = ops.linear_scan(**tensors, return_last_state=True)
    state, pieces = tensors["initial_state"], []
    for begin, end in ((0, 13), (13, 14), (14, 50)):
        piece = {n: tensors[n][..., begin:end] for n in ("a", "x")}
        h, state = ops.linear_scan(**piece, initial_state=state, return_last_state=True)
        pieces.append(h)
    assert torch.equal(torch.cat(pieces, -1), whole) and torch.equal(state, last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_layouts_are_read_in_place_or_copied(dtype):
    tensors = make((2, 19, 37), dtype)
    expected = results(ops.linear_scan, tensors)
    channels_last = {
        n: x.transpose(1, 2).contiguous().transpose(1, 2) if x.dim() == 3 else x
        for n, x in tensors.items()
    }
    spread = {n: torch.stack([x, x], -1)[..., 0] for n, x in tensors.items()}
    conjugate = {n: x.conj().resolve_conj().conj() for n, x in tensors.items()}
    for other in (channels_last, spread, conjugate):
        for name, value in results(ops.linear_scan, other).items():
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("shape", [(2, 8, 0), (0, 8, 5), (2, 0, 5)], ids=str)
def test_nothing_to_do(shape, constant):
    tensors = make(shape, torch.float32, constant=constant)
    got = results(ops.linear_scan, tensors)
    assert got["h"].shape == shape
    if shape[2] == 0:
        assert torch.equal(got["last"], tensors["initial_state"])


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("packs", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_adjacent_channels_give_the_bits_of_adjacent_steps(dtype, constant, reverse, packs, isa):
    """Panels of channels against tiles of steps: several tiles and panels, and what is left of them."""
    tensors = make((2, 75, 131), dtype, constant=constant)
    a, x = tensors["a"], tensors["x"]
    a = (a[:, None] if constant else a).expand(x.shape)
    index = packed(x, [1, 2, 64, 70, 130]) if packs else None
    scan = torch.ops.suffuse.linear_scan.default
    last_x = x.mT.contiguous().mT
    last_a = a if constant else a.mT.contiguous().mT
    with use_isa(isa):
        for lagged in (False, True):
            rest = (tensors["initial_state"], index, reverse, lagged)
            expected, got = scan(a, x, *rest), scan(last_a, last_x, *rest)
            assert got[0].stride(1) == 1
            assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1]), lagged


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("dtype", REAL + COMPLEX, ids=str)
def test_a_few_long_rows(dtype, constant, reverse, isa):
    """Rows in segments: whole ones, or a last one of any length in a last block of any number."""
    shape = (2, 1, 1024) if constant else (1, 3, 1037)
    with use_isa(isa):
        check(make(shape, dtype, constant=constant), reverse=reverse)


@pytest.mark.parametrize("lagged", [False, True])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_long_rows_step_by_step_where_a_number_leaves_the_range(dtype, reverse, lagged):
    tensors = make((1, 16, 1100), dtype)  # 16 channels go step by step, 15 in segments
    a, x, initial = tensors.values()
    x[0, 0, 500], x[0, 1, 90], x[0, 2, 1099], x[0, 3, 7] = (
        torch.nan,
        torch.inf,
        torch.inf,
        torch.nan,
    )
    a[0, 4], x[0, 4], initial[0, 4] = 1e3, 0, 0  # products overflow, the state does not
    initial[0, 5] = torch.inf
    scan = torch.ops.suffuse.linear_scan.default
    expected = scan(a, x, initial, None, reverse, lagged)
    got = scan(a[:, :15], x[:, :15], initial[:, :15], None, reverse, lagged)
    for ours, exact in zip(got, expected, strict=True):
        assert torch.equal(ours[:, :6].nan_to_num(1, 2, 3), exact[:, :6].nan_to_num(1, 2, 3))
        assert torch.equal(ours[:, :6].isnan(), exact[:, :6].isnan())
        assert relative_error(parts(ours[:, 6:]), parts(exact[:, 6:15])) < 2e-7


ADJACENT = {
    "steps": ((3, 100, 400), torch.float32),
    "channels": ((3, 100, 400), torch.float32),
    "few rows": ((1, 3, 40_000), torch.float32),
    "few complex rows": ((1, 2, 40_000), torch.complex64),
}


@pytest.mark.parametrize("adjacent", ADJACENT)
def test_same_bits_for_any_number_of_threads(adjacent):
    tensors = make(*ADJACENT[adjacent])
    if adjacent == "channels":
        tensors |= {name: tensors[name].mT.contiguous().mT for name in ("a", "x")}
    with use_threads(1):
        expected = results(ops.linear_scan, tensors)
    for threads in (2, 3):
        with use_threads(threads):
            for name, value in results(ops.linear_scan, tensors).items():
                # torch's product of complex tensors, of which a's gradient is one, rounds by its split.
                if not (name == "a" and value.is_complex()):
                    assert torch.equal(value, expected[name]), (threads, name)


def test_nan_and_infinity_go_on_to_later_steps_only():
    tensors = make((1, 16, 40), torch.float32)
    tensors["x"][0, 3, 10], tensors["x"][0, 5, 20] = torch.nan, torch.inf
    ours, exact = ops.linear_scan(**tensors), reference(**tensors)
    assert torch.equal(ours.isnan(), exact.isnan()) and torch.equal(ours.isinf(), exact.isinf())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 70)))
    dtype = draw(st.sampled_from(REAL + COMPLEX))
    with use_isa(draw(st.sampled_from(cpu_isas()))):
        check(
            make(shape, dtype, draw(st.integers(0, 99)), draw(st.booleans())),
            reverse=draw(st.booleans()),
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_gradcheck(reverse, constant, dtype):
    tensors = make((2, 2, 5), dtype, constant=constant)
    index = torch.tensor([0, 0, 1, 1, 1], dtype=torch.int32).expand(2, -1)

    def function(*values):
        named = dict(zip(tensors, values, strict=True))
        return ops.linear_scan(**named, seq_idx=index, reverse=reverse, return_last_state=True)

    leaves = [x.requires_grad_() for x in tensors.values()]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("lagged", [False, True])
def test_opcheck(lagged):
    t = make((2, 6, 5), torch.float32)
    index = torch.zeros(2, 5, dtype=torch.int32)
    arguments = (t["a"], t["x"], t["initial_state"], index, False, lagged)
    torch.library.opcheck(torch.ops.suffuse.linear_scan.default, arguments)


def test_compile_without_a_graph_break():
    t = make((1, 16, 20), torch.float32)
    x = t.pop("x").requires_grad_()

    def loss(x):
        return ops.linear_scan(x=x, **t).square().sum()

    (expected,) = torch.autograd.grad(loss(x), x)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), x)
    assert torch.equal(got, expected)


def test_forward_mode_is_refused():
    t = make((1, 2, 5), torch.float64)
    with pytest.raises(NotImplementedError, match="linear_scan: forward-mode"):
        torch.func.jvp(lambda x: ops.linear_scan(t["a"], x), (t["x"],), (t["x"],))


WRONG = {
    "x_rank": ("x", torch.zeros(6, 5), RuntimeError, "[B, C, T]", "(6, 5)"),
    "x_dtype": (
        "x",
        torch.zeros(2, 6, 5, dtype=torch.int64),
        RuntimeError,
        "float64, float32",
        "Long",
    ),
    "x_kind": ("x", None, TypeError, "a tensor", "NoneType"),
    "a_shape": ("a", torch.zeros(2, 6, 4), RuntimeError, "(2, 6, 5)", "(2, 6, 4)"),
    "a_dtype": ("a", torch.zeros(2, 6, 5, dtype=torch.float64), RuntimeError, "float32", "float64"),
    "a_complex": (
        "a",
        torch.zeros(2, 6, 5, dtype=torch.complex64),
        RuntimeError,
        "float32",
        "ComplexFloat",
    ),
    "a_kind": ("a", 0.5, TypeError, "a tensor", "float"),
    "initial_state_shape": ("initial_state", torch.zeros(2, 5), RuntimeError, "(2, 6)", "(2, 5)"),
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
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call(name):
    argument, value, error, expected, got = WRONG[name]
    tensors = {**make((2, 6, 5), torch.float32), argument: value}
    with pytest.raises(error) as raised:
        ops.linear_scan(**tensors)
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"linear_scan: {argument}: expected ", message), message
    assert expected in message and got in message, message


def test_relative_error_of_a_long_scan():
    tensors = make((1, 16, 5000), torch.float32)
    exact = reference(**{n: x.double() for n, x in tensors.items()})
    assert relative_error(ops.linear_scan(**tensors), exact) < 2e-7
