"""Bugs planted in the kernel of rotary."""

from __future__ import annotations

from collections.abc import Callable

from ops.rotary_calls import check_out, example, integers

from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant
from emulated.rotary_device import EmulatedRotary

KERNEL = "csrc/ops/rotary/cuda/kernel.cuh"
CONFIG = "csrc/ops/rotary/cuda/config.h"
PARAMS = "csrc/ops/rotary/params.h"
COLUMNS = "csrc/cuda/rotation.cuh"
SLOTS = "csrc/cuda/rotation.h"


def halves(device: Emulator) -> None:
    """Heads of more than one thread, columns that are not rotated."""
    rotary = EmulatedRotary(device)
    check_out(example((2, 5, 6, 64), 32, positions=9), rotary, offsets=integers(1, 4))
    assert_coalesced(rotary.report.counters)


def ragged(device: Emulator) -> None:
    for interleaved in (False, True):
        check_out(example((1, 3, 2, 37), 20), EmulatedRotary(device), interleaved=interleaved)


def adjacent(device: Emulator) -> None:
    rotary = EmulatedRotary(device)
    check_out(example((2, 5, 6, 64), 64), rotary, interleaved=True, inverse=True)
    assert_coalesced(rotary.report.counters)


def packed(device: Emulator) -> None:
    tensors = example((1, 23, 2, 24))
    check_out(tensors, EmulatedRotary(device), cu_seqlens=integers(0, 1, 1, 9, 20, 23))


def beyond(device: Emulator) -> None:
    """A token behind the end of the tables."""
    out = EmulatedRotary(device)(**example((1, 3, 2, 16)), offsets=integers(1))
    assert out[0, 2].isnan().all() and out[0, :2].isfinite().all()


def bug(
    case: Callable[[Emulator], None], caught_by: str, name: str, file: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "rotary", file, old, new, case, caught_by)


MUTANTS = [
    bug(halves, "out of bounds|race between blocks", "heads behind the last", KERNEL,
        "if (head >= p.heads) continue;\n    load_group<false>(x + head * p.x.head, slot.first",
        "if (head > p.heads) continue;\n    load_group<false>(x + head * p.x.head, slot.first"),
    bug(halves, "uninitialised|numbers", "a block too few", CONFIG,
        "(all + RotaryShape::kThreads - 1) / RotaryShape::kThreads", "all / RotaryShape::kThreads"),
    bug(halves, "out of bounds|global race|race between blocks", "threads behind the last token", KERNEL,
        "if (!at.there) return;", ""),
    bug(halves, "numbers", "the batch's own offset is not used", PARAMS,
        "p.offsets[sequence]", "p.offsets[0 * sequence]"),
    bug(halves, "counters", "the two groups of a thread lie side by side", COLUMNS,
        "columns_from<W>(rest, middle < columns ? middle : columns),\n          columns_from<W>(rest + far, columns)",
        "columns_from<W>(2 * rest - rotated, columns),\n          columns_from<W>(2 * rest - rotated + W, columns)"),
    bug(ragged, "out of bounds|global race", "groups behind the rotated columns", COLUMNS,
        "left < 0 ? 0 : left < W ? left : W", "left < 0 ? 0 : W"),
    bug(ragged, "uninitialised|numbers", "the rest lacks its odd column", SLOTS,
        "groups_of((columns - rotated + 1) / 2, group)", "groups_of((columns - rotated) / 2, group)"),
    bug(adjacent, "numbers", "the second group has the first one's angles", COLUMNS,
        "W / 2 + k);", "k);"),
    bug(adjacent, "numbers", "the direction is not looked at", COLUMNS,
        "if (inverse) sin[k] = -sin[k];", ""),
    bug(packed, "numbers", "the sequence that ends at the token", PARAMS,
        "p.sequences[middle] <= time", "p.sequences[middle] < time"),
    bug(beyond, "out of bounds", "no end of the tables", KERNEL,
        "position >= 0 && position < p.positions", "position >= 0"),
]  # fmt: skip
