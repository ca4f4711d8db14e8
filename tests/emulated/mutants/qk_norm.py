"""Bugs planted in the kernels of qk_norm."""

from __future__ import annotations

from collections.abc import Callable

from ops.qk_norm_calls import check, example

from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant
from emulated.qk_norm_device import EmulatedQkNorm

FOLDER = "csrc/ops/qk_norm/cuda"
CONFIG, ROWS, FORWARD, BACKWARD = (
    f"{FOLDER}/{name}" for name in ("config.h", "rows.cuh", "forward.cuh", "backward.cuh")
)
COLUMNS = "csrc/cuda/rotation.cuh"
REDUCE = "csrc/cuda/reduce.cuh"


def heads(device: Emulator) -> None:
    """Several blocks backward, more heads than a row of threads takes."""
    norm = EmulatedQkNorm(device)
    check(example((2, 50, 5, 3, 64), 32), norm)
    for launch in (norm.forward.launches[0], norm.backward.launches[0]):
        assert_coalesced(launch.counters)


def ragged(device: Emulator) -> None:
    """Slots that are no power of two, an odd number of columns."""
    check(example((2, 3, 4, 2, 37), 22), EmulatedQkNorm(device), interleaved=True)


def wide(device: Emulator) -> None:
    check(example((1, 3, 5, 1, 330), 200), EmulatedQkNorm(device))


def bug(
    case: Callable[[Emulator], None], caught_by: str, name: str, file: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "qk_norm", file, old, new, case, caught_by)


MUTANTS = [
    bug(heads, "numbers", "keys have the weight of queries", FORWARD,
        "columns.load_weight(side);", "columns.load_weight(p.sides[0]);"),
    bug(heads, "uninitialised|numbers", "the last head of a row is left out", FORWARD,
        "i < QkNormShape::kHeads", "i < QkNormShape::kHeads - 3"),
    bug(heads, "numbers", "the sum of one lane too few", ROWS,
        "d < lanes_; d *= 2", "d < lanes_ / 2; d *= 2"),
    bug(heads, "numbers", "the rotation is not undone", BACKWARD,
        "columns.load_angles(p, batch, time, true);", "columns.load_angles(p, batch, time, false);"),
    bug(heads, "shared race|uninitialised", "no barrier before the rows are added up", BACKWARD,
        "sums[k / W][k % W];\n  __syncthreads();", "sums[k / W][k % W];"),
    bug(heads, "counters", "items of the sums in the same banks", BACKWARD,
        "const int stride = kThreads + (kWide ? 0 : lanes);", "const int stride = kThreads;"),
    bug(heads, "numbers", "the first row of threads is left out", BACKWARD,
        "for (int r = 0; r < rows; r++) total", "for (int r = 1; r < rows; r++) total"),
    bug(heads, "race between blocks|uninitialised|numbers", "all blocks write the first partial", BACKWARD,
        "           block * qk_norm_row(p, W);", "           0 * block * qk_norm_row(p, W);"),
    bug(heads, "numbers|race between blocks", "keys' partials lie on those of queries", BACKWARD,
        "(side ? qk_norm_partial_rows(g, 0, W) : 0) * qk_norm_row(p, W) +", "0 +"),
    bug(ragged, "global race|numbers", "threads behind the last slot have columns", COLUMNS,
        "columns_from<W>(rest, middle < columns ? middle : columns)", "columns_from<W>(rest, columns)"),
    bug(ragged, "out of bounds|global race", "numbers behind the last column", BACKWARD,
        "if (item % W < last)", "if (item % W <= last)"),
    bug(wide, "numbers", "half the threads of a wide head", CONFIG,
        "if (slots > 32) return QkNormShape::kWideThreads;",
        "if (slots > 32) return QkNormShape::kWideThreads / 8;"),
    bug(wide, "shared race|uninitialised", "no barrier in the reduction over the block", REDUCE,
        "if (lane == 0) put(warps, gpu::warp(), value);\n    __syncthreads();",
        "if (lane == 0) put(warps, gpu::warp(), value);"),
]  # fmt: skip
