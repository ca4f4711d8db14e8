"""Attention on the bfloat16 units, AMX and AVX512-BF16: the sizes that go there, their own edges.

float16 goes there too, to AMX, as sums of two bfloat16 numbers.
"""

from __future__ import annotations

import attention_features as features
import pytest
import torch
import torch.nn.functional as F
from attention_inputs import CAUSAL, Shape, check, make, results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suffuse import ops
from suffuse.reference.attention import attention as reference
from suffuse.testing import cpu_isas, relative_error, use_isa, use_threads

BF16, F16 = torch.bfloat16, torch.float16
UNITS = [
    (isa, dtype)
    for isa, dtype in (("avx512_bf16", BF16), ("amx", BF16), ("amx", F16))
    if isa in cpu_isas()
]
units = pytest.mark.parametrize(("isa", "dtype"), UNITS, ids=str)

# Panels are of 32 queries, groups of 32 keys, jobs of 128 keys, tiles of 16 and 32 dimensions.
SHAPES = [
    Shape(1, 16, 16, 1, 1, 1, 1),
    Shape(1, 32, 32, 1, 1, 32, 32),
    Shape(1, 33, 129, 2, 1, 64, 64),
    Shape(2, 65, 63, 4, 2, 40, 24),
    Shape(1, 31, 300, 3, 3, 17, 48),
    Shape(1, 257, 160, 2, 1, 80, 96),
    Shape(1, 130, 201, 6, 1, 16, 128),
    Shape(1, 48, 97, 1, 1, 512, 7),
    Shape(1, 40, 50, 1, 1, 7, 512),
    Shape(9, 96, 128, 1, 1, 64, 33),
]


@units
@pytest.mark.parametrize("causal", CAUSAL)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_rule(shape, causal, isa, dtype):
    with use_isa(isa):
        check(make(shape, dtype), causal=causal)


@pytest.mark.skipif(not UNITS, reason="this CPU has no bfloat16 units")
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    groups = draw(st.integers(1, 2))
    shape = Shape(
        draw(st.integers(1, 2)),
        draw(st.integers(16, 300)),
        draw(st.integers(16, 300)),
        groups * draw(st.integers(1, 3)),
        groups,
        draw(st.integers(1, 140)),
        draw(st.integers(1, 140)),
    )
    isa, dtype = draw(st.sampled_from(UNITS))
    with use_isa(isa):
        check(
            make(shape, dtype, seed=draw(st.integers(0, 99))),
            causal=draw(st.sampled_from(CAUSAL)),
            scale=draw(st.sampled_from([None, 0.3, -0.2])),
        )


@units
@pytest.mark.parametrize("names", [("window",), ("sinks",), ("packed",), ("used", "window")])
def test_features_that_only_choose_keys(names, isa, dtype):
    case = features.make((*names, "causal"), dtype, B=3, T=150, S=280, H=2, G=1, D=64, Dv=64)
    with use_isa(isa):
        features.check(case)


MODIFIED = [
    ("softcap",),
    ("alibi",),
    ("bias",),
    ("mask",),
    ("dropout",),
    ("bias", "causal", "sinks"),
    ("mask", "window", "dropout"),
    ("softcap", "alibi", "causal"),
    ("softcap", "alibi", "used", "window"),
    ("alibi", "packed", "dropout"),
]


@units
@pytest.mark.parametrize("names", MODIFIED, ids="-".join)
def test_features_that_change_scores(names, isa, dtype):
    case = features.make(names, dtype, B=2, T=150, S=280, H=2, G=1, D=64, Dv=40)
    with use_isa(isa):
        features.check(case)


