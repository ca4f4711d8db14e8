"""Bugs planted in the kernels of causal_conv1d."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ops.causal_conv1d_calls import (
    channels_last,
    check,
    check_update,
    example,
    packed,
    results,
    update_example,
)

from emulated.causal_conv1d_device import EmulatedConv, EmulatedUpdate
from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant

FOLDER = "csrc/ops/causal_conv1d/cuda"
CONFIG, ROWS, COLUMNS, ANY, UPDATE = (
    f"{FOLDER}/{name}" for name in ("config.h", "rows.cuh", "columns.cuh", "any.cuh", "update.cuh")
)


def rows(device: Emulator) -> None:
    """Ragged rows of three windows."""
    check(example((1, 2, 2065, 4)), EmulatedConv(device), activation="silu")


def packed_rows(device: Emulator) -> None:
    tensors = example((2, 2, 75, 4))
    check(tensors, EmulatedConv(device), activation="silu", seq_idx=packed(2, 75))


def columns(device: Emulator) -> None:
    """Two blocks along the channels and along time."""
    conv = EmulatedConv(device)
    tensors = channels_last(example((1, 80, 300, 4)))
    check(tensors, conv, activation="silu")
    assert_coalesced(conv.backward.launches[0].counters)


def packed_columns(device: Emulator) -> None:
    tensors = channels_last(example((2, 5, 75, 3)))
    check(tensors, EmulatedConv(device), activation="silu", seq_idx=packed(2, 75))


def wide(device: Emulator) -> None:
    """More than a piece of steps, of either layout."""
    for arrange in (dict, channels_last):
        check(arrange(example((1, 2, 1100, 6))), EmulatedConv(device), activation="silu")


def bad_number(device: Emulator) -> None:
    """NaN in the last step must not reach the gradient of the newest tap's neighbours."""
    tensors = example((1, 1, 60, 2))
    tensors["x"][0, 0, 59] = torch.nan
    got = results(EmulatedConv(device), tensors)
    assert not got["weight"][0, 0].isnan()


def ring(device: Emulator) -> None:
    check_update(update_example((3, 5, 3, 4), 4, ring=True, slots=True), EmulatedUpdate(device))


def shifting(device: Emulator) -> None:
    check_update(update_example((3, 5, 2, 4), 5), EmulatedUpdate(device))


def bug(
    case: Callable[[Emulator], None], caught_by: str, name: str, file: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "causal_conv1d", file, old, new, case, caught_by)


MUTANTS = [
    bug(rows, "numbers", "the first lane of a warp sees its own items as those before", ROWS,
        "v[h] = lane == 0 ? before[h] : left;", "v[h] = left;"),
    bug(rows, "numbers", "nothing behind the last lane of a warp", ROWS,
        "behind[h] = kBehind && rightmost ?", "behind[h] = false ?"),
    bug(rows, "numbers", "the initial state is left out", ROWS,
        "if (start >= 0 || !p.initial.data) return;", "return;"),
    bug(rows, "uninitialised|numbers", "a window too few", CONFIG,
        "(p.length + 32 / sizeof_dtype(p.dtype) - 1 + Shape::kRowTile - 1) / Shape::kRowTile",
        "p.length / Shape::kRowTile"),
    bug(bad_number, "numbers", "items behind the row count", ROWS,
        "const bool inside = first >= 0 && first + ConvShape::kRowItems <= p.length;",
        "const bool inside = first >= 0;"),
    bug(packed_rows, "numbers", "padding is a sequence", ROWS,
        "if (reach[i] >= 0) reach[i] = padding ? -1 : run;", "if (reach[i] >= 0) reach[i] = run;"),
    bug(packed_rows, "numbers", "gradients flow into another sequence", ROWS,
        "grad_x[i] = !place.masked || lag <= reach[i + lag] ? to_x : grad_x[i];",
        "grad_x[i] = to_x;"),
    bug(columns, "numbers", "the warps' sums begin with the second", COLUMNS,
        "for (int w = 0; w < ConvShape::kColumnWarps; w++)",
        "for (int w = 1; w < ConvShape::kColumnWarps; w++)"),
    bug(columns, "shared race|uninitialised", "no barrier before the taps are read", COLUMNS,
        "i < left ? weight[i] : 0.f;\n    }\n    __syncthreads();",
        "i < left ? weight[i] : 0.f;\n    }"),
    bug(columns, "counters", "tap rows in the same banks", COLUMNS,
        "return kChannels + 32 / width / 2 * 2;", "return kChannels + 0 * width;"),
    bug(columns, "numbers", "steps behind the run are left out", COLUMNS,
        "column.end + past < p.length ? column.end + past : p.length;", "column.end;"),
    bug(columns, "numbers", "steps behind the run are counted twice", COLUMNS,
        "if (!inside || time >= column.end) continue;", "if (!inside) continue;"),
    bug(packed_columns, "numbers", "every step sees all of the past", COLUMNS,
        "if (lag >= p.width || lag > reach) continue;", "if (lag >= p.width) continue;"),
    bug(wide, "numbers", "the first group of lags alone", ANY,
        "const auto sums = lag_sums<S>(g, at, begin, 1, end, lag);",
        "const auto sums = lag_sums<S>(g, at, begin, 1, end, 0);"),
    bug(wide, "uninitialised|race between blocks", "all pieces write the first row", ANY,
        "store_conv_sums(g, reduce(mine, AddConvSums()), row, block, lag, threadIdx.x);",
        "store_conv_sums(g, reduce(mine, AddConvSums()), 0 * row, block, lag, threadIdx.x);"),
    bug(wide, "shared race|uninitialised", "no barrier before the slices are added", ANY,
        "shared.sums[slice][slot] = sum;\n  __syncthreads();", "shared.sums[slice][slot] = sum;"),
    bug(ring, "global race|out of bounds", "the ring does not close", UPDATE,
        "(place >= 0 ? place : place + state_length)", "(place)"),
    bug(ring, "out of bounds", "padding is a state before the first", UPDATE, "if (slot < 0) {", "if (slot < -1) {"),
    bug(shifting, "numbers", "the state moves by one step too few", UPDATE,
        "row.input(p.length + i - length)", "row.input(p.length + i - length - 1)"),
]  # fmt: skip
