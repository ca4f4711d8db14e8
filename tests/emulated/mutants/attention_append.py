"""Bugs planted in the kernel that writes to a cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ops.attention_append_calls import check, make, without_places

from emulated.attention_append_device import EmulatedAppend
from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant

KERNEL = "csrc/ops/attention/cuda/append.cuh"
CONFIG = "csrc/ops/attention/cuda/append_config.h"
PARAMS = "csrc/ops/attention/append.h"


def whole(device: Emulator) -> None:
    """More than one block; words of 16 bytes."""
    append = EmulatedAppend(device)
    check(append, make((2, 3, 2, 256, 256), torch.float32, "plain"))
    assert append.report is not None
    assert_coalesced(append.report.counters)


def uneven(device: Emulator) -> None:
    """Rows of k and of v of their own widths, at multiples of 4 bytes."""
    check(EmulatedAppend(device, shift=1), make((2, 5, 3, 9, 7), torch.float32, "plain"))


def unaligned(device: Emulator) -> None:
    """Whole words of 16 bytes, but at multiples of 4."""
    check(EmulatedAppend(device, shift=1), make((2, 5, 3, 8, 8), torch.float32, "plain"))


def indexed(device: Emulator) -> None:
    check(EmulatedAppend(device), make((3, 2, 2, 8, 8), torch.float32, "index"))


def paged(device: Emulator) -> None:
    check(EmulatedAppend(device), make((2, 5, 2, 8, 8), torch.float32, "pages"))


def outside(device: Emulator) -> None:
    """Rows behind the end of the cache."""
    check(EmulatedAppend(device), without_places("plain"))


def no_entry(device: Emulator) -> None:
    check(EmulatedAppend(device), without_places("index"))


def bug(
    case: Callable[[Emulator], None], caught_by: str, name: str, file: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "attention_append", file, old, new, case, caught_by)


MUTANTS = [
    bug(whole, "numbers", "a block too few", CONFIG,
        "(threads + AttentionAppend::kThreads - 1) / AttentionAppend::kThreads",
        "(threads - 1) / AttentionAppend::kThreads"),
    bug(whole, "counters", "words of neighbours lie apart", KERNEL,
        "const uint32_t word = inside % words;", "const uint32_t word = inside % words * 5 % words;"),
    bug(uneven, "out of bounds|race|uninitialised", "values as wide as keys", KERNEL,
        "has_value = at.byte < p.Dv * size", "has_value = at.byte < p.D * size"),
    bug(uneven, "out of bounds|race|uninitialised", "threads behind the last row", KERNEL,
        "if (at.b >= p.B) return;", ""),
    bug(unaligned, "misaligned", "where rows begin is not looked at", CONFIG,
        "all |= reinterpret_cast<uintptr_t>(t->data) | ", "all |= "),
    bug(indexed, "numbers", "the entry is the sequence's number", PARAMS,
        "l.cache_index == nullptr ? b : l.cache_index[b]", "l.cache_index == nullptr ? b : b"),
    bug(paged, "global race", "pages of the first sequence", PARAMS,
        "l.pages[b * l.pages_row + row / l.page]", "l.pages[0 * b * l.pages_row + row / l.page]"),
    bug(outside, "out of bounds|race|numbers", "no end of the cache", PARAMS,
        "if (row < 0 || row >= p.room) return {-1, 0};", ""),
    bug(no_entry, "out of bounds", "no end of the entries", KERNEL,
        "if (to.entry < 0 || to.entry >= p.entries) return;", "if (to.entry < 0) return;"),
]  # fmt: skip
