"""Bugs planted in reductions, scans, look-back, pipelines and tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch

from emulated import blocks_calls as calls
from emulated.harness import Emulator
from emulated.mutants import Mutant

SHUFFLE, REDUCE, SCAN, LOOK_BACK, TILE = (
    f"csrc/cuda/{name}.cuh" for name in ("shuffle", "reduce", "scan", "look_back", "tile")
)


def rows(device: Emulator) -> None:
    """Sums of several rows by one block."""
    torch.manual_seed(0)
    calls.reduce_rows(device, torch.randn(7, 1000), "sum", 96)


def products(device: Emulator) -> None:
    calls.reduce_squares(device, 160)


def prefixes(device: Emulator) -> None:
    calls.scan_squares(device, 160, 3)


def look_back(device: Emulator) -> None:
    """Over totals alone, over prefixes alone, and over both, by way of several windows of 32."""
    torch.manual_seed(0)
    kinds = torch.randint(1, 4, (6, 100)).int()
    kinds[0], kinds[1], kinds[2], kinds[3, 1:] = 1, 2, 3, 1
    calls.look_back(device, kinds)


def vectors(device: Emulator) -> None:
    """Through three stages; rows end within a tile, with NaN behind them."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(50, 272), torch.full((50, 48), torch.nan)], 1).bfloat16()
    calls.copy_tiles(device, x[:, :272], 288, 64, 16)


def narrow_vectors(device: Emulator) -> None:
    torch.manual_seed(0)
    calls.copy_tiles(device, torch.randn(50, 128).bfloat16(), 128, 32, 16)


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "blocks", file, old, new, case, caught_by)


MUTANTS = [
    bug(SHUFFLE, products, "mask", "half of the warp left out of a shuffle's mask",
        "__shfl_xor_sync(0xffffffffu", "__shfl_xor_sync(0x0000ffffu"),
    # reductions
    bug(REDUCE, rows, "shared race", "no barrier before the warps' results are read",
        "    __syncthreads();\n", ""),
    bug(REDUCE, rows, "shared race", "two reductions in a row in the same half",
        "    turn_ ^= 1;\n", ""),
    bug(REDUCE, products, "numbers", "the lower lane's value second",
        "value = gpu::lane() & d ? op(other, value)", "value = gpu::lane() & d ? op(value, other)"),
    bug(REDUCE, products, "numbers", "one warp too many", " ^ d) < count", " ^ d) <= count"),
    bug(REDUCE, rows, "numbers", "the result of a lane that lacks the last values",
        "return shuffle(value, 0)", "return shuffle(value, 31)"),
    # scans
    bug(SCAN, prefixes, "shared race", "no barrier before the warps' totals are read",
        "    __syncthreads();\n", ""),
    bug(SCAN, prefixes, "shared race", "two scans in a row in the same half",
        "    turn_ ^= 1;\n", ""),
    bug(SCAN, prefixes, "numbers", "a lane leaves out the first",
        "if (lane >= d)", "if (lane > d)"),
    bug(SCAN, prefixes, "numbers", "the warp's own total as the one before",
        "warp == 0 ? 0 : warp - 1", "warp"),
    bug(SCAN, prefixes, "numbers", "the carry forgets the tiles before",
        "carry = Op()(carry, block.total)", "carry = block.total"),
    # look-back
    bug(LOOK_BACK, look_back, "global race", "the flag before the value",
        "#pragma unroll\n    for (int w = 0; w < Words<T>::kCount; w++) place[w * plane_] = words.word[w];\n"
        "    gpu::store_release(flags_ + chunk, what);",
        "    gpu::store_release(flags_ + chunk, what);\n"
        "    for (int w = 0; w < Words<T>::kCount; w++) place[w * plane_] = words.word[w];"),
    bug(LOOK_BACK, look_back, "global race", "the flag is written without release",
        "gpu::store_release(flags_ + chunk, what)", "flags_[chunk] = what"),
    bug(LOOK_BACK, look_back, "global race", "the flag is read without acquire",
        "gpu::spin_until(flags_ + mine, kTotal)", "flags_[mine]"),
    bug(LOOK_BACK, look_back, "global race", "other lanes read what one has acquired",
        "    __syncwarp();  // what one lane has acquired is read by others\n", ""),
    bug(LOOK_BACK, look_back, "numbers", "the chunk whose prefix is known is added again",
        "for (int first = known + 1;", "for (int first = known < 0 ? 0 : known;"),
    bug(LOOK_BACK, look_back, "global race|numbers", "a chunk between two windows is not waited for",
        "last -= 32)", "last -= 33)"),
    # tiles
    bug(TILE, vectors, "numbers", "the copy does not know of the swizzle",
        "gpu::copy_async<kBytes>(tile.at(r, c)", "gpu::copy_async<kBytes>(&tile.data[r * Tile::kColumns + c]"),
    bug(TILE, vectors, "out of bounds", "one row too many is loaded",
        "row + r < matrix.rows", "row + r <= matrix.rows"),
    bug(TILE, vectors, "out of bounds", "one row too many is stored",
        "row + r >= matrix.rows", "row + r > matrix.rows"),
    bug(TILE, vectors, "out of bounds", "columns beyond the matrix are stored",
        "if (row + r >= matrix.rows || column + c >= matrix.columns)", "if (row + r >= matrix.rows)"),
    bug(TILE, narrow_vectors, "misaligned", "copies of 16 bytes at multiples of 8",
        "i % kPerRow * kWidth", "i % kPerRow * kWidth / 2"),
]  # fmt: skip
