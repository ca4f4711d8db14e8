"""Calls of attention_append and what they must leave in the caches, for every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
KINDS = ("plain", "index", "pages")
# B, T, G, D, Dv: whole words of 16 bytes and not, one of k and v wider, more than a block of threads.
SHAPES = [
    (2, 5, 3, 8, 4),
    (3, 1, 2, 64, 64),
    (2, 3, 1, 7, 9),
    (1, 1, 1, 1, 1),
    (2, 4, 5, 128, 40),
    (2, 2, 3, 6, 10),
]
Append = Callable[..., None]


class Call(NamedTuple):
    """The arguments of `attention_append`."""

    k_cache: Tensor
    v_cache: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any]


def make(shape: tuple[int, ...], dtype: torch.dtype, kind: str, seed: int = 0) -> Call:
    """Sequence b has 3 b + 2 keys in a cache of 7 (b + 1) + T; caches are full of numbers."""
    B, T, G, D, Dv = shape
    generator = torch.Generator().manual_seed(seed)

    def numbers(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    so_far = torch.arange(B, dtype=torch.int32) * 3 + 2
    entries, rows = B, 7 * B + T
    options: dict[str, Any] = {"cache_seqlens": so_far}
    if kind == "index":
        entries = B + 2
        order = torch.randperm(entries, generator=generator)
        options["cache_index"] = order[:B].to(torch.int32)
    if kind == "pages":
        count, rows = -(-rows // 3), 3
        entries = B * count + 1
        order = torch.randperm(entries, generator=generator)
        options["block_table"] = order[: B * count].reshape(B, count).to(torch.int32)
    caches = (numbers(entries, rows, G, D), numbers(entries, rows, G, Dv))
    return Call(*caches, numbers(B, T, G, D), numbers(B, T, G, Dv), options)


def expected(call: Call) -> tuple[Tensor, Tensor]:
    """The caches afterwards, row by row; rows without a place change nothing."""
    results = call.k_cache.clone(), call.v_cache.clone()
    table, index = call.options.get("block_table"), call.options.get("cache_index")
    entries, size = call.k_cache.shape[:2]
    room = size if table is None else size * table.shape[1]
    for b, so_far in enumerate(call.options["cache_seqlens"].tolist()):
        for i in range(call.k.shape[1]):
            row = so_far + i
            if not 0 <= row < room:
                continue
            entry = b if index is None else int(index[b])
            if table is not None:
                entry, row = int(table[b, row // size]), row % size
            if not 0 <= entry < entries:
                continue
            for cache, x in zip(results, (call.k, call.v), strict=True):
                cache[entry, row] = x[b, i]
    return results


def check(append: Append, call: Call) -> None:
    """The caches have the bits that they must have, everywhere."""
    wanted = expected(call)
    append(*call[:4], **call.options)
    for name, got, want in zip(("k_cache", "v_cache"), call[:2], wanted, strict=True):
        assert torch.equal(got, want), name


def without_places(kind: str) -> Call:
    """The first sequence's rows go to their places, one of the second's has none."""
    call = make((2, 4, 2, 8, 8), torch.float32, kind)
    entries, size = call.k_cache.shape[:2]
    table = call.options.get("block_table")
    room = size if table is None else size * table.shape[1]
    call.options["cache_seqlens"][1] = room - 3
    if kind == "index":
        call.options["cache_index"][1] = entries
    if kind == "pages":
        call.options["block_table"][1, -1] = -1
    return call
