"""Bugs planted in the kernels of guidance_gram."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ops.guidance_gram_calls import check, example

from emulated.guidance_gram_device import EmulatedGram
from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant

KERNEL = "csrc/ops/guidance_gram/cuda/kernel.cuh"
PARAMS = "csrc/ops/guidance_gram/params.h"
REDUCE = "csrc/cuda/reduce.cuh"


def pieces(device: Emulator) -> None:
    """Three tensors, ragged samples of 20 pieces each."""
    torch.manual_seed(0)
    gram = EmulatedGram(device)
    check(example((2, 40003), count=3), True, gram)
    assert_coalesced(gram.report.launches[0].counters)


def bug(
    case: Callable[[Emulator], None],
    caught_by: str,
    name: str,
    old: str,
    new: str,
    file: str = KERNEL,
) -> Mutant:
    return Mutant(name, "guidance_gram", file, old, new, case, caught_by)


MUTANTS = [
    bug(pieces, "numbers", "every piece begins with the sample",
        "piece * rounds * kThreads + threadIdx.x", "0 * piece * rounds * kThreads + threadIdx.x"),
    bug(pieces, "numbers", "one round too few", "round < rounds", "round < rounds - 1"),
    bug(pieces, "race between blocks|uninitialised", "all samples write the rows of the first",
        "static_cast<int64_t>(blockIdx.x) * gram_row(N)", "piece * gram_row(N)"),
    bug(pieces, "shared race", "no barrier before the slices are added up",
        "shared.sums[slice][slot] = sum;\n  __syncthreads();", "shared.sums[slice][slot] = sum;"),
    bug(pieces, "shared race|uninitialised", "no barrier before the totals are read",
        "shared.totals[slot] = total;\n  }\n  __syncthreads();", "shared.totals[slot] = total;\n  }"),
    bug(pieces, "numbers", "a slice is left out",
        "for (int s = 0; s < Shape::kSlices; s++)", "for (int s = 1; s < Shape::kSlices; s++)"),
    bug(pieces, "out of bounds", "one row more than there is", "r < p.pieces;", "r < p.pieces + 16;"),
    bug(pieces, "numbers", "means of the totals instead of the elements",
        "totals[gram_sum(p.count, i)] / static_cast<double>(p.elements)",
        "totals[gram_sum(p.count, i)] / static_cast<double>(p.batch * p.elements)", PARAMS),
    bug(pieces, "shared race|uninitialised", "no barrier in the reduction over the block",
        "if (lane == 0) put(warps, gpu::warp(), value);\n    __syncthreads();",
        "if (lane == 0) put(warps, gpu::warp(), value);", REDUCE),
]  # fmt: skip
