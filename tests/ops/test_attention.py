"""attention against its float64 reference: shapes, dtypes, instruction sets, strides, special values."""

from __future__ import annotations

import pytest
import torch
from attention_inputs import CAUSAL, DTYPES, FLOOR, Shape, check, make, plain, results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suffuse import ops
from suffuse.reference.attention import attention as reference
from suffuse.testing import cpu_isas, use_isa

SHAPES = [
    Shape(1, 1, 1, 1, 1, 1, 1),
    Shape(2, 3, 5, 2, 1, 40, 24),
    Shape(1, 63, 65, 4, 4, 64, 64),
    Shape(2, 65, 63, 4, 2, 96, 33),
    Shape(1, 130, 201, 6, 1, 16, 128),
    Shape(1, 17, 97, 2, 2, 7, 9),
    Shape(3, 16, 16, 2, 2, 16, 16),
    Shape(1, 33, 96, 1, 1, 128, 64),
    Shape(1, 1025, 3, 1, 1, 8, 8),
    Shape(1, 1, 1025, 2, 2, 64, 64),
    Shape(1, 200, 333, 1, 1, 32, 48),
]


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("causal", CAUSAL)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_rule(shape, dtype, causal, isa):
    with use_isa(isa):
        check(make(shape, dtype), causal=causal)


@pytest.mark.parametrize("causal", CAUSAL)
def test_long_sequences_of_odd_length(causal):
    # Several blocks of queries and of keys, and a chunked backward.
    check(make(Shape(1, 1025, 1091, 2, 1, 64, 64), torch.float32), causal=causal)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    groups = draw(st.integers(1, 3))
    shape = Shape(
        draw(st.integers(1, 2)),
        draw(st.integers(1, 150)),
        draw(st.integers(1, 150)),
        groups * draw(st.integers(1, 3)),
        groups,
        draw(st.integers(1, 70)),
        draw(st.integers(1, 70)),
    )
    with use_isa(draw(st.sampled_from(cpu_isas()))):
        check(
            make(shape, draw(st.sampled_from(DTYPES)), seed=draw(st.integers(0, 99))),
            causal=draw(st.sampled_from(CAUSAL)),
            scale=draw(st.sampled_from([None, 0.3, -0.2, 0.0])),
        )


def test_true_is_either_alignment_of_a_square():
    q, k, v = make(Shape(1, 70, 70, 2, 2, 16, 16), torch.float32)
    expected = ops.attention(q, k, v, causal="top_left")
    assert torch.equal(ops.attention(q, k, v, causal=True), expected)
    assert torch.equal(ops.attention(q, k, v, causal="bottom_right"), expected)


@pytest.mark.parametrize(
    "shape",
    [Shape(2, 4, 0, 2, 1, 8, 6), Shape(2, 0, 4, 2, 1, 8, 6), Shape(0, 4, 4, 2, 1, 8, 6)],
    ids=["S=0", "T=0", "B=0"],
)
@pytest.mark.parametrize("causal", CAUSAL)
def test_nothing_to_attend(shape, causal):
    leaves = [x.requires_grad_() for x in make(shape, torch.float32)]
    out, lse = ops.attention(*leaves, causal=causal, return_lse=True)
    assert out.shape == (shape.B, shape.T, shape.H, shape.Dv)
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.equal(lse, torch.full_like(lse, -torch.inf))
    for x, grad in zip(leaves, torch.autograd.grad(out.sum(), leaves), strict=True):
        assert torch.equal(grad, torch.zeros_like(x))


@pytest.mark.parametrize("isa", cpu_isas())
def test_rows_without_keys_are_zero(isa):
    # Bottom-right with more queries than keys: the first T - S queries see nothing.
    q, k, v = (x.requires_grad_() for x in make(Shape(1, 40, 9, 2, 1, 16, 16), torch.float32))
    with use_isa(isa):
        out, lse = ops.attention(q, k, v, causal="bottom_right", return_lse=True)
        # A gradient that is not finite must not leak out of a row that depends on nothing.
        grad_out, grad_lse = torch.randn_like(out), torch.randn_like(lse)
        grad_lse[..., :31] = torch.inf
        grads = torch.autograd.grad((out, lse), (q, k, v), (grad_out, grad_lse))
    assert torch.equal(out[:, :31], torch.zeros(1, 31, 2, 16))
    assert torch.equal(lse[..., :31], torch.full((1, 2, 31), -torch.inf))
    assert out[:, 31:].abs().min() > 0 and lse[..., 31:].isfinite().all()
    assert all(grad.isfinite().all() for grad in grads)
    assert torch.equal(grads[0][:, :31], torch.zeros(1, 31, 2, 16))


