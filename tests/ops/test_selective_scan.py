"""selective_scan against its float64 reference: shapes, dtypes, instruction sets, layouts, special values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from selective_scan_inputs import DTYPES, Shape, check, make, results

from suffuse import ops
from suffuse.reference.selective_scan import selective_scan as reference
from suffuse.testing import cpu_isas, relative_error, use_isa, use_threads

SHAPES = [
    Shape(1, 1, 1, 1),
    Shape(2, 17, 35, 5),
    Shape(1, 32, 64, 16),
    Shape(2, 24, 33, 7, G=4),
    Shape(1, 40, 70, 18, G=2),
    Shape(1, 9, 50, 4, constant_B=True),
    Shape(1, 9, 50, 4, constant_C=True),
    Shape(2, 20, 18, 3, constant_B=True, constant_C=True),
    Shape(1, 16, 130, 66),
]
OPTIONAL = ("D", "z", "delta_bias", "initial_state")


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_rule(shape, dtype, reverse, isa):
    with use_isa(isa):
        check(make(shape, dtype), delta_softplus=True, reverse=reverse)


@pytest.mark.parametrize("missing", [*OPTIONAL, "all"])
@pytest.mark.parametrize("softplus", [False, True], ids=["plain", "softplus"])
def test_optional_operands(missing, softplus):
    tensors = make(
        Shape(2, 18, 40, 6), torch.float32, without=OPTIONAL if missing == "all" else (missing,)
    )
    if not softplus:
        tensors["delta"] = tensors["delta"].abs() * 0.3  # or the state grows beyond all bounds
        if "delta_bias" in tensors:
            tensors["delta_bias"] = tensors["delta_bias"].abs()
    check(tensors, delta_softplus=softplus)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_packed_sequences(reverse, isa):
    """seq_idx: every sequence gives what it gives alone."""
    lengths = [1, 16, 7, 30, 2]
    tensors = make(Shape(2, 20, sum(lengths), 6), torch.float64, without=("initial_state",))
    index = (
        torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        .int()
        .expand(2, -1)
    )
    with use_isa(isa):
        check(tensors, delta_softplus=True, seq_idx=index, reverse=reverse)
        packed = ops.selective_scan(**tensors, delta_softplus=True, seq_idx=index, reverse=reverse)
        timed = ("u", "delta", "B", "C", "z")
        for begin, end in zip([0, 1, 17, 24, 54], [1, 17, 24, 54, 56], strict=True):
            alone = {n: x[..., begin:end] if n in timed else x for n, x in tensors.items()}
            expected = ops.selective_scan(**alone, delta_softplus=True, reverse=reverse)
            assert relative_error(packed[..., begin:end], expected) < 1e-14


def test_pieces_joined_by_their_states_are_the_whole():
    tensors = make(Shape(1, 16, 50, 8), torch.float64)
    whole, last = ops.selective_scan(**tensors, delta_softplus=True, return_last_state=True)
    state, pieces = tensors["initial_state"], []
    for begin, end in ((0, 13), (13, 14), (14, 50)):
        piece = {
            n: x[..., begin:end] if n in ("u", "delta", "B", "C", "z") else x
            for n, x in tensors.items()
        }
        out, state = ops.selective_scan(
            **{**piece, "initial_state": state}, delta_softplus=True, return_last_state=True
        )
        pieces.append(out)
    assert relative_error(torch.cat(pieces, -1), whole) < 1e-14
    assert relative_error(state, last) < 1e-14


@pytest.mark.parametrize(
    "shape", [Shape(2, 8, 0, 3), Shape(0, 8, 5, 3), Shape(2, 0, 5, 3)], ids=str
)
def test_nothing_to_do(shape):
    tensors = make(shape, torch.float32)
    got = results(ops.selective_scan, tensors)
    assert got["out"].shape == tensors["u"].shape
    assert torch.equal(got["last_state"], tensors["initial_state"])


def test_layouts_are_read_in_place_or_copied():
    tensors = make(Shape(2, 19, 37, 5, G=1), torch.float32)
    expected = results(ops.selective_scan, tensors, delta_softplus=True)
    channels_last = {
        n: x.transpose(-1, -2).contiguous().transpose(-1, -2)
        if n in ("u", "delta", "z", "B", "C")
        else x
        for n, x in tensors.items()
    }
    spread = {n: torch.stack([x, x], -1)[..., 0] for n, x in tensors.items()}
    for other in (channels_last, spread):
        for name, value in results(ops.selective_scan, other, delta_softplus=True).items():
            assert torch.equal(value, expected[name]), name


def test_any_group_layout_of_b_and_c():
    tensors = make(Shape(2, 12, 20, 4, G=1), torch.float32)
    flat = {**tensors, "B": tensors["B"][:, 0], "C": tensors["C"][:, 0]}
    expected = ops.selective_scan(**tensors, delta_softplus=True)
    assert torch.equal(ops.selective_scan(**flat, delta_softplus=True), expected)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(1, 200, 90, 16),
        Shape(3, 32, 40, 5, G=2),
        Shape(1, 20, 50, 39),
        Shape(2, 9, 33, 16),
        Shape(1, 7, 40, 9),
    ],
    ids=str,
)
def test_same_bits_for_any_number_of_threads(shape):
    tensors = make(shape, torch.float32)
    with use_threads(1):
        expected = results(ops.selective_scan, tensors, delta_softplus=True)
    for threads in (2, 3):
        with use_threads(threads):
            for name, value in results(ops.selective_scan, tensors, delta_softplus=True).items():
                assert torch.equal(value, expected[name]), (threads, name)


@pytest.mark.parametrize("isa", cpu_isas())
def test_steps_and_rates_of_any_size(isa):
    """Finite for delta from 1e-6 to 100 and A down to -1e4; a growing state overflows where the reference's does."""
    tensors = make(Shape(1, 16, 60, 4), torch.float32, without=("initial_state", "delta_bias"))
    tensors["delta"] = torch.logspace(-6, 2, 60).expand(1, 16, 60).contiguous()
    tensors["A"] = -torch.logspace(-3, 4, 64).reshape(16, 4)
    with use_isa(isa):
        for name, value in results(ops.selective_scan, tensors).items():
            assert value.isfinite().all(), name
        check(tensors)
        growing = {**tensors, "A": -tensors["A"].clamp(min=-40)}
        ours, exact = ops.selective_scan(**growing), reference(**growing)
        assert torch.equal(ours.isnan(), exact.isnan())
        tensors["delta"] = torch.logspace(-6, 9, 60).expand(1, 16, 60).contiguous()
        for steepest in (9, 30):
            tensors["A"] = -torch.logspace(-3, steepest, 64).reshape(16, 4)
            for name, value in results(ops.selective_scan, tensors, delta_softplus=True).items():
                assert value.isfinite().all(), (name, steepest)


