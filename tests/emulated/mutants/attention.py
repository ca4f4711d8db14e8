"""Bugs planted in the forward kernel of attention and in those of decoding."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from emulated.attention_device import (
    Cache,
    EmulatedAttention,
    EmulatedDecode,
    check,
    check_cached,
    make,
)
from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant

FOLDER = "csrc/ops/attention/cuda"
KERNEL, BLOCKS, ROWS, TILE, TILES, SOFTMAX, SCORES, DECODE = (
    f"{FOLDER}/{name}"
    for name in (
        "kernel.cuh", "blocks.cuh", "rows.cuh", "tile.cuh", "score_tiles.cuh", "softmax.cuh",
        "scores.cuh", "decode.cuh",
    )
)  # fmt: skip
CUDA_TILE = "csrc/cuda/tile.cuh"
BF16 = torch.bfloat16


def causal(device: Emulator) -> None:
    """Two tiles of queries, four of keys, the last of both ragged."""
    check(
        EmulatedAttention(device), *make((1, 200, 230, 2, 1, 64, 64), BF16), right=0, top_left=False
    )


def ragged(device: Emulator) -> None:
    """No mask; the last tile has few keys."""
    check(EmulatedAttention(device), *make((1, 40, 70, 1, 1, 64, 64), BF16))


def window(device: Emulator) -> None:
    check(EmulatedAttention(device), *make((1, 300, 300, 1, 1, 64, 64), BF16), left=70, right=9)


def coalesced(device: Emulator) -> None:
    attention = EmulatedAttention(device)
    attention(*make((1, 128, 256, 1, 1, 64, 64), BF16), scale=0.1)
    assert attention.report is not None
    assert_coalesced(attention.report.counters)


def general(device: Emulator) -> None:
    """Everything at once, in rows of 2 bytes' alignment."""
    tensors = make((2, 70, 150, 2, 1, 39, 33), BF16)
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(2, 1, 70, 150, generator=generator)
    check(
        EmulatedAttention(device), *tensors, right=20, top_left=False, softcap=3.0,
        alibi_slopes=torch.tensor([0.5, 0.1]), sinks=torch.tensor([1.0, -math.inf]), dropout=0.3,
        seed=torch.tensor([77]), bias=bias,
    )  # fmt: skip


def packed(device: Emulator) -> None:
    starts = torch.tensor([3, 60, 60, 210], dtype=torch.int32)
    keys = torch.tensor([0, 100, 130, 190], dtype=torch.int32)
    used = torch.tensor([50, 0, 150], dtype=torch.int32)
    check(
        EmulatedAttention(device), *make((1, 215, 190, 1, 1, 64, 64), BF16), right=0,
        cu_seqlens_q=starts, cu_seqlens_k=keys, seqused_q=used,
    )  # fmt: skip


def cache() -> tuple[torch.Tensor, Cache]:
    pages = torch.tensor([[5, 1, 4], [0, 3, 2]], dtype=torch.int32)
    return torch.tensor([180, 77], dtype=torch.int32), Cache(
        left_pad=torch.tensor([0, 11], dtype=torch.int32), pages=pages
    )


def paged(device: Emulator) -> None:
    used, where = cache()
    q, k, v = make((6, 2, 60, 4, 2, 64, 64), BF16)
    check_cached(EmulatedAttention(device), q[:2], k, v, used, where, right=0)


def paged_decode(device: Emulator) -> None:
    used, where = cache()
    q, k, v = make((6, 2, 60, 4, 2, 64, 64), BF16)
    check_cached(EmulatedDecode(device, splits=2), q[:2], k, v, used, where, right=0)


def decode(device: Emulator) -> None:
    """Two tiles of rows, of 8 heads a KV head; several rounds of every warp."""
    tensors = make((1, 3, 700, 16, 2, 64, 64), BF16)
    check(
        EmulatedDecode(device, splits=3), *tensors, right=0, top_left=False,
        sinks=torch.linspace(-1, 2, 16), alibi_slopes=torch.linspace(0, 0.3, 16),
    )  # fmt: skip


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "attention", file, old, new, case, caught_by)


EARLY = "copy in flight|shared race|uninitialised"

