"""attention over a cache: values against the gathered formula, caches and pages, repeatability, wrong calls."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from ops import attention_append_calls as append_calls
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import suffuse
from suffuse import _library
from suffuse.ops import _attention_decode, attention, attention_append, attention_decode
from suffuse.reference import attention as reference
from suffuse.testing import assert_close_to_reference, cpu_isas, use_isa, use_threads

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FLOOR = {t: (8 if t.itemsize > 2 else 0.4) * torch.finfo(t).eps for t in DTYPES}


@dataclass(frozen=True)
class Shape:
    B: int
    T: int
    H: int
    G: int
    S: int
    D: int
    Dv: int

    def __str__(self) -> str:
        return "-".join(f"{name}{value}" for name, value in vars(self).items())


SHAPES = [
    Shape(1, 1, 1, 1, 1, 1, 1),
    Shape(2, 1, 4, 4, 37, 16, 16),
    Shape(1, 1, 8, 2, 700, 64, 64),
    Shape(3, 3, 6, 3, 300, 33, 19),
    Shape(1, 2, 32, 4, 130, 40, 128),
    Shape(2, 70, 4, 2, 200, 24, 24),  # too many rows for this kernel: the tiled one
]


def make(s: Shape, dtype: torch.dtype, entries: int | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    n = s.B if entries is None else entries
    sizes = ((s.B, s.T, s.H, s.D), (n, s.S, s.G, s.D), (n, s.S, s.G, s.Dv))
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def lengths(s: Shape) -> Tensor:
    """From T, the shortest there can be with T new keys, to S."""
    steps = [s.T + (s.S - s.T) * (b + 1) // s.B for b in range(s.B)]
    return torch.tensor(steps, dtype=torch.int32)


def plain(q: Tensor, k: Tensor, v: Tensor, used: Tensor) -> Tensor:
    """What one writes without the op, in the inputs' dtype."""
    heads, out = q.shape[2] // k.shape[2], []
    for b, S in enumerate(used.tolist()):
        keys, values = (x[b, :S].repeat_interleave(heads, 1) for x in (k, v))
        scores = torch.einsum("thd,shd->hts", q[b], keys) * q.shape[3] ** -0.5
        T = q.shape[1]
        hidden = torch.ones(T, S, dtype=torch.bool).triu(S - T + 1)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out.append(torch.einsum("hts,shd->thd", weights, values))
    return torch.stack(out)


def exact(q: Tensor, k: Tensor, v: Tensor, **given) -> tuple[Tensor, Tensor]:
    scale = q.shape[-1] ** -0.5
    given = {
        n: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        for n, x in given.items()
    }
    return reference.attention_decode(
        q.double(), k.double(), v.double(), scale=scale, **{"right": 0, **given}
    )


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(shape, dtype, isa):
    q, k, v = make(shape, dtype)
    used = lengths(shape)
    with use_isa(isa):
        out, lse = attention_decode(q, k, v, cache_seqlens=used, return_lse=True)
    expected, expected_lse = exact(q, k, v, cache_seqlens=used)
    assert_close_to_reference(out, plain(q, k, v, used), expected, FLOOR[dtype], "out")
    # The weights of 16-bit kernels, which lse sums up, are rounded to 16 bits.
    eps = torch.finfo(lse.dtype if dtype.itemsize > 2 else dtype).eps / (
        1 if dtype.itemsize > 2 else 16
    )
    torch.testing.assert_close(lse.double(), expected_lse, rtol=8 * eps, atol=16 * eps)


