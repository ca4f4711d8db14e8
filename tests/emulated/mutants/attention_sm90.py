"""Bugs planted in the sm_90a forward kernel of attention."""

from __future__ import annotations

from collections.abc import Callable

import torch

from emulated.attention_device import EmulatedAttention, check, make
from emulated.attention_sm90_device import check_traffic, tile_counts
from emulated.harness import SEEDS, Emulator
from emulated.mutants import Mutant

FOLDER = "csrc/ops/attention/cuda"
KERNEL, LOAD, CONFIG, BLOCKS, SOFTMAX = (
    f"{FOLDER}/{name}"
    for name in ("kernel_sm90.cuh", "load_sm90.cuh", "config_sm90.h", "blocks.cuh", "softmax.cuh")
)
RING, TILE = "csrc/cuda/stage_ring.cuh", "csrc/cuda/operand_tile.cuh"
BF16 = torch.bfloat16


def plain(device: Emulator) -> None:
    """Two blocks of queries of two heads, six tiles of keys in three stages, both ragged."""
    check(EmulatedAttention(device), *make((1, 200, 700, 2, 1, 64, 64), BF16))


def still(device: Emulator) -> None:
    """The same with hardly a score: the top of a row moves by nothing, and no sums are scaled."""
    check(EmulatedAttention(device), *make((1, 200, 700, 2, 1, 64, 64), BF16), scale=2.0**-40)


def causal(device: Emulator) -> None:
    """The last warpgroup of the second block has no queries."""
    check(
        EmulatedAttention(device), *make((1, 310, 450, 1, 1, 64, 64), BF16), right=0, top_left=False
    )


def window(device: Emulator) -> None:
    """Warpgroups leave out tiles that the others see, in up to six of them."""
    check(EmulatedAttention(device), *make((1, 700, 700, 1, 1, 64, 64), BF16), left=450, right=9)


def sequences(device: Emulator) -> None:
    """Two sequences of four heads, of which pairs share keys."""
    check(EmulatedAttention(device), *make((2, 70, 140, 4, 2, 64, 56), BF16), right=0)


def features(device: Emulator) -> None:
    check(
        EmulatedAttention(device), *make((1, 200, 300, 2, 1, 64, 64), BF16), right=20, softcap=3.0,
        top_left=False, alibi_slopes=torch.tensor([0.5, 0.1]), sinks=torch.tensor([1.0, 4.0]),
    )  # fmt: skip


def traffic(device: Emulator) -> None:
    T, S, D = 384, 384, 64
    attention = EmulatedAttention(device)
    attention(*make((1, T, S, 1, 1, D, D), BF16), scale=0.1, right=0)
    assert attention.report is not None
    tiles, _ = tile_counts(T, S, D, True)
    check_traffic(attention.report.counters, (T + 2 * tiles * 128) * 2 * D, T * 2 * D)


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    # Under seeds other than 0 2^0 is not quite 1, and where sums are scaled there is another wait.
    seeds = (0,) if case is still else SEEDS
    return Mutant(name, "attention_sm90", file, old, new, case, caught_by, seeds)


EARLY = "copy in flight|shared race|uninitialised"  # which one depends on when a copy lands
STAGES = f"{EARLY}|mbarrier|mbarrier bytes|deadlock|operand in flight"