MUTANTS = [
    # the slots of keys and values
    bug(KERNEL, causal, EARLY, "tiles are used one step before they are there",
        "gpu::copy_async_wait<kSlots - 2>();\n    __syncthreads();\n    fetch",
        "gpu::copy_async_wait<kSlots - 1>();\n    __syncthreads();\n    fetch"),
    bug(KERNEL, causal, EARLY, "slots are filled while warps still use them",
        "gpu::copy_async_wait<kSlots - 2>();\n    __syncthreads();\n    fetch",
        "gpu::copy_async_wait<kSlots - 2>();\n    fetch"),
    bug(KERNEL, causal, EARLY, "queries are taken before they are there",
        "gpu::copy_async_wait<kSlots - 2>();\n      __syncthreads();\n#pragma",
        "gpu::copy_async_wait<kSlots - 2>();\n#pragma"),
    bug(KERNEL, causal, "numbers|" + EARLY, "copies run one step too far ahead",
        "constexpr int kAhead = kSlots - 1 + kValues;", "constexpr int kAhead = kSlots + 1 + kValues;"),
    bug(KERNEL, causal, EARLY, "results are stored before all warps have put theirs",
        "    __syncthreads();\n    const Matrix<S> result", "    const Matrix<S> result"),
    bug(SOFTMAX, causal, "numbers", "values of the first step for all",
        "key + k * kMmaDepth<S>, 8 * n", "key, 8 * n"),
    # what is seen
    bug(TILES, causal, "numbers", "a query sees one key too many",
        "const int first = fragment_row(begin, 2 * half);",
        "const int first = fragment_row(begin, 2 * half) + 1;"),
    bug(KERNEL, causal, "numbers", "a tile at the diagonal counts as seen by all",
        "begin_ + count_ - key >= kKeys &&", "begin_ + count_ - key >= 1 &&"),
    bug(KERNEL, ragged, "numbers", "keys behind the last count",
        "terms_.keys - key >= kKeys;", "true;"),
    bug(BLOCKS, window, "numbers", "the first tile of a window is left out",
        "return {begin / kKeys * kKeys,", "return {(begin + kKeys - 1) / kKeys * kKeys,"),
    bug(KERNEL, window, "numbers", "a warp leaves out a tile that it sees",
        "begin_ - key < kKeys;", "begin_ - key < kKeys / 2;"),
    bug(BLOCKS, packed, "numbers|uninitialised", "rows behind a sequence's queries stay as they were",
        "for (int64_t e = threadIdx.x; e < p.Dv; e += blockDim.x) out",
        "for (int64_t e = p.Dv; e < p.Dv; e += blockDim.x) out"),
    bug(BLOCKS, packed, "numbers|uninitialised", "rows before the first sequence stay as they were",
        "if (block.b == 0) begin = -s.q_row;", ""),
    # softmax
    bug(SOFTMAX, causal, "numbers", "sums are not scaled to the new top",
        "sum[half] = fmaf(sum[half], keep[half], added);", "sum[half] += added;"),
    bug(SOFTMAX, causal, "numbers", "the top of two lanes instead of four",
        "return fmaxf(x, shuffle_xor(x, 2));", "return x;"),
    bug(KERNEL, causal, "numbers", "results are scaled by the factor of another row",
        "out_[m][n][e] *= keep[e >> 1];", "out_[m][n][e] *= keep[e & 1];"),
    bug(SOFTMAX, general, "numbers", "the sink counts once in every lane",
        "|| gpu::lane() % 4 != 0 ? 0.f", "? 0.f"),
    # operands
    bug(TILE, causal, "numbers", "matrices of the keys in the wrong order",
        "(lane & 7) + (lane >> 4) * 8, (lane >> 3 & 1) * Tile::kPerChunk",
        "(lane & 15), (lane >> 4) * Tile::kPerChunk"),
    bug(TILE, causal, "numbers", "rows of the weights exchanged",
        "p[2 * k + (i >> 1)][(i & 1) * 2]", "p[2 * k + (i & 1)][(i >> 1) * 2]"),
    bug(CUDA_TILE, coalesced, "counters", "every second row in the same banks",
        "const uint32_t key = kOrder == TileOrder::rows ? row / kLines : 2 * row;",
        "const uint32_t key = kOrder == TileOrder::rows ? row / kLines & ~1u : 2 * row;"),
    # rows
    bug(ROWS, causal, "out of bounds|numbers", "rows behind the last are loaded",
        "rows_.data, r < rows_.rows);", "rows_.data, true);"),
    bug(ROWS, general, "numbers|out of bounds", "columns behind the last are loaded",
        "const bool inside = first_ + r < rows_.rows && c < rows_.columns;\n      const S* source",
        "const bool inside = first_ + r < rows_.rows;\n      const S* source"),
    bug(ROWS, paged, "numbers|out of bounds", "pages as if they lay one behind the other",
        "pages.pages[page] * pages.entry", "page * pages.entry"),
    bug(ROWS, paged, "numbers|out of bounds", "padding on the left is forgotten",
        "const uint32_t row = pages.first + index,", "const uint32_t row = index,"),
    bug(SCORES, general, "numbers", "two lanes exchange each other's half of the random words",
        "word[i] = odd ? other : made.c[i];", "word[i] = odd ? made.c[i] : other;"),
    # decoding
    bug(DECODE, decode, EARLY, "a stage is used before it is there for all lanes",
        "gpu::copy_async_wait<kStages - 2>();\n      __syncwarp();",
        "gpu::copy_async_wait<kStages - 2>();"),
    bug(DECODE, decode, EARLY, "a stage is used while its copies run",
        "gpu::copy_async_wait<kStages - 2>();\n      __syncwarp();",
        "gpu::copy_async_wait<kStages - 1>();\n      __syncwarp();"),
    bug(DECODE, decode, EARLY, "queries are used before they are there",
        "load_decode_queries<Config>(shared, d.forward, block, s);\n  __syncthreads();",
        "load_decode_queries<Config>(shared, d.forward, block, s);"),
    bug(DECODE, decode, EARLY, "a warp's result overwrites stages of others",
        "warp.run();\n  __syncthreads();", "warp.run();"),
    bug(DECODE, decode, EARLY, "warps' results are merged before they are there",
        "warp.put();\n  __syncthreads();", "warp.put();"),
    bug(DECODE, decode, "numbers", "one chunk is left out of the sums",
        "for (int64_t c = 0; c < d.chunks; c++) {\n    const float2 part",
        "for (int64_t c = 1; c < d.chunks; c++) {\n    const float2 part"),
    bug(DECODE, decode, "numbers|uninitialised|race between blocks|global race",
        "heads take each other's queries", "const int64_t head = block.group * heads + row % heads;",
        "const int64_t head = block.group * heads + row / heads;"),
    bug(DECODE, paged_decode, "numbers", "every warp takes the first warp's keys",
        "begin_(begin + static_cast<int>(gpu::warp()) * kKeys)", "begin_(begin)"),
]  # fmt: skip