FEATURES = {
    "window": {"window": (20, None)},
    "softcap": {"softcap": 3.0},
    "alibi": {"alibi_slopes": torch.linspace(0.1, 1.0, 6)},
    "alibi of each": {"alibi_slopes": torch.linspace(0.1, 1.0, 18).reshape(3, 6)},
    "sinks": {"sinks": torch.tensor([0.5, -torch.inf, 3.0, 0.0, -2.0, 9.0])},
    "left pad": {"left_pad": torch.tensor([0, 7, 300], dtype=torch.int32)},
    "all keys": {"causal": False},
    "one split": {"splits": 1},
    "splits": {"splits": 5},
}


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("name", FEATURES)
def test_features(name, isa):
    shape = Shape(3, 2, 6, 3, 300, 24, 40)
    q, k, v = make(shape, torch.float64)
    options, used = dict(FEATURES[name]), lengths(shape)
    options = {n: x.double() if n in ("alibi_slopes", "sinks") else x for n, x in options.items()}
    with use_isa(isa):
        ours = attention_decode(q, k, v, cache_seqlens=used, **options, return_lse=True)
    formula = dict(options)
    window = formula.pop("window", (None, None))
    left = -1 if window[0] is None else window[0]
    right = 0 if formula.pop("causal", True) else -1
    expected = exact(q, k, v, cache_seqlens=used, left=left, right=right, **formula)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    if name == "left pad":  # the last sequence has no key left
        assert (ours[0][2] == 0).all() and (ours[1][2] == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("T", [1, 40])
def test_pages_are_where_the_table_says(T, dtype):
    shape = Shape(2, T, 4, 2, 96, 16, 8)
    q, k, v = make(shape, dtype)
    used = torch.tensor([50, 96], dtype=torch.int32)
    page, order = 16, torch.randperm(12, generator=torch.Generator().manual_seed(1))
    pool_k, pool_v = (torch.full((13, page, 2, x.shape[3]), torch.nan, dtype=dtype) for x in (k, v))
    pool_k[order], pool_v[order] = (x.unflatten(1, (-1, page)).flatten(0, 1) for x in (k, v))
    table = order.reshape(2, 6).to(torch.int32)
    paged = attention_decode(q, pool_k, pool_v, cache_seqlens=used, block_table=table)
    assert torch.equal(paged, attention_decode(q, k, v, cache_seqlens=used))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("T", [1, 40])
def test_cache_index_and_keys_past_the_end(T, dtype):
    shape = Shape(2, T, 4, 2, 64, 16, 16)
    q, k, v = make(shape, dtype, entries=5)
    used, index = torch.tensor([45, 64], dtype=torch.int32), torch.tensor([4, 1], dtype=torch.int32)
    expected = attention_decode(q, k[index], v[index], cache_seqlens=used)
    for entry, length in zip(index.tolist(), used.tolist(), strict=True):
        k[entry, length:], v[entry, length:] = torch.nan, torch.nan
    out = attention_decode(q, k, v, cache_seqlens=used, cache_index=index)
    assert torch.equal(out, expected)


def test_strided_caches():
    shape = Shape(2, 1, 4, 2, 80, 16, 16)
    q, k, v = make(shape, torch.float32)
    expected = attention_decode(q, k, v)
    heads_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]
    assert torch.equal(attention_decode(q, *heads_first), expected)
    both = torch.stack((k, v), dim=2)
    assert torch.equal(attention_decode(q, *both.unbind(2)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_do_not_change_the_bits(dtype):
    q, k, v = make(Shape(1, 1, 8, 2, 3000, 64, 64), dtype)
    results = []
    for threads in (1, 2, 3):
        with use_threads(threads):
            results.append(attention_decode(q, k, v, return_lse=True))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
def test_agrees_with_attention_step_by_step(heads):
    H, G = heads
    q, k, v = make(Shape(2, 33, H, G, 33, 16, 16), torch.float64)
    whole = attention(q, k, v, causal=True)
    k_cache, v_cache = torch.full_like(k, torch.nan), torch.full_like(v, torch.nan)
    for i in range(33):
        so_far = torch.full((2,), i, dtype=torch.int32)
        step = slice(i, i + 1)
        attention_append(k_cache, v_cache, k[:, step], v[:, step], cache_seqlens=so_far)
        out = attention_decode(q[:, step], k_cache, v_cache, cache_seqlens=so_far + 1)
        torch.testing.assert_close(out, whole[:, step], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ["plain", "index", "pages"])
def test_append(kind):
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(2, 5, 3, d, generator=generator) for d in (8, 4))
    so_far = torch.tensor([3, 10], dtype=torch.int32)
    options = {}
    entries, rows = 2, 16
    if kind == "index":
        entries, options["cache_index"] = 4, torch.tensor([3, 0], dtype=torch.int32)
    if kind == "pages":
        entries, rows = 9, 4
        options["block_table"] = torch.tensor([[8, 1, 2, 3], [4, 5, 6, 7]], dtype=torch.int32)
    ours = [torch.zeros(entries, rows, 3, d) for d in (8, 4)]
    expected = [x.clone() for x in ours]
    attention_append(*ours, k, v, cache_seqlens=so_far, **options)
    reference.attention_append(*expected, k, v, so_far, **options)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert expected[0].count_nonzero() == k.numel()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", append_calls.KINDS)
def test_append_leaves_the_right_bits(kind, dtype):
    for shape in append_calls.SHAPES:
        call = append_calls.make(shape, dtype, kind)
        append_calls.check(attention_append, call)
        head_first = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in call[:4])
        append_calls.check(attention_append, append_calls.Call(*head_first, call.options))


def test_append_on_cuda_takes_the_kernel(monkeypatch):
    """Every dtype; of tensors that have no memory, so that no device is needed."""
    calls = []
    monkeypatch.setattr(_library, "LOADED", ["cpu", "cuda"])
    monkeypatch.setattr(_attention_decode, "_append", lambda *call: calls.append(call))
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        with FakeTensorMode():
            cache, new = (torch.empty(2, n, 3, 300, device="cuda", dtype=dtype) for n in (16, 1))
            so_far = torch.zeros(2, device="cuda", dtype=torch.int64)
            attention_append(cache, cache, new, new, cache_seqlens=so_far)
        assert [x if x is None else x.dtype for x in calls.pop()] == [
            *[dtype] * 4, torch.int32, None, None,
        ]  # fmt: skip
    assert not calls


