"""Bugs planted in the GEMM of sm_80 and in its fragments."""

from __future__ import annotations

from collections.abc import Callable

import torch

from emulated.gemm_calls import example, gemm
from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant

PIPELINE, GEMM, FRAGMENT, TILE = (
    f"csrc/cuda/{name}.cuh" for name in ("pipeline", "gemm_sm80", "fragment", "tile")
)


def case(dtype: torch.dtype, layout: str, ragged: bool = False) -> Callable[[Emulator], None]:
    """Several tiles of C, each a sum over several stages."""

    def product(device: Emulator) -> None:
        torch.manual_seed(0)
        m, n, k = (72, 136, 136) if ragged else (96, 160, 128)
        padding = 8 if ragged else 0
        counters = gemm(device, *example(m, n, k, dtype), layout, 16, padding=padding)
        if not ragged:
            assert_coalesced(counters)

    product.__name__ = f"{str(dtype)[6:]} {layout}{', ragged' if ragged else ''}"
    return product


BF16_ABT, BF16_AB, BF16_ATB = (case(torch.bfloat16, x) for x in ("A B^T", "A B", "A^T B"))
FLOAT_ABT, FLOAT_AB = (case(torch.float32, layout) for layout in ("A B^T", "A B"))
RAGGED = case(torch.bfloat16, "A B^T", ragged=True)


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "gemm", file, old, new, case, caught_by)


MUTANTS = [
    # the pipeline
    bug(PIPELINE, BF16_ABT, "copy in flight", "waits for one group too few",
        "copy_async_wait<kStages - 2>", "copy_async_wait<kStages - 1>"),
    bug(PIPELINE, BF16_ABT, "copy in flight|shared race", "no barrier in the loop",
        "    __syncthreads();  // tile i is there for all, and all are done with the free stage\n", ""),
    bug(PIPELINE, BF16_ABT, "copy in flight|shared race", "loads into the stage that is being read",
        "load(free_stage, i + kStages - 1)", "load(stage, i + kStages - 1)"),
    bug(PIPELINE, BF16_ABT, "copy in flight", "no empty groups behind the last tile",
        "    if (i + kStages - 1 < tiles) load(free_stage, i + kStages - 1);\n    gpu::copy_async_commit();",
        "    if (i + kStages - 1 < tiles) {\n      load(free_stage, i + kStages - 1);\n"
        "      gpu::copy_async_commit();\n    }"),
    # operands and results
    bug(TILE, BF16_ABT, "counters", "chunks lie in shared memory as in the row",
        "^ (key & kMask)", "^ (key & 0 & kMask)"),
    bug(TILE, FLOAT_AB, "counters", "chunks change places as if by load_matrix",
        "row / kLines : 2 * row", "row / kLines : row"),
    bug(TILE, RAGGED, "out of bounds", "no zeros behind the sum",
        "row + r < matrix.rows && column + c < matrix.columns", "row + r < matrix.rows"),
    bug(FRAGMENT, BF16_ABT, "numbers", "the matrices of B in the wrong order",
        "n + (lane & 7) + (lane >> 4) * 8, k + (lane >> 3 & 1) * kChunk",
        "n + (lane & 15), k + (lane >> 4) * kChunk"),
    bug(FRAGMENT, BF16_ATB, "numbers", "A is read as it lies",
        "gpu::load_matrix_x4_transposed(\n        a,", "gpu::load_matrix_x4(\n        a,"),
    bug(FRAGMENT, FLOAT_ABT, "numbers", "A is cut off to tf32, not rounded",
        "round_to_tf32(a[i]);", "(void)0;"),
    bug(FRAGMENT, BF16_ABT, "numbers", "the lower half of a result where the upper belongs",
        "tile.at(r + 8, c), gpu::pack<typename Tile::S>(d[2], d[3])",
        "tile.at(r + 8, c), gpu::pack<typename Tile::S>(d[0], d[1])"),
    bug(GEMM, BF16_ABT, "shared race", "results overwrite operands that warps still read",
        "p.a, p.b, m, n, p.k);\n  __syncthreads();", "p.a, p.b, m, n, p.k);"),
    bug(GEMM, BF16_ABT, "shared race", "results are read before they are there",
        "  __syncthreads();\n  store_tile<", "  store_tile<"),
    bug(GEMM, BF16_AB, "numbers", "the second half of a step from the first",
        "load_b<Config::kTransposedB>(b[j], stage.b, k,", "load_b<Config::kTransposedB>(b[j], stage.b, 0,"),
    bug(GEMM, RAGGED, "numbers", "the last step is left out",
        "(k + Config::kK - 1) / Config::kK", "k / Config::kK"),
]  # fmt: skip
