"""suffuse.compat.flash_attn: the original's semantics, written out as a dense formula in float64."""

from __future__ import annotations

import math

import pytest
import torch

from suffuse.compat import flash_attn
from suffuse.compat.flash_attn import bert_padding
from suffuse.compat.flash_attn.layers import rotary

DOUBLE = torch.float64


def dense(q, k, v, *, causal=False, window=(-1, -1), softcap=0.0, slopes=None, scale=None):
    """q [T, H, D], k and v [S, G, D] of one sequence -> out [T, H, D], lse [H, T]."""
    T, S, heads = q.shape[0], k.shape[0], q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(heads, 1), v.repeat_interleave(heads, 1)
    scores = torch.einsum("thd,shd->hts", q, k) * (q.shape[2] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(T)[:, None] + S - T - torch.arange(S)
    if slopes is not None:
        scores = scores - slopes[:, None, None] * distance.abs()
    left, right = window[0], 0 if causal else window[1]
    hidden = torch.zeros(T, S, dtype=torch.bool)
    if left >= 0:
        hidden |= distance > left
    if right >= 0:
        hidden |= -distance > right
    scores = scores.masked_fill(hidden, -math.inf)
    weights = scores.softmax(-1).masked_fill(hidden, 0).nan_to_num(0)
    return torch.einsum("hts,shd->thd", weights, v), scores.logsumexp(-1)


def make(*sizes, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator, dtype=DOUBLE).to(dtype) for size in sizes]


OPTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"window_size": (3, 1)},
    "causal window": {"causal": True, "window_size": (4, 4)},
    "softcap": {"softcap": 2.0},
    "alibi": {"alibi_slopes": torch.tensor([0.1, 0.5, 0.2, 0.9], dtype=DOUBLE), "causal": True},
    "scale": {"softmax_scale": 0.7},
}


def formula(options):
    names = {"window_size": "window", "alibi_slopes": "slopes", "softmax_scale": "scale"}
    return {names.get(name, name): value for name, value in options.items()}


