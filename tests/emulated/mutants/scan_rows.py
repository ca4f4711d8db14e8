"""Bugs planted in row tiles and in what splits rows over blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch

from emulated.harness import Emulator
from emulated.mutants import Mutant
from emulated.scan_rows_calls import SPLIT, example, scan

ROW_TILE, LOOK_BACK, RECURRENCE = (
    "csrc/cuda/row_tile.cuh", "csrc/cuda/look_back.cuh", "csrc/math/linear_scan.h"
)  # fmt: skip


def rows(device: Emulator) -> None:
    """Of odd length, so that each lies differently; several tiles of two vectors a thread."""
    torch.manual_seed(0)
    scan(device, *example(3, 3 * 768 + 37, torch.float32), 2, False)


def moved_operand(device: Emulator) -> None:
    torch.manual_seed(0)
    scan(device, *example(2, 1000, torch.float32), 8, True, 3)


def split_rows(device: Emulator) -> None:
    torch.manual_seed(0)
    scan(device, *example(3, 4 * 512 + 5, torch.float32), SPLIT, False)


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "scan_rows", file, old, new, case, caught_by)


MUTANTS = [
    bug(ROW_TILE, rows, "shared race", "lanes read vectors that others still write",
        "loaded.vectors[i]);\n    }\n    __syncwarp();", "loaded.vectors[i]);\n    }"),
    bug(ROW_TILE, rows, "shared race", "the next operand overwrites what lanes still read",
        "    __syncwarp();  // the warp has read what it last had there\n", ""),
    bug(ROW_TILE, rows, "counters", "vectors lie in shared memory as in the row",
        "return vector ^ (vector >> 3 & 7);", "return vector;"),
    bug(ROW_TILE, rows, "counters", "windows start where their row starts",
        "% 32 / sizeof(S))", "% 1)"),
    bug(ROW_TILE, moved_operand, "misaligned", "vectors of an operand that lies differently",
        "Loaded loaded;\n    const bool aligned = reinterpret_cast<uintptr_t>(row + window) % 16 == 0;",
        "Loaded loaded;\n    const bool aligned = true;"),
    bug(ROW_TILE, rows, "out of bounds", "one element behind the row is touched",
        "left < kPerVector ? static_cast<int>(left)", "left < kPerVector ? static_cast<int>(left) + 1"),
    bug(ROW_TILE, rows, "race between blocks", "elements before the row are stored",
        "if (k >= group.first && k < group.last) to[k] = values[k];",
        "if (k < group.last) to[k] = values[k];"),
    bug(LOOK_BACK, split_rows, "shared race|uninitialised", "a ticket is read before it is there",
        "atomicAdd(counter, 1u);\n  __syncthreads();", "atomicAdd(counter, 1u);"),
    bug(LOOK_BACK, split_rows, "numbers", "a chunk's total published as its prefix",
        "publish(chunk, kPrefix, Op()(before, total))", "publish(chunk, kPrefix, total)"),
    bug(RECURRENCE, rows, "numbers", "steps composed in the wrong order",
        "fma(second.a, first.x, second.x)", "fma(first.a, second.x, first.x)"),
]  # fmt: skip