MUTANTS = [
    # queries
    bug(KERNEL, plain, EARLY, "queries are used before they are there",
        "gpu::mbarrier_wait(&shared_.queries_full, 0);", ""),
    bug(KERNEL, plain, EARLY, "the wait for the queries has the parity of no wait",
        "gpu::mbarrier_wait(&shared_.queries_full, 0);",
        "gpu::mbarrier_wait(&shared_.queries_full, 1);"),
    bug(KERNEL, plain, "numbers|shared race|operand in flight",
        "all warpgroups take the first one's queries",
        "shared_.queries[consumer_], 0, shared_.keys", "shared_.queries[0], 0, shared_.keys"),
    bug(LOAD, plain, "mbarrier bytes|deadlock", "fewer queries announced than loaded",
        "sizeof shared.queries);", "sizeof shared.queries - 128);"),
    # the rings of keys and values
    bug(KERNEL, plain, EARLY, "the first keys are used before they are there",
        "    shared_.key_ring.wait_full(keys_);\n    begin_turn(key);\n    gpu::wgmma_fence(scores);",
        "    begin_turn(key);\n    gpu::wgmma_fence(scores);"),
    bug(KERNEL, plain, EARLY, "keys are used before they are there",
        "    shared_.key_ring.wait_full(keys_);\n    shared_.value_ring.wait_full(values_);\n    begin",
        "    shared_.value_ring.wait_full(values_);\n    begin"),
    bug(KERNEL, plain, EARLY, "values are used before they are there",
        "    shared_.value_ring.wait_full(values_);\n    begin_turn(key);\n    gpu::wgmma_fence(scores, s",
        "    begin_turn(key);\n    gpu::wgmma_fence(scores, s"),
    bug(KERNEL, plain, EARLY, "the last values are used before they are there",
        "    shared_.value_ring.wait_full(values_);\n    gpu::wgmma_fence(sums_, weights_);",
        "    gpu::wgmma_fence(sums_, weights_);"),
    bug(RING, plain, STAGES, "a user waits for the phase before",
        "&full[at.stage], at.parity);", "&full[at.stage], at.parity ^ 1);"),
    bug(RING, plain, "proxy fence missing", "barriers that TMA does not see",
        "gpu::fence_mbarrier_init();", ""),
    bug(KERNEL, plain, "mbarrier", "barriers are used before they are initialised",
        "  __syncthreads();\n  const AttentionBlock block", "  const AttentionBlock block"),
    bug(KERNEL, plain, f"operand in flight|{EARLY}", "one of three warpgroups frees a stage of keys",
        "shared.key_ring.init(4 * Config::kConsumers);", "shared.key_ring.init(4);"),
    bug(KERNEL, plain, "shared race|operand in flight", "keys are freed while they are multiplied",
        "    gpu::wgmma_wait<1>(scores);\n    release_keys();",
        "    release_keys();\n    gpu::wgmma_wait<1>(scores);"),
    bug(KERNEL, still, "shared race|operand in flight", "values are freed while they are multiplied",
        "    gpu::wgmma_wait<0>(sums_, weights_);\n    release_values();\n    weights_of",
        "    release_values();\n    gpu::wgmma_wait<0>(sums_, weights_);\n    weights_of"),
    bug(KERNEL, window, "deadlock", "tiles that are left out are not freed",
        "shared_.key_ring.wait_full(keys_);\n    release_keys();", "keys_.advance();"),
    bug(LOAD, plain, f"numbers|{STAGES}", "values are loaded in the place of the next",
        "shared.values[stage].load", "shared.values[(stage + 1) % Config::kStages].load"),
    bug(LOAD, sequences, "numbers", "every head has keys of its own",
        "block.h / static_cast<int>(p.attention.H / p.attention.G);", "block.h;"),
    bug(LOAD, sequences, "numbers", "values of the first sequence for all",
        "barrier, 0, key, group, b);", "barrier, 0, key, group, 0);"),
    # turns
    bug(KERNEL, plain, "deadlock", "the first warpgroup waits for a turn before it",
        "if (consumer_ > 0 || key > range_.x) gpu", "gpu"),
    bug(KERNEL, plain, "deadlock", "the last warpgroup gives no turn back",
        "if (next > 0 || key + kKeys < range_.y) gpu", "if (next > 0) gpu"),
    bug(KERNEL, window, "deadlock", "a tile that is left out takes no turn",
        "    begin_turn(key);\n    end_turn(key);\n  }", "  }"),
    # products
    bug(KERNEL, plain, "wgmma fence", "no fence before the first product",
        "gpu::wgmma_fence(scores);", ""),
    bug(KERNEL, plain, "wgmma fence", "weights are made and not fenced",
        "gpu::wgmma_fence(scores, sums_, weights_);", "gpu::wgmma_fence(scores, sums_);"),
    bug(KERNEL, plain, "wgmma fence", "sums are scaled and not fenced",
        "gpu::wgmma_fence(scores, sums_, weights_);", "gpu::wgmma_fence(scores, weights_);"),
    bug(KERNEL, plain, "registers in flight", "scores are read while they are made",
        "gpu::wgmma_wait<1>(scores);", "gpu::wgmma_wait<2>(scores);"),
    bug(KERNEL, still, "registers in flight", "weights are overwritten while they are multiplied",
        "    gpu::wgmma_wait<0>(sums_, weights_);\n    release_values();\n    weights_of",
        "    release_values();\n    weights_of"),
    bug(KERNEL, plain, "registers in flight", "sums are scaled while they are made",
        "      gpu::wgmma_wait<0>(sums_, weights_);\n      scale_sums(keep);",
        "      scale_sums(keep);"),
    bug(KERNEL, plain, "registers in flight", "results are stored while the last product runs",
        "    multiply_values();\n    gpu::wgmma_wait<0>(sums_, weights_);",
        "    multiply_values();\n    gpu::wgmma_wait<1>(sums_, weights_);"),
    bug(KERNEL, plain, "numbers", "values of the first step for all",
        "descriptor(0, 16 * k)", "descriptor(0, 0)"),
    bug(KERNEL, plain, "numbers", "sums of the tiles before are lost",
        " true);\n    }\n    gpu::wgmma_commit();", " k > 0);\n    }\n    gpu::wgmma_commit();"),
    bug(CONFIG, plain, "numbers", "no swizzle in the tensor maps",
        "gpu::Swizzle::bytes128};", "gpu::Swizzle::none};"),
    bug(TILE, plain, "numbers|matrix descriptor", "another swizzle in the descriptors",
        "gpu::wgmma_descriptor(bytes, kSwizzle,",
        "gpu::wgmma_descriptor(bytes, gpu::Swizzle::bytes64,"),
    # what is seen
    bug(KERNEL, plain, "numbers", "keys behind the last count",
        "&& terms_.keys - key >= kKeys;", ";"),
    bug(KERNEL, causal, "numbers", "a tile at the diagonal counts as seen by all",
        "begin_ + count_ - key >= kKeys &&", "begin_ + count_ - key >= 1 &&"),
    bug(KERNEL, window, "numbers", "a tile at the window's start counts as seen by all",
        "key - begin_ >= 15 &&", "key - begin_ >= -100 &&"),
    bug(KERNEL, causal, "numbers|global race", "all warps have the first one's rows",
        "static_cast<int>(gpu::warp() % 4) * 16", "0"),
    bug(KERNEL, window, "numbers", "warpgroups see what the first one sees",
        "own_(key_range<kKeys>(terms, first, 64))",
        "own_(key_range<kKeys>(terms, first - 64 * consumer, 64))"),
    bug(BLOCKS, window, f"numbers|{STAGES}", "the first tile of a window is left out",
        "return {begin / kKeys * kKeys,", "return {(begin + kKeys - 1) / kKeys * kKeys,"),
    bug(BLOCKS, traffic, "counters", "tiles behind the diagonal are loaded",
        "::min(end + t.shift + t.right, t.keys)}", "t.keys}"),
    # softmax
    bug(KERNEL, plain, "numbers", "sums are never scaled to the new top",
        "    if (has_moved(keep)) {", "    if (false) {"),
    bug(KERNEL, plain, "numbers", "sums are scaled by the factor of another row",
        "sums_[n][e] *= factor[e >> 1];", "sums_[n][e] *= factor[e & 1];"),
    bug(KERNEL, features, "numbers", "no sink", "if (sinks != nullptr) rows", "if (false) rows"),
    bug(KERNEL, features, "numbers", "ALiBi and softcap of other rows",
        "add_terms<S>(scores, terms_, query_, key);", "add_terms<S>(scores, terms_, query_ + 1, key);"),
    bug(SOFTMAX, plain, "numbers", "the top of two lanes instead of four",
        "return fmaxf(x, shuffle_xor(x, 2));", "return x;"),
    # results
    bug(KERNEL, plain, "proxy fence missing", "results that TMA does not see",
        "    gpu::fence_async();\n", ""),
    bug(KERNEL, plain, "shared race", "results are stored before all warps have put theirs",
        "    gpu::named_barrier_sync(1 + kConsumers + consumer_, 128);\n", ""),
    bug(KERNEL, plain, "bulk copy", "a block ends before its results are read",
        "    if (elected) gpu::bulk_wait_read<0>();\n", ""),
    bug(KERNEL, plain, "global race|numbers", "all warpgroups store the same rows",
        "tile.store(out, block.first + 64 * consumer_,", "tile.store(out, block.first,"),
    bug(KERNEL, plain, "out of bounds|global race|race between blocks|numbers",
        "lse of rows that are not there",
        "if (row < terms_.queries) lse", "lse"),
    bug(TILE, traffic, "counters|numbers", "rows of the result without swizzle",
        "gpu::swizzle_offset(plain_offset(mn, k), kSwizzle)", "plain_offset(mn, k)"),
    # registers
    bug(CONFIG, plain, "deadlock", "more registers taken than given",
        "kConsumers == 2 ? 240 : 160", "kConsumers == 2 ? 240 : 168"),
]  # fmt: skip