@units
@pytest.mark.parametrize("across", [False, True], ids=["keys adjacent", "queries adjacent"])
@pytest.mark.parametrize("kind", ["mask", "wide", "same"])
@pytest.mark.parametrize("shape", [(2, 4, 70, 97), (1, 1, 70, 97), (2, 1, 1, 97), (1, 4, 70, 1)])
def test_bias_of_any_form(shape, kind, across, isa, dtype):
    case = features.make((), dtype, T=70, S=97, D=32, Dv=24)
    bias = torch.randn(shape)
    if kind == "mask":
        case.options["bias"] = bias > -1
    else:
        bias[..., : shape[3] // 4] = -torch.inf
        case.options["bias"] = bias.to(torch.float32 if kind == "wide" else dtype)
        case.variables = ("bias",)
    if across:
        case.options["bias"] = case.options["bias"].mT.contiguous().mT
    with use_isa(isa):
        features.check(case)


@units
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_softcap_near_zero_and_saturated(size, isa, dtype):
    # The arguments of tanh are below 0.05, on both sides of the polynomial's limit, and above 10.
    case = features.make((), dtype, T=70, S=97, D=64, Dv=24)
    case.options["softcap"] = 3.0
    case.q.mul_(size)
    with use_isa(isa):
        features.check(case)


@units
@pytest.mark.parametrize("causal", CAUSAL)
def test_steep_slopes(causal, isa, dtype):
    # The nearest keys, which are among the last or in the middle, have nearly all of the weight.
    case = features.make((), dtype, B=1, T=400, S=460, H=2, G=2)
    case.options |= {"alibi_slopes": torch.tensor([0.7, 3.0]), "causal": causal}
    with use_isa(isa):
        features.check(case)


@units
def test_masked_rows_are_zero(isa, dtype):
    q, k, v = (x.requires_grad_() for x in make(Shape(1, 90, 140, 2, 1, 16, 16), dtype))
    mask = torch.rand(1, 2, 90, 140) > 0.3
    mask[:, :, 40:50] = False
    mask[..., :128] &= torch.arange(90).ge(60)[:, None]  # until 60 the first keys are hidden
    with use_isa(isa):
        out, lse = ops.attention(q, k, v, bias=mask, return_lse=True)
        grads = torch.autograd.grad(out, (q, k, v), torch.randn_like(out))
    exact = reference(*(x.detach().double() for x in (q, k, v)), bias=mask, return_lse=True)
    assert not out[:, 40:50].any() and not grads[0][:, 40:50].any()
    assert torch.equal(lse[..., 40:50], torch.full((1, 2, 10), -torch.inf))
    torch.testing.assert_close(lse.double(), exact[1], rtol=1e-6, atol=2e-4)
    assert relative_error(out, exact[0]) < 4e-3 and all(x.isfinite().all() for x in grads)


@units
@pytest.mark.parametrize("shape", [(2, 4, 300, 200), (1, 4, 300, 200), (1, 1, 1, 200)])
def test_the_same_bits_with_features(shape, isa, dtype):
    case = features.make(("softcap", "alibi", "dropout"), dtype, T=300, S=200, D=32, Dv=32)
    case.options["bias"] = torch.randn(shape)
    case.variables = ("bias",)
    runs = []
    with use_isa(isa):
        for threads in (1, 2, 3, 3):
            with use_threads(threads):
                runs.append(features.run(ops.attention, case))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@units
@pytest.mark.parametrize("step", [0.05, 3.0, -3.0, 40.0])
def test_rising_and_falling_scores(step, isa, dtype):
    # At 3 and 40 the sum of weights passes 2^64 many times, so that the reference has to move.
    q = torch.ones(1, 70, 1, 8, dtype=dtype)
    keys = torch.arange(400.0).mul(step / 8).to(dtype)
    k = keys.reshape(1, 400, 1, 1).expand(1, 400, 1, 8)
    v = torch.randn(1, 400, 1, 8, dtype=dtype)
    with use_isa(isa):
        out, lse = ops.attention(q, k, v, scale=1.0, causal="bottom_right", return_lse=True)
    exact = reference(
        *(x.double() for x in (q, k, v)), scale=1.0, causal="bottom_right", return_lse=True
    )
    torch.testing.assert_close(lse.double(), exact[1], rtol=1e-6, atol=2e-4)
    assert relative_error(out, exact[0]) < 4e-3


@units
def test_one_key_decides(isa, dtype):
    # The weights of all others are 0: the row is the value, exactly.
    q, k, v = make(Shape(1, 64, 200, 2, 2, 32, 48), dtype)
    k[:, 170] = q.mean(1) * 0 + 4
    with use_isa(isa):
        out = ops.attention(q.abs() + 4, k.clamp(max=4), v, scale=30.0)
    assert torch.equal(out, v[:, 170:171].expand_as(out))


@units
def test_the_same_bits_for_any_number_of_threads(isa, dtype):
    for shape in (Shape(1, 300, 410, 1, 1, 64, 64), Shape(2, 700, 130, 4, 2, 48, 80)):
        tensors = make(shape, dtype)
        cotangents = [
            torch.randn(shape.B, shape.T, shape.H, shape.Dv),
            torch.randn(shape.B, shape.H, shape.T),
        ]
        runs = []
        with use_isa(isa):
            for threads in (1, 2, 3, 3):
                with use_threads(threads):
                    runs.append(
                        results(
                            lambda *x, **o: ops.attention(*x, **o, return_lse=True),
                            tensors,
                            cotangents,
                            causal="bottom_right",
                        )
                    )
        for other in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@units
def test_rows_without_keys_are_zero(isa, dtype):
    q, k, v = (x.requires_grad_() for x in make(Shape(1, 90, 40, 2, 1, 16, 16), dtype))
    with use_isa(isa):
        out, lse = ops.attention(q, k, v, causal="bottom_right", return_lse=True)
        grad_lse = torch.randn_like(lse)
        grad_lse[..., :50] = torch.inf
        grads = torch.autograd.grad((out, lse), (q, k, v), (torch.randn_like(out), grad_lse))
    assert not out[:, :50].any() and out[:, 50:].abs().amin((0, 2, 3)).gt(0).all()
    assert torch.equal(lse[..., :50], torch.full((1, 2, 50), -torch.inf))
    assert lse[..., 50:].isfinite().all()
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[0][:, :50].any()


@units
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_special_values_are_where_the_reference_has_them(which, value, isa, dtype):
    tensors = make(Shape(2, 37, 40, 2, 2, 12, 10), dtype)
    tensors[which][1, 7, 1, 3] = value
    with use_isa(isa):
        ours = ops.attention(*tensors, return_lse=True)
    exact = reference(*(x.double() for x in tensors), return_lse=True)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-2, atol=2e-2, equal_nan=True)


