"""Bugs planted in the kernels of attention's gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ops.attention_cases import make

from emulated.attention_backward_device import EmulatedGradients, check
from emulated.harness import CountersError, Emulator
from emulated.mutants import Mutant

FOLDER = "csrc/ops/attention/cuda"
SCORES, WEIGHTS, DELTA, WARP, KERNEL, BIAS = (
    f"{FOLDER}/{name}.cuh"
    for name in (
        "scores",
        "backward_scores",
        "backward_delta",
        "backward_warp",
        "backward",
        "backward_bias",
    )
)
BF16 = torch.bfloat16


def normal(*size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(9))


def causal(device: Emulator) -> None:
    """Two blocks of rows, three tiles of columns, two heads of the same keys; first queries without keys."""
    case = make(1, 150, 130, 2, 1, 64, 64, BF16, causal="bottom_right")
    check(case, EmulatedGradients(device))


def shared_rows(device: Emulator) -> None:
    """Two warps have the same rows."""
    check(make(1, 70, 80, 1, 1, 192, 192, BF16), EmulatedGradients(device))


def window(device: Emulator) -> None:
    """Of 512 columns at most 128 count for the rows of a warp."""
    run = EmulatedGradients(device)
    case = make(1, 512, 512, 1, 1, 64, 64, BF16, window=(40, 0))
    check(case, run)
    for launch, products in zip(run.report.launches[1:], (4, 3), strict=True):
        most = 512 * 96 * 64 * products // (16 * 8 * 16)
        if launch.counters.mma > most:
            raise CountersError(
                f"{launch.kernel}: {launch.counters.mma} products, needed are {most}"
            )


def dropout(device: Emulator) -> None:
    case = make(1, 70, 80, 2, 1, 64, 64, BF16, dropout=0.4, seed=3, softcap=1.0)
    check(case, EmulatedGradients(device))


def packed(device: Emulator) -> None:
    starts = torch.tensor([0, 40, 100], dtype=torch.int32)
    case = make(1, 100, 100, 1, 1, 64, 64, BF16, cu_seqlens_q=starts, cu_seqlens_k=starts)
    check(case, EmulatedGradients(device))


def masked(device: Emulator) -> None:
    """A mask that hides all keys from some queries."""
    mask = torch.ones(1, 1, 70, 80, dtype=torch.bool)
    mask[:, :, 20:40] = False
    check(make(1, 70, 80, 1, 1, 64, 64, BF16, bias=mask), EmulatedGradients(device))


def bias(device: Emulator) -> None:
    case = make(1, 70, 80, 2, 1, 64, 64, BF16, bias=normal(1, 2, 70, 80), bias_grad=True)
    check(case, EmulatedGradients(device))


def shared_bias(device: Emulator) -> None:
    """Shared by heads, and by queries of three tiles."""
    case = make(1, 150, 80, 2, 1, 64, 64, BF16, bias=normal(1, 1, 1, 80), bias_grad=True)
    check(case, EmulatedGradients(device))


def of_float(device: Emulator) -> None:
    check(make(1, 70, 80, 1, 1, 64, 64, torch.float32), EmulatedGradients(device))


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    library = "attention_backward" + ("_f32" if case is of_float else "")
    return Mutant(name, library, file, old, new, case, caught_by)


RACE = "shared race|uninitialised"

MUTANTS = [
    # what a row needs
    bug(DELTA, masked, "numbers", "a row without keys has lse -inf",
        "lse == -infinity ? infinity : lse", "lse"),
    bug(DELTA, causal, "numbers", "the gradient of lse is left out",
        "grad_lse == nullptr ? sum : sum - grad_lse[at]", "sum"),
    bug(DELTA, causal, "numbers", "half of a row's lanes are added up",
        "warp_reduce<Shape::kLanes>", "warp_reduce<Shape::kLanes / 2>"),
    # scores
    bug(WEIGHTS, causal, "numbers", "keys that are not seen have weights",
        "if (kMasked && !is_seen(terms, query, key)) weight = gradient = 0.f;", ""),
    bug(WEIGHTS, dropout, "numbers", "dP of dropped weights counts",
        "dp[e] * kept[e] - delta[i]", "dp[e] - delta[i]"),
    bug(WEIGHTS, dropout, "numbers", "dV of dropped weights counts",
        "s[e] = weight * kept[e];", "s[e] = weight;"),
    bug(WEIGHTS, dropout, "numbers", "the softcap has no derivative",
        "dp[e] = gradient * derivative;", "dp[e] = gradient;"),
    bug(SCORES, dropout, "numbers", "dropout's words are not passed between rows of keys",
        "shuffle_xor(high ? word[i] : word[i | bit], 4 * bit)",
        "shuffle_xor(high ? word[i] : word[i | bit], bit)"),
    # the kernels of keys and of queries
    bug(KERNEL, shared_rows, RACE, "results are stored before they are there",
        "    __syncthreads();\n    if constexpr (kKeysAreRows) {\n      store(",
        "    if constexpr (kKeysAreRows) {\n      store("),
    bug(WARP, of_float, "shared race", "results overwrite rows that other lanes still read",
        "    __syncwarp();\n", ""),
    bug(WARP, shared_rows, RACE, "operands are taken before they are there",
        "gpu::named_barrier_sync(1 + row_warp_, 32 * Config::kColumnWarps);", ""),
    bug(KERNEL, causal, "numbers", "one head of those that share keys is left out",
        "heads_ = kKeysAreRows ? static_cast<int>(p_.H / p_.G) : 1;", "heads_ = 1;"),
    bug(KERNEL, window, "numbers", "the first tile that is seen is left out",
        "begin > 0 ? begin / kColumns : 0", "begin > 0 ? begin / kColumns + 1 : 0"),
    bug(KERNEL, window, "counters", "chunks that are not seen are multiplied",
        "if (sees_any(first + c)) add_chunk", "add_chunk"),
    bug(KERNEL, causal, "numbers|uninitialised", "delta is lse",
        "(second ? attention_lse_rows(p_) : 0) + column + c", "column + c"),
    bug(KERNEL, causal, "out of bounds|uninitialised", "terms of queries beyond the last are loaded",
        "const bool inside = column + c < terms_.queries, second", "const bool inside = true, second"),
    bug(WARP, causal, "numbers", "dV has the scale of the scores",
        "*= i == 0 ? scale : 1.f;", "*= scale;"),
    bug(KERNEL, packed, "race between blocks|out of bounds|numbers", "rows of the next sequence are stored",
        "keys(g_.grad_k, p_.D), attention_key_room(p_, s_.b)", "keys(g_.grad_k, p_.D), p_.S"),
    bug(KERNEL, bias, "out of bounds|race.*|numbers", "gradients of keys that are not there",
        "|| query >= p_.T || key >= p_.S) return;", ") return;"),
    # a bias that is shared
    bug(BIAS, shared_bias, "copy in flight|shared race|uninitialised", "tiles are read before they are there",
        "gpu::copy_async_wait<0>();\n    __syncthreads();", "gpu::copy_async_wait<0>();"),
    bug(BIAS, shared_bias, "copy in flight|shared race", "the next tiles overwrite these",
        "    __syncthreads();  // all are done with the tiles\n", ""),
    bug(BIAS, shared_bias, "numbers", "one of the heads is left out",
        "for (int h = 0; h < shape_.of_head; h++)", "for (int h = 1; h < shape_.of_head; h++)"),
    bug(BIAS, shared_bias, "numbers", "one of the rows that share an element is left out",
        "for (int y = 0; y < of_row; y++)", "for (int y = 1; y < of_row; y++)"),
]  # fmt: skip