def test_empty():
    q, k, v = make(Shape(2, 1, 4, 2, 0, 8, 8), torch.float32)
    out, lse = attention_decode(q, k, v, return_lse=True)
    assert (out == 0).all() and (lse == -torch.inf).all()
    assert attention_decode(*make(Shape(0, 1, 4, 2, 5, 8, 8), torch.float32)).shape == (0, 1, 4, 8)
    assert attention_decode(*make(Shape(2, 0, 4, 2, 5, 8, 8), torch.float32)).shape == (2, 0, 4, 8)


def test_opcheck_and_compile():
    q, k, v = make(Shape(2, 1, 4, 2, 40, 8, 8), torch.float32)
    used = torch.tensor([40, 20], dtype=torch.int32)
    call = (q, k, v, used, None, None, None, 0.3, -1, 0, 0.0, None, None, 0)
    torch.library.opcheck(torch.ops.suffuse.attention_decode, call)
    new = (k[:, :1].clone(), v[:, :1].clone())
    torch.library.opcheck(
        torch.ops.suffuse.attention_append, (k.clone(), v.clone(), *new, used - 1, None, None)
    )
    compiled = torch.compile(attention_decode, fullgraph=True)
    assert torch.equal(
        compiled(q, k, v, cache_seqlens=used), attention_decode(q, k, v, cache_seqlens=used)
    )


WRONG = {
    "q rank": ({"q": torch.zeros(2, 4, 8)}, r"attention_decode: q.*\[B, T, H, D\]"),
    "heads": ({"q": torch.zeros(2, 1, 3, 8)}, "attention_decode: k_cache.*divides the 3 heads"),
    "head dim": ({"q": torch.zeros(2, 1, 4, 9)}, "attention_decode: k_cache.*D = 9"),
    "dtype": ({"k_cache": torch.zeros(2, 16, 2, 8).double()}, "attention_decode: k_cache"),
    "values": ({"v_cache": torch.zeros(2, 15, 2, 8)}, "attention_decode: v_cache"),
    "lengths shape": ({"cache_seqlens": torch.ones(3)}, "cache_seqlens: expected an int32"),
    "too long": ({"cache_seqlens": torch.tensor([3, 17])}, r"cache_seqlens.*\[0, 16\].*17"),
    "negative": ({"cache_seqlens": torch.tensor([-1, 3])}, r"cache_seqlens.*-1"),
    "index": ({"cache_index": torch.tensor([0, 2])}, r"cache_index.*\[0, 1\].*2"),
    "pad": ({"left_pad": torch.tensor([0, 17])}, r"left_pad.*17"),
    "page": ({"block_table": torch.tensor([[0], [2]])}, r"block_table.*\[0, 2\).*2"),
    "both": (
        {"block_table": torch.tensor([[0], [1]]), "cache_index": torch.tensor([0, 1])},
        "cache_index.*None with a block_table",
    ),
    "splits": ({"splits": -1}, "splits.*-1"),
    "scale": ({"scale": float("nan")}, "scale.*finite"),
    "softcap": ({"softcap": -1.0}, "softcap"),
    "window": ({"window": (1,)}, "window"),
    "slopes": ({"alibi_slopes": torch.zeros(3)}, "alibi_slopes"),
    "sinks": ({"sinks": torch.zeros(3)}, "sinks"),
    "not a tensor": ({"k_cache": 1}, "k_cache: expected a tensor, got int"),
    "gradient": (
        {"q": torch.zeros(2, 1, 4, 8, requires_grad=True)},
        "q: expected a tensor without",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    changes, message = WRONG[name]
    given = {
        "q": torch.zeros(2, 1, 4, 8),
        "k_cache": torch.zeros(2, 16, 2, 8),
        "v_cache": torch.zeros(2, 16, 2, 8),
        **changes,
    }
    with pytest.raises((RuntimeError, ValueError, TypeError), match=message):
        suffuse.attention_decode(
            given.pop("q"), given.pop("k_cache"), given.pop("v_cache"), **given
        )


def test_a_place_outside_of_the_cache_changes_nothing():
    k_cache, v_cache = torch.zeros(2, 4, 1, 2), torch.zeros(2, 4, 1, 2)
    k, v = torch.ones(2, 2, 1, 2), torch.ones(2, 2, 1, 2)
    with pytest.raises(RuntimeError, match=r"attention_append: cache_seqlens.*\[0, 2\].*3"):
        attention_append(k_cache, v_cache, k, v, cache_seqlens=torch.tensor([0, 3]))
    assert not k_cache.any() and not v_cache.any()