@pytest.mark.parametrize("lengths", [(9, 9), (5, 12), (12, 5)], ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_func(name, lengths):
    T, S = lengths
    q, k, v = make((2, T, 4, 8), (2, S, 2, 8), (2, S, 2, 8))
    out, lse, probabilities = flash_attn.flash_attn_func(
        q, k, v, **OPTIONS[name], return_attn_probs=True
    )
    assert probabilities is None
    for b in range(2):
        expected, expected_lse = dense(q[b], k[b], v[b], **formula(OPTIONS[name]))
        torch.testing.assert_close(out[b], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(lse[b], expected_lse, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_varlen(name):
    starts_q, starts_k = (
        torch.tensor([0, 5, 5, 12], dtype=torch.int32),
        torch.tensor([0, 7, 10, 13], dtype=torch.int32),
    )
    q, k, v = make((12, 4, 8), (13, 2, 8), (13, 2, 8))
    out, lse, _ = flash_attn.flash_attn_varlen_func(
        q, k, v, starts_q, starts_k, 7, 7, **OPTIONS[name], return_attn_probs=True
    )
    assert out.shape == q.shape and lse.shape == (4, 12)
    for n in range(3):
        rows = slice(*starts_q[n : n + 2].tolist())
        keys = slice(*starts_k[n : n + 2].tolist())
        expected, expected_lse = dense(q[rows], k[keys], v[keys], **formula(OPTIONS[name]))
        torch.testing.assert_close(out[rows], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(lse[:, rows], expected_lse, rtol=1e-12, atol=1e-12)


def test_packed_forms_are_views_of_the_same():
    (qkv,) = make((2, 9, 3, 4, 8), dtype=torch.float32)
    qkv.requires_grad_()
    q, k, v = qkv.unbind(2)
    expected = flash_attn.flash_attn_func(q, k, v, causal=True)
    (grad,) = torch.autograd.grad(expected.square().sum(), qkv)
    for out in (
        flash_attn.flash_attn_qkvpacked_func(qkv, causal=True),
        flash_attn.flash_attn_kvpacked_func(q, qkv[:, :, 1:], causal=True),
    ):
        assert torch.equal(out, expected)
        assert torch.equal(torch.autograd.grad(out.square().sum(), qkv)[0], grad)
    starts = torch.tensor([0, 9, 18], dtype=torch.int32)
    rows = qkv.flatten(0, 1)
    for out in (
        flash_attn.flash_attn_varlen_qkvpacked_func(rows, starts, 9, causal=True),
        flash_attn.flash_attn_varlen_kvpacked_func(
            rows[:, 0], rows[:, 1:], starts, starts, 9, 9, causal=True
        ),
    ):
        torch.testing.assert_close(out.unflatten(0, (2, 9)), expected)


def test_dropout_follows_the_generator_and_keeps_the_mean():
    q, v = torch.zeros(1, 64, 2, 16), torch.ones(1, 64, 2, 16)
    torch.manual_seed(3)
    first = flash_attn.flash_attn_func(q, q, v, dropout_p=0.25)
    torch.manual_seed(3)
    assert torch.equal(first, flash_attn.flash_attn_func(q, q, v, dropout_p=0.25))
    assert not torch.equal(first, flash_attn.flash_attn_func(q, q, v, dropout_p=0.25))
    assert abs(float(first.mean()) - 1) < 0.02


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pages", [False, True])
@pytest.mark.parametrize("T", [1, 3])
def test_with_kvcache(T, pages, causal):
    """Append, rotate and attend against the same done by hand."""
    B, S, H, G, D, R = 2, 24, 4, 2, 16, 8
    q, k, v, k_cache, v_cache = make(
        (B, T, H, D), (B, T, G, D), (B, T, G, D), (B, S, G, D), (B, S, G, D)
    )
    angles = torch.outer(torch.arange(S, dtype=DOUBLE), torch.logspace(0, -2, R // 2, dtype=DOUBLE))
    cos, sin = angles.cos(), angles.sin()
    so_far = torch.tensor([5, 17], dtype=torch.int32)
    expected_k, expected_v = k_cache.clone(), v_cache.clone()
    outs = []
    for b in range(B):
        at = slice(int(so_far[b]), int(so_far[b]) + T)
        turned = [x[b].clone() for x in (q, k)]
        for x, rows in zip(turned, (at if causal else [int(so_far[b])] * T, at), strict=True):
            c, s = cos[rows][:, None], sin[rows][:, None]
            even, odd = x[..., 0:R:2].clone(), x[..., 1:R:2].clone()
            x[..., 0:R:2], x[..., 1:R:2] = even * c - odd * s, odd * c + even * s
        expected_k[b, at], expected_v[b, at] = turned[1], v[b]
        outs.append(
            dense(turned[0], expected_k[b, : at.stop], expected_v[b, : at.stop], causal=causal)[0]
        )
    table = None
    caches = [k_cache, v_cache]
    if pages:
        order = torch.tensor([[3, 0, 5], [1, 4, 2]])
        caches = [torch.empty(6, 8, G, D, dtype=DOUBLE) for _ in caches]
        for pool, cache in zip(caches, (k_cache, v_cache), strict=True):
            pool[order.flatten()] = cache.reshape(6, 8, G, D)
        table = order.to(torch.int32)
    out = flash_attn.flash_attn_with_kvcache(
        q, *caches, k, v, cos, sin, so_far, block_table=table, causal=causal
    )
    torch.testing.assert_close(out, torch.stack(outs), rtol=1e-12, atol=1e-12)
    written = caches if table is None else [x[order].reshape(B, S, G, D) for x in caches]
    torch.testing.assert_close(written[0], expected_k)
    torch.testing.assert_close(written[1], expected_v)


def test_with_kvcache_and_a_length_for_all():
    q, k, v = make((2, 1, 4, 8), (2, 9, 2, 8), (2, 9, 2, 8))
    out, lse = flash_attn.flash_attn_with_kvcache(q, k, v, cache_seqlens=6, return_softmax_lse=True)
    for b in range(2):
        expected, expected_lse = dense(q[b], k[b, :6], v[b, :6])
        torch.testing.assert_close(out[b], expected)
        torch.testing.assert_close(lse[b], expected_lse)


def test_padding_there_and_back():
    (x,) = make((3, 5, 2, 4))
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 1], [1, 0, 1, 0, 1]])
    rows, indices, starts, longest, used = bert_padding.unpad_input(x, mask)
    assert torch.equal(rows, x[mask.bool()])
    assert starts.tolist() == [0, 2, 6, 9] and starts.dtype == torch.int32
    assert longest == 4 and used.tolist() == [2, 4, 3]
    back = bert_padding.pad_input(rows, indices, 3, 5)
    assert torch.equal(back, x * mask[..., None, None])
    unused = torch.tensor([[0, 0, 1, 0, 0], [0] * 5, [0] * 5])
    rows, _, starts, _, used = bert_padding.unpad_input(x, mask, unused)
    assert starts.tolist() == [0, 3, 7, 10] and used.tolist() == [2, 4, 3] and len(rows) == 10


def test_padding_has_gradients():
    x = torch.randn(2, 3, 4, dtype=DOUBLE, requires_grad=True)
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]])

    def there_and_back(x):
        rows, indices, *_ = bert_padding.unpad_input(x, mask)
        return bert_padding.pad_input(rows * 2, indices, 2, 3)

    assert torch.autograd.gradcheck(there_and_back, (x,))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved):
    x, angles = make((2, 5, 3, 12), (9, 4))
    cos, sin = angles.cos(), angles.sin()
    c, s = cos[2:7, None], sin[2:7, None]
    first, second = (slice(0, 8, 2), slice(1, 8, 2)) if interleaved else (slice(0, 4), slice(4, 8))
    expected = x.clone()
    expected[..., first] = x[..., first] * c - x[..., second] * s
    expected[..., second] = x[..., second] * c + x[..., first] * s
    out = rotary.apply_rotary_emb(x, cos, sin, interleaved, seqlen_offsets=2)
    torch.testing.assert_close(out, expected)
    written = x.clone()
    assert rotary.apply_rotary_emb(written, cos, sin, interleaved, True, 2) is written
    torch.testing.assert_close(written, expected)
    rows = rotary.apply_rotary_emb(
        x.flatten(0, 1),
        cos,
        sin,
        interleaved,
        cu_seqlens=torch.tensor([0, 5, 10], dtype=torch.int32),
    )
    both = rotary.apply_rotary_emb(x, cos, sin, interleaved)
    torch.testing.assert_close(rows, both.flatten(0, 1))