@units
def test_strided_inputs(isa, dtype):
    fused = torch.randn(2, 45, 3, 4, 24, dtype=dtype)
    heads_first = torch.randn(2, 4, 45, 24, dtype=dtype).transpose(1, 2)
    one_head = torch.randn(2, 45, 1, 24, dtype=dtype).expand(2, 45, 4, 24)
    with use_isa(isa):
        for q, k, v in (
            fused.unbind(2),
            (heads_first, one_head, fused[:, :, 2]),
            tuple(x[:, ::2, ::2] for x in fused.unbind(2)),
            tuple(x[..., 1:] for x in fused.unbind(2)),
        ):
            copies = [x.contiguous() for x in (q, k, v)]
            assert torch.equal(ops.attention(q, k, v), ops.attention(*copies))


@units
@pytest.mark.parametrize(("causal", "biased"), [(False, False), (True, False), (False, True)])
def test_errors_are_at_most_those_of_torch(causal, biased, isa, dtype):
    bias = torch.randn(1, 2, 1024, 1024, dtype=dtype) if biased else None
    # Long enough that torch, too, adds gradients of several blocks of keys.
    tensors = make(Shape(1, 1024, 1024, 2, 2, 64, 64), dtype)
    grad = torch.randn(1, 1024, 2, 64, dtype=dtype)

    def gradients(function, *inputs):
        leaves = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*leaves), leaves, grad.to(leaves[0].dtype))

    def torch_attention(*x):
        q, k, v = (t.transpose(1, 2) for t in x)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal)
        return out.transpose(1, 2)

    with use_isa(isa):
        ours = gradients(lambda *x: ops.attention(*x, causal=causal, bias=bias), *tensors)
    theirs = gradients(torch_attention, *tensors)
    wide = None if bias is None else bias.double()
    exact = gradients(
        lambda *x: reference(*x, causal=causal, bias=wide), *(x.double() for x in tensors)
    )
    for a, b, c in zip(ours, theirs, exact, strict=True):
        assert relative_error(a, c) <= relative_error(b, c)