@pytest.mark.parametrize("without", [(), ("D",)], ids=["skip", "no-skip"])
def test_nan_and_infinity_stay_where_the_reference_has_them(without):
    tensors = make(Shape(1, 16, 40, 3), torch.float32, without=without)
    tensors["u"][0, 3, 10] = torch.nan
    tensors["u"][0, 5, 20] = torch.inf
    tensors["B"] = tensors["B"].abs()  # or what is infinite would become no number at once
    tensors["C"] = tensors["C"].abs()
    ours = ops.selective_scan(**tensors, delta_softplus=True)
    exact = reference(**tensors, delta_softplus=True)
    assert torch.equal(ours.isnan(), exact.isnan())
    assert torch.equal(ours.isinf(), exact.isinf())


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_long_rows_give_the_bits_of_short_tiles(reverse, isa):
    """Without a gradient, rows of 16 KiB and more are read in tiles of 64 steps instead of 16."""
    tensors = make(Shape(4, 27, 4131, 14), torch.float32)
    index = (torch.arange(4131) // 1000).int().expand(4, -1)
    options = {"delta_softplus": True, "reverse": reverse, "seq_idx": index}
    with use_isa(isa):
        long = ops.selective_scan(**tensors, **options)
        tensors["D"].requires_grad_()
        assert torch.equal(long, ops.selective_scan(**tensors, **options))


def test_complex_rates_take_the_formula():
    generator = torch.Generator().manual_seed(0)
    A = torch.complex(
        -torch.rand(6, 4, generator=generator), torch.randn(6, 4, generator=generator)
    )
    B, C = (torch.randn(2, 1, 4, 15, dtype=torch.complex64, generator=generator) for _ in range(2))
    u, delta = (torch.randn(2, 6, 15, generator=generator) for _ in range(2))
    out, last = ops.selective_scan(u, delta, A, B, C, delta_softplus=True, return_last_state=True)
    assert out.dtype == torch.float32 and last.dtype == torch.complex64
    wide = torch.complex128
    exact = reference(
        u.double(), delta.double(), A.to(wide), B.to(wide), C.to(wide), delta_softplus=True
    )
    assert relative_error(out, exact) < 1e-6


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    groups = draw(st.integers(1, 3))
    shape = Shape(
        draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 36)),
        draw(st.integers(1, 70)),
        draw(st.integers(1, 40)),
        groups,
        draw(st.booleans()),
        draw(st.booleans()),
    )
    without = tuple(name for name in OPTIONAL if draw(st.booleans()))
    tensors = make(shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99)), without)
    with use_isa(draw(st.sampled_from(cpu_isas()))):
        check(tensors, delta_softplus=True, reverse=draw(st.booleans()))