def test_strided_inputs():
    fused = torch.randn(2, 33, 3, 4, 24)  # one projection for q, k and v
    heads_first = torch.randn(2, 4, 33, 24).transpose(1, 2)
    dims_first = torch.randn(2, 24, 33, 4).permute(
        0, 2, 3, 1
    )  # the last dimension is not contiguous
    one_head = torch.randn(2, 33, 1, 24).expand(2, 33, 4, 24)
    for q, k, v in (
        fused.unbind(2),
        (heads_first, heads_first * 0.5, fused[:, :, 2]),
        (dims_first, dims_first.flip(1), dims_first),
        (one_head, one_head, one_head),
        tuple(x[:, ::2, ::2] for x in fused.unbind(2)),
        tuple(x[..., 1:] for x in fused.unbind(2)),
    ):
        copies = [x.contiguous() for x in (q, k, v)]
        assert torch.equal(ops.attention(q, k, v), ops.attention(*copies))
        check([q, k, v])


def test_strided_gradients():
    leaves = [x.requires_grad_() for x in make(Shape(2, 20, 30, 4, 2, 16, 12), torch.float32)]
    out, lse = ops.attention(*leaves, return_lse=True)
    grad = torch.randn(2, 12, 4, 20).permute(0, 3, 2, 1)
    grad_lse = torch.randn(2, 20, 4).transpose(1, 2)
    ours = torch.autograd.grad((out, lse), leaves, (grad, grad_lse), retain_graph=True)
    dense = (grad.contiguous(), grad_lse.contiguous())
    for a, b in zip(ours, torch.autograd.grad((out, lse), leaves, dense), strict=True):
        assert torch.equal(a, b)
    expanded = torch.autograd.grad(ops.attention(*leaves).sum(), leaves)  # a gradient of stride 0
    ones = torch.autograd.grad(ops.attention(*leaves), leaves, torch.ones_like(out))
    assert all(torch.equal(a, b) for a, b in zip(expanded, ones, strict=True))


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("step", [0.05, 3.0, -3.0, 40.0])
def test_rising_and_falling_scores(step, isa):
    # Every key raises the reference of the online softmax; weights underflow on the other side.
    q = torch.ones(1, 70, 1, 8)
    k = torch.arange(260.0).reshape(1, 260, 1, 1).expand(1, 260, 1, 8) * (step / 8)
    with use_isa(isa):
        v = torch.randn(1, 260, 1, 8)
        check([q, k, v], abs(260 * step), isa != "scalar", scale=1.0, causal="bottom_right")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_logits(dtype):
    q, k, v = make(Shape(1, 50, 120, 2, 2, 32, 32), dtype)
    check([q * 12, k * 12, v], largest_score=600)  # 4 of their standard deviations


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_special_values_are_where_the_reference_has_them(which, value, isa):
    tensors = make(Shape(2, 21, 40, 2, 2, 12, 10), torch.float32)
    tensors[which][1, 7, 1, 3] = value
    cotangents = [torch.randn(2, 21, 2, 10), torch.randn(2, 2, 21)]
    with use_isa(isa):
        ours = results(lambda *x: ops.attention(*x, return_lse=True), tensors, cotangents)
    exact = results(lambda *x: reference(*x, return_lse=True), tensors, cotangents)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_hidden_nan_reaches_no_other_row_than_in_the_reference():
    q, k, v = make(Shape(1, 70, 70, 1, 1, 16, 16), torch.float32)
    k[0, 40], v[0, 50] = torch.nan, torch.nan
    out, exact = ops.attention(q, k, v, causal=True), reference(q, k, v, causal=True)
    assert not (out.isnan() & ~exact.isnan()).any()
    assert out[:, 40:].isnan().all() and out[:, :16].isfinite().all()


def test_subnormal_half_precision_counts():
    # Below 2^-14 float16 is subnormal; the sum over values must still see it.
    v = torch.full((1, 40, 1, 16), 2.0**-20, dtype=torch.float16)
    q, k, _ = make(Shape(1, 5, 40, 1, 1, 16, 16), torch.float16)
    for isa in cpu_isas():
        with use_isa(isa):
            assert torch.equal(ops.attention(q, k, v), v[:, :5])


def test_lse_dtype_and_natural_units():
    q, k, v = make(Shape(1, 6, 9, 2, 2, 4, 4), torch.bfloat16)
    _, lse = ops.attention(q, k, v, return_lse=True)
    assert lse.dtype == torch.float32 and lse.shape == (1, 2, 6)
    scores = torch.einsum("bthd,bshd->bhts", q.double(), k.double()) / 2
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-6, atol=1e-6)
    assert (
        ops.attention(*make(Shape(1, 6, 9, 2, 2, 4, 4), torch.float64), return_lse=True)[1].dtype
        == torch.float64
    )


def test_plain_version_is_the_same_formula():
    # The yardstick of the error rule must itself be right.
    tensors = make(Shape(2, 12, 15, 4, 2, 8, 6), torch.float64)
    for causal in CAUSAL:
        for a, b in zip(
            plain(*tensors, causal=causal),
            reference(*tensors, causal=causal, return_lse=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=FLOOR[torch.float64] * 10, atol=1e-14)
