"""The features of attention against its float64 reference: each alone, any together, every instruction set."""

from __future__ import annotations

import pytest
import torch
from attention_features import FEATURES, FeatureCase, any_case, check, make, run
from attention_inputs import DTYPES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suffuse import ops
from suffuse.reference.attention import attention as reference
from suffuse.testing import cpu_isas, use_isa, use_threads

F64 = torch.float64


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("feature", FEATURES)
def test_each_alone(feature, dtype, isa):
    with use_isa(isa):
        check(make((feature,), dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("feature", FEATURES)
def test_over_several_blocks(feature, dtype):
    # More queries than one block and more keys than several; one head, so that the backward is chunked.
    check(make((feature, "causal"), dtype, B=1, T=330, S=410, H=1, G=1, D=64, Dv=64))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=any_case(DTYPES), isa=st.sampled_from(cpu_isas()))
def test_any_together(case, isa):
    with use_isa(isa):
        check(case)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize(
    "features",
    [("window", "packed", "softcap"), ("bias", "dropout"), ("mask", "alibi", "sinks", "used")],
    ids="+".join,
)
def test_the_same_bits_for_any_number_of_threads(features, isa):
    case = make(features, torch.float32, B=3, T=400, S=300)
    with use_isa(isa):
        results = []
        for threads in (1, 2, 3, 3):
            with use_threads(threads):
                results.append(run(ops.attention, case))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("shape", [(2, 3, 17, 23), (1, 3, 1, 23), (2, 1, 17, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_every_broadcast_of_a_bias(shape, kind):
    case = make((), torch.bfloat16, B=2, T=17, S=23, H=3, G=1)
    case.options["bias"] = torch.randn(shape, dtype=kind)
    case.variables = ("bias",)
    check(case)


def test_a_bias_of_any_strides():
    case = make((), torch.float32, B=2, T=40, S=50, H=2, G=2)
    dense = torch.randn(2, 2, 40, 50)
    expected = run(ops.attention, FeatureCase(case.q, case.k, case.v, {"bias": dense}, ("bias",)))
    wide = torch.zeros(2, 2, 80, 150)
    wide[:, :, ::2, ::3] = dense
    strided = wide[:, :, ::2, ::3]
    for bias in (strided, dense.mT.contiguous().mT, dense.flip(3).flip(3)):
        case.options["bias"] = bias
        case.variables = ("bias",)
        for a, b in zip(run(ops.attention, case), expected, strict=True):
            assert torch.equal(a, b)
    row = torch.randn(2, 1, 1, 50)
    for bias in (row, row.expand(2, 2, 40, 50)):
        out = ops.attention(case.q, case.k, case.v, bias=bias)
        torch.testing.assert_close(out, reference(case.q, case.k, case.v, bias=bias))


@pytest.mark.parametrize("isa", cpu_isas())
def test_rows_without_a_visible_key(isa):
    q, k, v = (torch.randn(2, n, 2, 16, requires_grad=True) for n in (40, 130, 130))
    mask = torch.rand(2, 1, 40, 130) > 0.3
    mask[0, 0, 5], mask[1, 0, 20:36] = False, False
    sinks = torch.randn(2, requires_grad=True)
    with use_isa(isa):
        out, lse = ops.attention(q, k, v, bias=mask, return_lse=True)
        grads = torch.autograd.grad((out.sum() + lse[lse.isfinite()].sum()), (q, k, v))
        with_sink, sink_lse = ops.attention(q, k, v, bias=mask, sinks=sinks, return_lse=True)
        (grad_sinks,) = torch.autograd.grad(sink_lse.sum(), sinks)
    for b, rows in ((0, [5]), (1, list(range(20, 36)))):
        assert torch.equal(out[b, rows], torch.zeros(len(rows), 2, 16))
        assert torch.equal(lse[b, :, rows], torch.full((2, len(rows)), -torch.inf))
        assert torch.equal(grads[0][b, rows], torch.zeros(len(rows), 2, 16))
        assert torch.equal(with_sink[b, rows], torch.zeros(len(rows), 2, 16))
        torch.testing.assert_close(sink_lse[b, :, rows], sinks[:, None].expand(2, len(rows)))
    assert all(g.isfinite().all() for g in (*grads, grad_sinks))


def test_a_padding_mask_is_the_same_as_shorter_sequences():
    q, k, v = (torch.randn(2, 300, 2, 24) for _ in range(3))
    lengths = torch.tensor([77, 290], dtype=torch.int32)
    mask = torch.arange(300).reshape(1, 1, 1, -1) < lengths.reshape(-1, 1, 1, 1)
    masked = ops.attention(q, k, v, bias=mask)
    shorter = ops.attention(q, k, v, seqused_k=lengths, causal=False)
    torch.testing.assert_close(masked, shorter)


@pytest.mark.parametrize("features", [("packed",), ("used",), ("packed", "used")], ids="+".join)
def test_rows_of_no_sequence_are_never_read_and_come_out_empty(features):
    case = make(features, torch.float32, B=4, T=50, S=60)
    clean = run(ops.attention, case)
    ones = [torch.ones_like(x, requires_grad=True) for x in (case.q, case.k, case.v)]
    touched = torch.autograd.grad(
        reference(*ones, **case.options, return_lse=True)[1].nan_to_num(neginf=0).sum(),
        ones[:2],
    )
    inside_k = touched[1].abs().sum((2, 3)) > 0
    inside_q = clean[1].isfinite().any(1)
    q, k, v = case.q.clone(), case.k.clone(), case.v.clone()
    q[~inside_q], k[~inside_k], v[~inside_k] = torch.nan, torch.nan, torch.nan
    poisoned = run(ops.attention, FeatureCase(q, k, v, case.options))
    assert (~inside_q).any() and (~inside_k).any()
    for name, a, b in zip(case.names, poisoned, clean, strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(clean[0][~inside_q], torch.zeros_like(clean[0][~inside_q]))
    for x, inside in ((clean[2], inside_q), (clean[3], inside_k), (clean[4], inside_k)):
        assert torch.equal(x[~inside], torch.zeros_like(x[~inside]))


def test_packed_is_the_same_as_one_by_one():
    lengths = [(1, 1), (64, 64), (0, 5), (100, 37), (5, 0), (33, 130)]
    parts = [
        [torch.randn(n, 4, 16), torch.randn(m, 2, 16), torch.randn(m, 2, 8)] for n, m in lengths
    ]
    q, k, v = (torch.cat(x).unsqueeze(0) for x in zip(*parts, strict=True))
    offsets = [torch.tensor([0, *x]).cumsum(0).to(torch.int32) for x in zip(*lengths, strict=True)]
    out, lse = ops.attention(
        q, k, v, cu_seqlens_q=offsets[0], cu_seqlens_k=offsets[1], causal="bottom_right",
        return_lse=True, max_seqlen_q=100, max_seqlen_k=130,
    )  # fmt: skip
    single = [
        ops.attention(*(x.unsqueeze(0) for x in p), causal="bottom_right", return_lse=True)
        for p in parts
    ]
    assert torch.equal(out, torch.cat([o for o, _ in single], 1))
    assert torch.equal(lse, torch.cat([x for _, x in single], 2))


def test_a_wide_window_is_none():
    q, k, v = (torch.randn(1, 200, 2, 32) for _ in range(3))
    assert torch.equal(ops.attention(q, k, v, window=(199, 199)), ops.attention(q, k, v))
    assert torch.equal(ops.attention(q, k, v, window=(500, 0)), ops.attention(q, k, v, causal=True))


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("slope", [0.01, 1.0, 30.0])
def test_steep_slopes(slope, isa):
    # Weights far from the diagonal underflow; the reference of the online softmax follows it.
    case = make(("alibi", "causal"), torch.float32, B=1, T=300, S=300)
    case.options["alibi_slopes"] = torch.full((4,), slope)
    with use_isa(isa):
        check(case)


def test_dropout_keeps_the_mean_and_the_seed_decides():
    q, k = torch.randn(1, 64, 2, 16), torch.randn(1, 512, 2, 16)
    v = torch.ones(1, 512, 2, 4)
    first, second, other = (ops.attention(q, k, v, dropout=0.3, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert abs(float(first.mean()) - 1) < 0.02 and float(first.std()) > 0.005


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0), (0, 0)], ids=["T=0", "S=0", "both"])
@pytest.mark.parametrize("feature", ["bias", "alibi", "softcap", "sinks", "dropout", "window"])
def test_nothing_to_attend(feature, sizes):
    case = make((feature,), torch.float32, T=sizes[0], S=sizes[1])
    for a, b in zip(run(ops.attention, case), run(reference, case), strict=True):
        torch.testing.assert_close(a, b)


def test_no_sequences():
    empty = torch.zeros(1, dtype=torch.int32)
    q, k = torch.randn(1, 3, 4, 8), torch.randn(1, 5, 2, 8)
    out, lse = ops.attention(q, k, k, cu_seqlens_q=empty, cu_seqlens_k=empty, return_lse=True)
    assert torch.equal(out, torch.zeros(1, 3, 4, 8))
    assert torch.equal(lse, torch.full((1, 4, 3), -torch.inf))


def tiny(features):
    return make(features, F64, B=2, T=4, S=5, H=2, G=1, D=3, Dv=2)


def leaves_and_function(case):
    names = case.variables
    leaves = [x.requires_grad_() for x in (case.q, case.k, case.v)]
    leaves += [case.options[name].requires_grad_() for name in names]

    def function(q, k, v, *rest):
        options = case.options | dict(zip(names, rest, strict=True))
        out, lse = ops.attention(q, k, v, **options, return_lse=True)
        return out, lse.masked_fill(lse == -torch.inf, 0)

    return function, leaves


@pytest.mark.parametrize(
    "features",
    [*((f,) for f in FEATURES), ("bias", "softcap", "sinks", "causal"), ("packed", "dropout")],
    ids="+".join,
)
def test_gradcheck_and_gradgradcheck(features):
    function, leaves = leaves_and_function(tiny(features))
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)
