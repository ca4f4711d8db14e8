"""Bugs planted in the kernels of linear_scan."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ops.linear_scan_calls import check_scan, make, packed

from emulated.harness import Emulator, assert_coalesced
from emulated.linear_scan_device import EmulatedScan
from emulated.mutants import Mutant

FLOAT = torch.float32
KERNEL = "csrc/ops/linear_scan/cuda/kernel.cuh"
STEPS = "csrc/ops/linear_scan/cuda/steps.cuh"
CONFIG = "csrc/ops/linear_scan/cuda/config.h"


def split_rows(device: Emulator) -> None:
    call = make((1, 3, 3 * 2048 + 37), FLOAT)
    check_scan(EmulatedScan(device), call, None, False, False)


def packed_rows(device: Emulator) -> None:
    """A NaN that must not leave its sequence, and sequences that start with a lane, warp and window."""
    call = make((1, 2, 4096), FLOAT)
    index = packed(call["x"], [16, 512, 900, 1301, 2048])
    call["x"][:, :, 920] = torch.nan
    check_scan(EmulatedScan(device), call, index, False, False)


def lagged_rows(device: Emulator) -> None:
    """Short rows of several windows, from the last to the first step, with constant decays."""
    call = make((2, 3, 1000), FLOAT, constant=True)
    check_scan(EmulatedScan(device), call, None, True, True)


def ragged_rows(device: Emulator) -> None:
    """Rows of two windows that begin within sectors."""
    call = make((2, 3, 3001), FLOAT)
    scan = EmulatedScan(device)
    check_scan(scan, call, None, False, False)
    assert_coalesced(scan.report.counters)


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "linear_scan", file, old, new, case, caught_by)


MUTANTS = [
    bug(KERNEL, ragged_rows, "counters", "windows start where their row starts",
        "return first_window(row.x) + (kReverse", "return (kReverse"),
    bug(KERNEL, ragged_rows, "numbers", "the carry of the first window for all",
        "state = apply(block.total, state);", "state = i ? state : apply(block.total, state);"),
    bug(KERNEL, split_rows, "out of bounds", "the rows of another batch",
        "channel = row - batch * p.channels", "channel = row - (batch - 1) * p.channels"),
    bug(KERNEL, split_rows, "numbers", "the state of a chunk without its initial one",
        "start.x = row.initial;", ""),
    bug(KERNEL, split_rows, "numbers|race between blocks", "the last state of another chunk",
        "chunk == chunks - 1 && threadIdx.x == 0", "chunk == 0 && threadIdx.x == 0"),
    bug(KERNEL, lagged_rows, "numbers", "constant decays of elements outside of the row",
        "row.has(step(window, i)) ? row.decay : one<T>()", "row.decay"),
    bug(KERNEL, packed_rows, "numbers", "a lane compares its first step with itself",
        "int32_t before = shuffle_up(index[kItems - 1], 1);", "int32_t before = index[0];"),
    bug(KERNEL, packed_rows, "numbers", "a warp compares its first step with its own last one",
        "if (gpu::lane() == 0 && row.has(earlier)) before", "if (false) before"),
    bug(STEPS, packed_rows, "numbers", "restarts by a factor of 0",
        "return steps.restarts ? steps.x : advance(steps.a, state, steps.x);",
        "return advance(steps.restarts ? T{} : steps.a, state, steps.x);"),
    bug(STEPS, packed_rows, "numbers", "a restart of the earlier steps is forgotten",
        "first.restarts | second.restarts", "second.restarts"),
    bug(STEPS, lagged_rows, "numbers", "the decay goes into a lagged step, not out of it",
        "lagged ? add(state, x[i])", "false ? add(state, x[i])"),
    bug(CONFIG, split_rows, "out of bounds|uninitialised|numbers|shared race",
        "windows that do not cover a row", "most = length + 32 / bytes - 1", "most = length - 2048"),
]  # fmt: skip
