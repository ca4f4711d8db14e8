"""The CUDA kernels of split-KV decoding, executed by the emulator, against the float64 formula."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import pytest
import torch

from emulated.attention_device import (
    LIBRARIES,
    TYPES,
    Cache,
    DecodeParams,
    EmulatedDecode,
    check,
    check_cached,
    make,
)
from emulated.harness import SEEDS, Emulator, assert_coalesced

BF16, F16, F32 = TYPES
BOTTOM_RIGHT: dict[str, Any] = {"right": 0, "top_left": False}


def decoding(
    dtype: torch.dtype, seed: int = 0, mma: str = "ideal", **options: Any
) -> EmulatedDecode:
    return EmulatedDecode(Emulator(LIBRARIES[dtype], seed=seed, mma=mma), **options)


def test_params_have_the_layout_of_the_struct() -> None:
    size = Emulator("attention").function("emulated_attention_decode_params_bytes", ctypes.c_int64)
    assert size() == ctypes.sizeof(DecodeParams)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("splits", [0, 1, 3, 7])
def test_splits(splits: int, dtype: torch.dtype, seed: int) -> None:
    for shape in ((2, 1, 500, 4, 2, 64, 64), (1, 5, 413, 8, 1, 64, 40), (1, 1, 1, 1, 1, 64, 64)):
        check(decoding(dtype, seed, splits=splits), *make(shape, dtype), **BOTTOM_RIGHT)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("D", [1, 32, 39, 50, 96, 128, 192, 256])
def test_head_dims(D: int, dtype: torch.dtype) -> None:
    for mma in ("ideal", "truncating"):
        tensors = make((1, 2, 150, 6, 2, D, max(1, D - 3)), dtype)
        check(decoding(dtype, 1, mma, splits=2), *tensors, **BOTTOM_RIGHT)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["window", "softcap", "ALiBi", "sinks", "all"])
def test_features(name: str, dtype: torch.dtype, seed: int) -> None:
    slopes = torch.tensor([[0.5, 0.1, 0.03, 0.7], [0.2, 0.3, 0.05, 0.01]])
    every: dict[str, Any] = {
        "window": {"left": 100, "right": 3},
        "softcap": {"softcap": 2.5},
        "ALiBi": {"alibi_slopes": slopes},
        "sinks": {"sinks": torch.tensor([1.0, -math.inf, 3.0, -2.0])},
    }
    options = {k: v for o in every.values() for k, v in o.items()} if name == "all" else every[name]
    tensors = make((2, 3, 300, 4, 2, 64, 64), dtype)
    check(decoding(dtype, seed, splits=3), *tensors, top_left=False, **options)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["index", "left_pad", "pages", "pages of 7", "all"])
def test_caches(kind: str, dtype: torch.dtype, seed: int) -> None:
    q, k, v = make((3, 2, 340, 4, 2, 32, 32), dtype)
    used = torch.tensor([340, 61, 0], dtype=torch.int32)
    index = torch.tensor([2, 0, 1], dtype=torch.int32) if kind == "index" else None
    pad = torch.tensor([0, 5, 70], dtype=torch.int32) if kind in ("left_pad", "all") else None
    pages = None
    if kind in ("pages", "pages of 7", "all"):
        page = 7 if kind == "pages of 7" else 16
        count = -(-340 // page)
        generator = torch.Generator().manual_seed(1)
        pages = torch.randperm(3 * count, generator=generator).reshape(3, count).int()
        k, v = (torch.randn(3 * count, page, 2, 32, generator=generator).to(dtype) for _ in "kv")
    check_cached(decoding(dtype, seed, splits=4), q, k, v, used, Cache(index, pad, pages), right=0)


def test_same_bits_in_every_order() -> None:
    tensors = make((1, 1, 700, 8, 2, 64, 64), BF16)
    options: dict[str, Any] = {"scale": 0.125, **BOTTOM_RIGHT}
    first, second = (decoding(BF16, splits=5)(*tensors, **options) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("dtype", TYPES)
def test_keys_and_values_are_read_once(dtype: torch.dtype) -> None:
    """Whatever the number of heads that share them, and without bank conflicts."""
    q, k, v = make((1, 1, 512, 16, 2, 64, 64), dtype)
    attention = decoding(dtype, splits=4)
    attention(q, k, v, scale=0.125, **BOTTOM_RIGHT)
    assert attention.report is not None
    decode = attention.report.launches[0].counters
    assert decode.copies * 16 == k.nbytes + v.nbytes
    # Each row's top and sum, 8 bytes, take a sector of their own.
    assert_coalesced(decode, 1.1)