def test_rotary_of_packed_projections():
    qkv, angles = make((2, 5, 3, 2, 8), (5, 4))
    cos, sin = angles.cos(), angles.sin()
    q, k = (rotary.apply_rotary_emb(x, cos, sin) for x in qkv.unbind(2)[:2])
    expected = torch.stack((q, k, qkv[:, :, 2]), dim=2)
    torch.testing.assert_close(rotary.apply_rotary_emb_qkv_(qkv.clone(), cos, sin), expected)
    grouped = qkv.flatten(2, 3)
    torch.testing.assert_close(
        rotary.apply_rotary_emb_qkv_(grouped.clone(), cos, sin, num_heads_q=2),
        expected.flatten(2, 3),
    )
    kv = rotary.apply_rotary_emb_kv_(qkv[:, :, 1:].clone(), cos, sin)
    torch.testing.assert_close(kv, torch.stack((k, qkv[:, :, 2]), dim=2))


WRONG = {
    "probabilities": (
        lambda q: flash_attn.flash_attn_func(q, q, q, 0.1, return_attn_probs=True),
        NotImplementedError,
        "return_attn_probs",
    ),
    "pages": (
        lambda q: flash_attn.flash_attn_varlen_func(
            q[0], q[0], q[0], *[torch.tensor([0, 4])] * 2, 4, 4, block_table=torch.zeros(1, 1)
        ),
        NotImplementedError,
        "block_table",
    ),
    "key alone": (
        lambda q: flash_attn.flash_attn_with_kvcache(q, q, q, q),
        ValueError,
        "v: expected k and v together",
    ),
    "cos alone": (
        lambda q: flash_attn.flash_attn_with_kvcache(q, q, q, q, q, torch.zeros(4, 4)),
        ValueError,
        "rotary_sin",
    ),
    "rotary without key": (
        lambda q: flash_attn.flash_attn_with_kvcache(q, q, q, None, None, *[torch.zeros(4, 4)] * 2),
        ValueError,
        "rotary_cos",
    ),
    "heads of packed": (
        lambda q: rotary.apply_rotary_emb_qkv_(q, torch.zeros(4, 4), torch.zeros(4, 4)),
        ValueError,
        "num_heads_q",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call(torch.zeros(1, 4, 2, 8))
