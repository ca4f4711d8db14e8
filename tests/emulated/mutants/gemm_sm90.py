"""Bugs planted in the matrix product of sm_90a."""

from __future__ import annotations

from collections.abc import Callable

from emulated.gemm_sm90_calls import check_product
from emulated.harness import Emulator
from emulated.mutants import Mutant

KERNEL = "csrc/cuda/gemm_sm90.cuh"
SHAPES = "csrc/cuda/gemm_sm90.h"
TILE = "csrc/cuda/operand_tile.cuh"
RING = "csrc/cuda/stage_ring.cuh"


def product(device: Emulator) -> None:
    """Three tiles a block, the last ones ragged, each from 6 tiles of K in 3 stages."""
    check_product(device, 272, 72, 352)


def plain_product(device: Emulator) -> None:
    """A B: rows of B lie along N, two spans of them in a tile."""
    check_product(device, 136, 200, 264, layout="A B")


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "gemm_sm90", file, old, new, case, caught_by)


EARLY = "copy in flight|shared race"  # which one depends on when a copy lands

MUTANTS = [
    # the ring of stages
    bug(RING, product, EARLY, "a user waits for the phase before",
        "&full[at.stage], at.parity);", "&full[at.stage], at.parity ^ 1);"),
    bug(RING, product, "deadlock", "the filler waits for the first users",
        "at.parity ^ 1);", "at.parity);"),
    bug(RING, product, f"{EARLY}|mbarrier|deadlock", "the parity stays as it is",
        "parity ^= 1;", "parity ^= 0;"),
    bug(RING, product, "proxy fence missing", "barriers that TMA does not see",
        "gpu::fence_mbarrier_init();", ""),
    bug(KERNEL, product, "mbarrier", "barriers are used before they are initialised",
        "__syncthreads();", ""),
    bug(KERNEL, product, "shared race", "one of two consumers frees a stage",
        "s.ring.init(4 * Gemm::kConsumers)", "s.ring.init(4)"),
    bug(KERNEL, product, "deadlock", "more arrivals expected than come",
        "s.ring.init(4 * Gemm::kConsumers)", "s.ring.init(4 * Gemm::kConsumers + 1)"),
    bug(KERNEL, product, "mbarrier bytes", "fewer bytes announced than loaded",
        "s.ring.begin_fill(at, Gemm::kStageBytes)", "s.ring.begin_fill(at, Gemm::kStageBytes - 128)"),
    bug(KERNEL, product, "deadlock", "more bytes announced than loaded",
        "s.ring.begin_fill(at, Gemm::kStageBytes)", "s.ring.begin_fill(at, Gemm::kStageBytes + 128)"),
    bug(KERNEL, product, f"{EARLY}|mbarrier bytes", "B is loaded into the next stage",
        "s.b[at.stage].load", "s.b[(at.stage + 1) % Gemm::kStages].load"),
    bug(KERNEL, product, "deadlock", "the last stage of a tile is not freed",
        "if (gpu::lane() == 0) s.ring.release(previous);", ""),
    bug(KERNEL, product, "shared race", "a stage is freed before the wait for its product",
        "gpu::wgmma_wait<1>(d);\n    if (k > 0 && gpu::lane() == 0) s.ring.release(previous);",
        "if (k > 0 && gpu::lane() == 0) s.ring.release(previous);\n    gpu::wgmma_wait<1>(d);"),
    # products
    bug(KERNEL, product, "wgmma fence", "no fence before the products",
        "gpu::wgmma_fence(d);", ""),
    bug(KERNEL, product, "shared race", "one product more may be in flight",
        "gpu::wgmma_wait<1>(d);", "gpu::wgmma_wait<2>(d);"),
    bug(KERNEL, product, "registers in flight", "sums are stored while the last product runs",
        "gpu::wgmma_wait<0>(d);", "gpu::wgmma_wait<1>(d);"),
    bug(KERNEL, product, "registers in flight", "the last wait does not name the sums",
        "gpu::wgmma_wait<0>(d);", "gpu::wgmma_wait<0>();"),
    bug(KERNEL, product, "numbers", "both consumers multiply the same rows",
        "s.a[at.stage], 64 * consumer,", "s.a[at.stage], 0,"),
    bug(KERNEL, product, "numbers", "sums of the tile before are kept",
        "s.b[at.stage], k > 0);", "s.b[at.stage], true);"),
    bug(TILE, product, "numbers|matrix descriptor", "another swizzle in the descriptor",
        "gpu::wgmma_descriptor(bytes, kSwizzle,",
        "gpu::wgmma_descriptor(bytes, gpu::Swizzle::bytes64,"),
    bug(SHAPES, product, "numbers", "no swizzle in the tensor maps",
        "gpu::swizzle_of_span(box_bytes))", "gpu::Swizzle::none)"),
    bug(TILE, product, "numbers|matrix descriptor", "K advances by half a step",
        "plain_offset(mn, k) / 16", "plain_offset(mn, k / 2) / 16"),
    bug(TILE, product, "numbers", "8 rows too few from one group of rows to the next",
        "8 * kSpan)", "4 * kSpan)"),
    bug(TILE, plain_product, "numbers|uninitialised|out of bounds", "spans of N one row apart",
        "kAlongK ? 16 : kBoxBytes,", "16,"),
    # the result
    bug(KERNEL, product, "proxy fence missing", "stores that TMA does not see",
        "gpu::fence_async();", ""),
    bug(KERNEL, product, "shared race", "the tile is stored before all have written it",
        "gpu::fence_async();\n  gpu::named_barrier_sync(1 + consumer, 128);",
        "gpu::fence_async();"),
    bug(KERNEL, product, "operand in flight|shared race", "the tile is written while it is stored",
        "if (elected) gpu::bulk_wait_read<0>();\n  gpu::named", "gpu::named"),
    bug(KERNEL, product, "bulk copy", "a block ends before its result is read",
        "if (elected) gpu::bulk_wait_read<0>();\n}", "}"),
    bug(KERNEL, product, "global race", "both consumers store the same rows",
        "tile.row + 64 * consumer", "tile.row"),
    bug(KERNEL, product, "race between blocks|global race", "blocks make the same tiles",
        "within / height * Gemm::kColumns}", "0}"),
    bug(TILE, product, "counters|numbers", "rows of the result without swizzle",
        "gpu::swizzle_offset(plain_offset(mn, k), kSwizzle)", "plain_offset(mn, k)"),
    # registers
    bug(KERNEL, product, "deadlock", "more registers taken than given",
        "Gemm::kConsumers == 2 ? 232 : 160", "Gemm::kConsumers == 2 ? 240 : 160"),
]  # fmt: skip
