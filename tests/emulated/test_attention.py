"""The CUDA forward kernel of attention, executed by the emulator, against the float64 formula."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from emulated.attention_device import (
    TYPES,
    Cache,
    Params,
    check,
    check_cached,
    emulated,
    make,
)
from emulated.harness import SEEDS, Emulator, assert_coalesced

BF16, F16, F32 = TYPES
CAUSAL: dict[str, dict[str, Any]] = {
    "all": {},
    "top-left": {"right": 0},
    "bottom-right": {"right": 0, "top_left": False},
}
# B, T, S, H, G, D, Dv: three tiles of queries and of keys, and more.
SHAPES = [(1, 300, 270, 2, 1, 64, 64), (2, 65, 193, 2, 2, 40, 24), (1, 130, 70, 4, 2, 64, 32)]


def test_params_have_the_layout_of_the_struct() -> None:
    size = Emulator("attention").function("emulated_attention_params_bytes", ctypes.c_int64)
    assert size() == ctypes.sizeof(Params)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("causal", CAUSAL)
@pytest.mark.parametrize("dtype", TYPES)
def test_shapes(dtype: torch.dtype, causal: str, general: bool, seed: int) -> None:
    for shape in SHAPES:
        attention = emulated(dtype, seed, general=general)
        check(attention, *make(shape, dtype), **CAUSAL[causal])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("causal", CAUSAL)
def test_tf32(causal: str, seed: int) -> None:
    for shape in SHAPES:
        attention = emulated(F32, seed, tf32=True)
        check(attention, *make(shape, F32), tf32=True, **CAUSAL[causal])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("D", [1, 7, 16, 32, 33, 50, 80, 96, 100, 128, 136, 192, 200, 255, 256])
def test_head_dims(D: int, dtype: torch.dtype) -> None:
    for Dv in (D, max(1, D // 3)):
        tensors = make((1, 67, 83, 2, 1, D, Dv), dtype)
        check(emulated(dtype), *tensors, right=0, top_left=False)
        check(emulated(dtype, 1, "truncating", general=True), *tensors)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shift", [1, 2, 4])
def test_rows_at_any_address(shift: int, dtype: torch.dtype) -> None:
    check(emulated(dtype, shift=shift), *make((1, 40, 70, 2, 1, 32, 32), dtype))


@pytest.mark.parametrize("dtype", TYPES)
def test_strided_tensors(dtype: torch.dtype) -> None:
    q, k, v = make((2, 70, 90, 3, 3, 32, 32), dtype)
    joined = torch.stack([k, v], dim=3)
    turned = q.transpose(1, 2).contiguous().transpose(1, 2)
    check(emulated(dtype), turned, joined[..., 0, :], joined[..., 1, :])


@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 300), (300, 1), (0, 5), (5, 0), (129, 64)])
def test_few_rows(T: int, S: int) -> None:
    for dtype in TYPES:
        for options in CAUSAL.values():
            check(emulated(dtype), *make((1, T, S, 1, 1, 32, 32), dtype), **options)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("window", [(0, 0), (10, 0), (70, 5), (0, 100), (-1, 30), (130, -1)])
@pytest.mark.parametrize("top_left", [True, False])
def test_windows(top_left: bool, window: tuple[int, int], dtype: torch.dtype) -> None:
    left, right = window
    for T, S in ((300, 300), (200, 330), (330, 200)):
        tensors = make((1, T, S, 1, 1, 64, 64), dtype)
        check(emulated(dtype), *tensors, left=left, right=right, top_left=top_left)


def bias_of(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if kind == "mask":
        return torch.rand(shape, generator=generator) < 0.7
    bias = torch.randn(shape, generator=generator)
    if kind == "hidden":
        bias = bias.masked_fill(torch.rand(shape, generator=generator) < 0.2, -math.inf)
    return bias.to(dtype if kind == "same" else torch.float32)


def feature(name: str, dtype: torch.dtype, T: int, S: int, H: int) -> dict[str, Any]:
    slopes = torch.tensor([0.5, 0.1, 0.03, 0.7])[:H]
    sinks = torch.tensor([1.0, -math.inf, 3.0, -2.0])[:H]
    seed = torch.tensor([(5 << 40) + 77])
    return {
        "softcap": {"softcap": 2.5},
        "ALiBi": {"alibi_slopes": slopes, "right": 0, "top_left": False},
        "ALiBi of each sequence": {"alibi_slopes": torch.stack([slopes, 2 * slopes])},
        "sinks": {"sinks": sinks},
        "dropout": {"dropout": 0.3, "seed": seed},
        "dropout, causal": {"dropout": 0.6, "seed": seed, "right": 0},
        "mask": {"bias": bias_of("mask", (2, 1, T, S), dtype)},
        "mask of keys": {"bias": bias_of("mask", (2, 1, 1, S), dtype)},
        "bias": {"bias": bias_of("same", (1, H, T, S), dtype)},
        "float bias": {"bias": bias_of("wide", (2, H, T, S), dtype), "right": 3},
        "bias with hidden keys": {"bias": bias_of("hidden", (1, 1, T, S), dtype)},
        "negative scale": {"scale": -0.3},
        "no scale": {"scale": 0.0},
        "all": {
            **{"softcap": 3.0, "alibi_slopes": slopes, "sinks": sinks, "dropout": 0.2},
            **{"seed": seed, "bias": bias_of("same", (1, H, T, S), dtype), "left": 150},
            **{"right": 20, "top_left": False},
        },
    }[name]


FEATURES = [
    *("softcap", "ALiBi", "ALiBi of each sequence", "sinks", "dropout", "dropout, causal", "mask"),
    *("mask of keys", "bias", "float bias", "bias with hidden keys", "negative scale", "no scale"),
    "all",
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_features(name: str, dtype: torch.dtype, seed: int) -> None:
    T, S, H = 140, 170, 4
    tensors = make((2, T, S, H, 2, 32, 32), dtype)
    check(emulated(dtype, seed), *tensors, **feature(name, dtype, T, S, H))


@pytest.mark.parametrize("dtype", TYPES)
def test_features_of_wide_heads(dtype: torch.dtype) -> None:
    for D in (96, 128, 192, 256):
        tensors = make((1, 70, 90, 2, 1, D, D), dtype)
        check(emulated(dtype), *tensors, **feature("all", dtype, 70, 90, 2))


@pytest.mark.parametrize("general", [False, True])
def test_rows_without_keys(general: bool) -> None:
    """The first queries of a bottom-right mask see nothing."""
    for dtype in TYPES:
        tensors = make((1, 200, 30, 1, 1, 32, 32), dtype)
        attention = emulated(dtype, general=general)
        out, lse = attention(*tensors, scale=1.0, right=0, top_left=False)
        assert bool((out[:, :170] == 0).all()) and bool((lse[..., :170] == -math.inf).all())
        assert bool(lse[..., 170:].isfinite().all())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("dtype", [BF16, F16])
def test_bad_numbers_are_where_the_formula_has_them(
    dtype: torch.dtype, general: bool, bad: float
) -> None:
    q, k, v = make((1, 80, 90, 1, 1, 32, 32), dtype)
    q[0, 3, 0, 5] = bad
    v[0, 60, 0, 7] = bad
    check(emulated(dtype, general=general), q, k, v, right=0)


def packed(dtype: torch.dtype, rows: int) -> dict[str, Any]:
    def starts(*numbers: int) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int32)

    return {
        "cu_seqlens_q": starts(0, 5, 5, 150, 151, rows),
        "cu_seqlens_k": starts(0, 40, 60, 60, 199, 230),
    }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("causal", CAUSAL)
def test_packed_sequences(causal: str, dtype: torch.dtype, seed: int) -> None:
    tensors = make((1, 190, 230, 2, 1, 32, 32), dtype)
    q_used = torch.tensor([3, 0, 145, 1, 20], dtype=torch.int32)
    k_used = torch.tensor([40, 7, 0, 100, 31], dtype=torch.int32)
    sinks = torch.tensor([1.0, 2.0])
    for more in ({}, {"seqused_q": q_used}, {"seqused_k": k_used, "sinks": sinks}):
        options = packed(dtype, 190) | more | CAUSAL[causal]
        check(emulated(dtype, seed), *tensors, **options)


def test_rows_outside_of_all_sequences() -> None:
    q, k, v = make((1, 90, 60, 2, 1, 32, 32), BF16)
    starts = torch.tensor([10, 40, 55], dtype=torch.int32)
    ends = {"cu_seqlens_q": starts, "cu_seqlens_k": torch.tensor([0, 30, 60], dtype=torch.int32)}
    check(emulated(BF16), q, k, v, **ends)


@pytest.mark.parametrize("dtype", TYPES)
def test_used_rows(dtype: torch.dtype) -> None:
    tensors = make((3, 150, 170, 2, 2, 32, 32), dtype)
    used = {
        "seqused_q": torch.tensor([150, 0, 66], dtype=torch.int32),
        "seqused_k": torch.tensor([90, 170, 0], dtype=torch.int32),
    }
    for options in CAUSAL.values():
        check(emulated(dtype), *tensors, **used, **options)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["index", "left_pad", "pages", "pages of 7", "all"])
def test_caches(kind: str, dtype: torch.dtype, seed: int) -> None:
    q, k, v = make((3, 33, 140, 4, 2, 32, 32), dtype)
    used = torch.tensor([140, 61, 100], dtype=torch.int32)
    index = torch.tensor([2, 0, 1], dtype=torch.int32) if kind == "index" else None
    pad = torch.tensor([0, 5, 70], dtype=torch.int32) if kind in ("left_pad", "all") else None
    pages = None
    if kind in ("pages", "pages of 7", "all"):
        page = 7 if kind == "pages of 7" else 16
        count = -(-140 // page)
        generator = torch.Generator().manual_seed(1)
        pages = torch.randperm(3 * count, generator=generator).reshape(3, count).int()
        k, v = (torch.randn(3 * count, page, 2, 32, generator=generator).to(dtype) for _ in "kv")
    attention = emulated(dtype, seed)
    check_cached(attention, q, k, v, used, Cache(index, pad, pages), right=0)


def tiles_seen(T: int, S: int, rows: int, keys: int, causal: bool) -> int:
    """Tiles of keys that all blocks of queries go through."""
    ends = [min(S, start + rows) if causal else S for start in range(0, T, rows)]
    return sum(-(-end // keys) for end in ends)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_traffic_and_products_are_those_of_the_tiling(
    dtype: torch.dtype, general: bool, causal: bool
) -> None:
    """Each block of queries reads each key and value that it sees once, in whole sectors and without bank conflicts."""
    T, S, D = 384, 512, 64
    rows, keys, depth = (64, 64, 8) if dtype == F32 else (128, 64, 16)
    attention = emulated(dtype, general=general)
    attention(*make((1, T, S, 2, 1, D, D), dtype), scale=0.1, right=0 if causal else -1)
    assert attention.report is not None
    (launch,) = attention.report.launches
    assert_coalesced(launch.counters)
    tiles = tiles_seen(T, S, rows, keys, causal)
    row = D * dtype.itemsize
    assert launch.counters.copies * 16 == 2 * (T + 2 * tiles * keys) * row
    if not causal:  # a warp leaves out the tiles of which it sees nothing
        steps = rows // 16 * (keys // 8 * D // depth + D // 8 * keys // depth)
        assert launch.counters.mma == 2 * tiles * steps * (3 if dtype == F32 else 1)


def test_a_warp_leaves_out_what_it_does_not_see() -> None:
    attention = emulated(BF16)
    attention(*make((1, 128, 128, 1, 1, 64, 64), BF16), scale=0.1, right=0)
    assert attention.report is not None
    # Four warps of 32 rows: the first two see one tile of 64 keys, the others two; 128 products each.
    assert attention.report.counters.mma == (1 + 1 + 2 + 2) * 128


def test_pages_are_read_in_whole_sectors() -> None:
    attention = emulated(BF16)
    q, k, v = make((1, 64, 256, 2, 1, 64, 64), BF16)
    attention.cache = Cache(pages=torch.tensor([[3, 1, 0, 2]], dtype=torch.int32))
    attention(q, k.reshape(4, 64, 1, 64), v.reshape(4, 64, 1, 64), scale=0.1)
    assert attention.report is not None
    assert_coalesced(attention.report.counters)
