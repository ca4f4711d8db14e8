"""The Vandermonde and Cauchy products against their formulas: every kernel, gradients, edges."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops.s4_kernel_calls import (
    DTYPES,
    PARTS,
    check_cauchy,
    check_moments,
    check_vandermonde,
    logarithms,
    normal,
    points,
    poles,
)

from suffuse import ops
from suffuse.reference import s4_kernel as formula
from suffuse.testing import cpu_isas, relative_error, use_isa, use_threads

OPS = torch.ops.suffuse
vandermonde = OPS.s4_kernel_vandermonde.default
moments = OPS.s4_kernel_moments.default
cauchy = OPS.s4_kernel_cauchy.default
POWERS = [(1, True, False), (1, False, False), (1, True, True), (2, True, True), (3, False, False)]
SHAPES = [(1, 1, 1), (2, 5, 63), (2, 17, 64), (1, 33, 65), (2, 70, 321), (1, 3, 9000)]


def inputs(rows, terms, length, dtype, seed=0):
    v, x = normal(rows, terms, seed=seed).to(dtype), logarithms(rows, terms, seed + 1).to(dtype)
    u = normal(rows, length, seed=seed + 2).to(dtype)
    return u, v, x


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_rule(shape, dtype, isa):
    u, v, x = inputs(*shape, dtype)
    rows, _, length = shape
    with use_isa(isa):
        for real in (True, False):
            check_vandermonde(vandermonde, v, x, length, real)
            check_moments(moments, u.real.contiguous() if real else u, x)
        for power, conj, both in POWERS:
            z = points(rows, length).to(dtype)
            check_cauchy(cauchy, v, z, poles(rows, shape[1]).to(dtype), power, conj, both)
            check_cauchy(cauchy, u, poles(1, shape[1]).to(dtype), z[:1], power, conj, both)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    rows, terms, length = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 80)),
        draw(st.integers(1, 500)),
    )
    dtype, real, seed = draw(st.sampled_from(DTYPES)), draw(st.booleans()), draw(st.integers(0, 99))
    u, v, x = inputs(rows, terms, length, dtype, seed)
    with use_isa(draw(st.sampled_from(cpu_isas()))):
        check_vandermonde(vandermonde, v, x, length, real)
        check_moments(moments, u.real.contiguous() if real else u, x)
        z, w = points(1, length).to(dtype), poles(rows, terms, seed).to(dtype)
        check_cauchy(cauchy, v, z, w, *draw(st.sampled_from(POWERS)))


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("phase", [0.7, 3.14])
def test_late_steps_are_as_good_as_early_ones(phase, isa):
    """Where the plain formula is off by 1e-2 and more: x l is not rounded."""
    x = torch.tensor([[complex(-1e-6, phase)]], dtype=torch.complex64)
    v, length = torch.ones_like(x), 200_000
    with use_isa(isa):
        ours = ops.log_vandermonde(v, x, length)
        first = ops.log_vandermonde_transpose(torch.ones(1, length), v, x, length)
    exact = formula.vandermonde(v.to(torch.complex128), x.to(torch.complex128), length, True)
    assert float((ours - exact)[0, -1000:].abs().max()) < 1e-6
    assert relative_error(formula.vandermonde(v, x, length, True), exact) > 1e-3
    ratio = torch.exp(x.to(torch.complex128))
    assert float((first - (ratio**length - 1) / (ratio - 1)).abs()) < 1e-4


@pytest.mark.parametrize("isa", cpu_isas())
def test_double_precision_against_extended(isa):
    """The formula in complex128 loses as much by rounding x l as it would have to show."""
    np = pytest.importorskip("numpy")
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("no extended precision here")
    _, v, x = inputs(1, 5, 1, torch.complex128)
    length = 5000
    steps = np.arange(length).astype(np.longdouble)
    powers = np.exp(x.numpy()[0].astype(np.clongdouble)[:, None] * steps)
    exact = 2 * (v.numpy()[0].astype(np.clongdouble) @ powers).real
    with use_isa(isa):
        ours = ops.log_vandermonde(v, x, length)[0].numpy()
    assert float(np.linalg.norm(ours - exact) / np.linalg.norm(exact)) < 1e-15


def test_poles_near_the_points():
    """Differences of the parts do not cancel: by the error rule, 1e-6 beside a pole."""
    w = torch.tensor([[-1e-6 + 2j, -1e-6 - 2j, -1e-3 + 1e-3j]], dtype=torch.complex64)
    z = torch.tensor([[2j, 2.00001j, 0.001j, 1e-8j, 3000j]], dtype=torch.complex64)
    for isa in cpu_isas():
        with use_isa(isa):
            check_cauchy(cauchy, normal(1, 3).to(torch.complex64), z, w, 1, True, False)


def test_same_bits_for_any_number_of_threads():
    u, v, x = inputs(5, 40, 9000, torch.complex64)
    z, w = points(1, 2000).to(torch.complex64), poles(5, 40).to(torch.complex64)

    def run():
        pair = moments(u.real.contiguous(), x)
        return [vandermonde(v, x, 9000, True), *pair, *cauchy(v, z, w, 1, True, True)]

    with use_threads(1):
        expected = run()
    for threads in (2, 3):
        with use_threads(threads):
            assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))


def test_nothing_of_memory_is_read_before_it_is_written():
    """Results where torch fills new memory with NaN, as with any other."""
    u, v, x = inputs(2, 5, 4100, torch.complex64)
    expected = [vandermonde(v, x, 4100, False), *moments(u, x)]
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        got = [vandermonde(v, x, 4100, False), *moments(u, x)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_rows_terms_and_steps_of_size_0():
    for rows, terms, length in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        u, v, x = inputs(rows, terms, length, torch.complex64)
        kernel = ops.log_vandermonde(v, x, length)
        assert kernel.shape == (rows, length) and bool((kernel == 0).all())
        result = ops.log_vandermonde_transpose(u, v, x, length)
        assert result.shape == (rows, terms) and bool((result == 0).all())
        out = ops.cauchy_mult(v, points(1, length)[0].to(v.dtype), x)
        assert out.shape == (rows, length) and bool((out == 0).all())


def test_nan_stays_in_its_row():
    u, v, x = inputs(3, 4, 70, torch.complex64)
    x[1, 2] = torch.nan
    kernel = ops.log_vandermonde(v, x, 70)
    assert torch.equal(kernel.isnan().all(1), torch.tensor([False, True, False]))
    assert torch.equal(kernel.isnan().any(1), torch.tensor([False, True, False]))
    result = ops.log_vandermonde_transpose(u, v, x, 70)
    assert torch.equal(result.isnan(), x.isnan())


def test_fast_decays_end_in_zero():
    x = torch.tensor([[-50 + 1j, -3000 + 2j]], dtype=torch.complex64)
    kernel = ops.log_vandermonde(torch.ones_like(x), x, 300)
    wide = x.to(torch.complex128)
    exact = formula.vandermonde(torch.ones_like(wide), wide, 300, True)
    assert relative_error(kernel, exact) < 1e-6 and bool((kernel[0, 3:] == 0).all())


def test_leading_dimensions_broadcast():
    v, x = normal(2, 3, 5), logarithms(3, 5)
    kernel = ops.log_vandermonde(v, x, 9)
    assert kernel.shape == (2, 3, 9)
    assert torch.equal(kernel[1], ops.log_vandermonde(v[1], x, 9))
    assert torch.equal(kernel[1, 2], ops.log_vandermonde(v[1, 2], x[2], 9))
    u = normal(2, 3, 9).real
    result = ops.log_vandermonde_transpose(u, v, x, 9)
    assert torch.equal(result[0, 1], ops.log_vandermonde_transpose(u[0, 1], v[0, 1], x[1], 9))
    z = points(1, 4)[0]
    out = ops.cauchy_mult(v, z, x)
    assert out.shape == (2, 3, 4) and torch.equal(out[1, 2], ops.cauchy_mult(v[1, 2], z, x[2]))
    assert torch.equal(
        ops.log_vandermonde(v.conj(), x, 9), ops.log_vandermonde(v.conj().clone(), x, 9)
    )


def test_the_transpose_is_one():
    u, v, x = inputs(2, 5, 30, torch.complex128)
    left = (u * ops.log_vandermonde(v, x, 30, conj=False)).sum(-1)
    right = ops.log_vandermonde_transpose(u, v, x, 30).sum(-1)
    assert torch.allclose(left, right)


@pytest.mark.parametrize("conj", [True, False], ids=["conj", "plain"])
def test_gradcheck(conj):
    u, v, x = (t.requires_grad_() for t in inputs(2, 3, 5, torch.complex128))
    real_u = u.detach().real.clone().requires_grad_()
    z = (points(1, 4)[0] + 1).requires_grad_()
    w, rows = (poles(n, 3).requires_grad_() for n in (1, 2))
    calls = [
        (lambda v, x: ops.log_vandermonde(v, x, 5, conj=conj), (v, x)),
        (lambda u, v, x: ops.log_vandermonde_transpose(u, v, x, 5), (real_u if conj else u, v, x)),
        (lambda v, z, w: ops.cauchy_mult(v, z, w, conj=conj), (v, z, w)),
        (lambda v, z, w: ops.cauchy_mult(v, z, w, conj=conj), (v, z, rows)),
    ]
    for function, operands in calls:
        assert torch.autograd.gradcheck(function, operands)
        assert torch.autograd.gradgradcheck(function, operands)


def test_per_sample_gradients():
    _, v, x = inputs(3, 4, 1, torch.complex128)

    def loss(v, x):
        return ops.log_vandermonde(v, x, 6).square().sum()

    together = torch.func.vmap(torch.func.grad(loss))(v, x)
    alone = torch.stack([torch.func.grad(loss)(a, b) for a, b in zip(v, x, strict=True)])
    assert torch.allclose(together, alone)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    u, v, x = inputs(2, 3, 5, dtype)
    z = points(1, 5).to(dtype)
    for real in (True, False):
        torch.library.opcheck(vandermonde, (v, x, 5, real))
        torch.library.opcheck(moments, (u.real.to(PARTS[dtype]) if real else u, x))
        torch.library.opcheck(cauchy, (v, z, x, 1, True, real))


WRONG = [
    (ops.log_vandermonde, {"v": normal(3).real, "x": normal(3), "L": 2}, "v", "complex64 or", "float64"),
    (ops.log_vandermonde, {"v": normal(3), "x": normal(3).to(torch.complex64), "L": 2},
     "x", "complex128", "complex64"),
    (ops.log_vandermonde, {"v": normal(3), "x": 1.0, "L": 2}, "x", "a tensor", "float"),
    (ops.log_vandermonde, {"v": normal(3), "x": normal(3), "L": -2}, "L", "at least 0", "-2"),
    (ops.log_vandermonde_transpose, {"u": normal(4), "v": normal(3), "x": normal(3), "L": 5},
     "u", "[..., 5]", "(4,)"),
    (ops.log_vandermonde_transpose,
     {"u": normal(5).to(torch.complex64), "v": normal(3), "x": normal(3), "L": 5},
     "u", "like x", "ComplexFloat"),
    (ops.cauchy_mult, {"v": normal(3), "z": normal(4), "w": normal(2)}, "w", "3 terms", "2"),
    (ops.cauchy_mult, {"v": normal(3), "z": normal(4).real, "w": normal(3)},
     "z", "complex128", "float64"),
    (ops.cauchy_mult, {"v": normal(3), "z": normal(1)[0], "w": normal(3)},
     "z", "at least 1 dimension", "()"),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{case[0].__name__}-{case[2]}-{case[4]}")
def test_wrong_call(case):
    function, arguments, name, expected, got = case
    with pytest.raises((TypeError, RuntimeError)) as raised:
        function(**arguments)
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"{function.__name__}: {name}: expected ", message), message
    assert expected in message and got in message, message
