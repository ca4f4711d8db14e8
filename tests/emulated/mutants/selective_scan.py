"""Bugs planted in the kernels of selective_scan."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ops import selective_state_update_calls as updates
from ops.selective_scan_inputs import Shape, check, make

from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant
from emulated.selective_scan_device import EmulatedScan
from emulated.selective_state_update_device import EmulatedUpdate

FOLDER = "csrc/ops/selective_scan/cuda"
SHAPES, TILE, FORWARD, SEGMENTS, BACKWARD, WINDOW, SUMS, UPDATE = (
    f"{FOLDER}/{name}"
    for name in (
        "config.h", "tile.cuh", "kernel.cuh", "segments.cuh", "backward.cuh", "window_sums.cuh",
        "sums.cuh", "update.cuh",
    )
)  # fmt: skip


def run(device: Emulator, shape: Shape, *cut: int, **options: object) -> None:
    tensors = make(shape, torch.float32, 1)
    index = torch.bucketize(torch.arange(shape.L), torch.tensor([5, 32, 40]), right=True)
    options |= {"delta_softplus": True, "seq_idx": index.int().expand(shape.B, -1)}
    check(tensors, EmulatedScan(device, *cut), floor=4.0, **options)


def whole(device: Emulator) -> None:
    """Nine windows, the last ragged, in tiles of four; a block with fewer channels; a batch."""
    run(device, Shape(2, 20, 133, 13))


def reverse(device: Emulator) -> None:
    run(device, Shape(1, 20, 133, 13), reverse=True)


def segments(device: Emulator) -> None:
    """Time in three segments, channels in two parts of two rounds."""
    run(device, Shape(1, 50, 100, 12), 3, 2)


def many_states(device: Emulator) -> None:
    """A warp is one channel."""
    run(device, Shape(1, 5, 50, 40))


def without_softplus(device: Emulator) -> None:
    tensors = make(Shape(1, 9, 37, 4), torch.float32, 1)
    for name in ("delta", "delta_bias"):
        tensors[name] = tensors[name].abs() * 0.3
    check(tensors, EmulatedScan(device), floor=4.0)


def coalesced(device: Emulator) -> None:
    scan = EmulatedScan(device)
    for shape in (Shape(1, 32, 64, 16), Shape(1, 64, 32, 4)):
        scan(make(shape, torch.float32), delta_softplus=True)
        for launch in scan.forward_report.launches + scan.backward_report.launches:
            assert_coalesced(launch.counters)


def update(device: Emulator) -> None:
    """Channels that do not fill a block, states that do not fill their lanes, padding."""
    call = updates.make((3, 18), 9, torch.float32, slots=8, groups=2)
    call["state_batch_indices"] = torch.tensor([3, -1, 7], dtype=torch.int32)
    updates.check(call, EmulatedUpdate(device), floor=4.0)


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "selective_scan", file, old, new, case, caught_by)


RACE = "shared race|uninitialised"

MUTANTS = [
    # tiles
    bug(TILE, coalesced, "counters", "quads lie in rows as in time",
        "return row >> 1 & 3;", "return 0 * row;"),
    bug(TILE, whole, "numbers", "steps behind the end of the sequence count",
        "delta[k] = k >= steps.last ? 0.f : p.softplus ?", "delta[k] = p.softplus ?"),
    bug(TILE, reverse, "numbers|out of bounds", "reverse turns windows, not what is in them",
        "kQuad * (p.reverse ? kQuadsOfWindow - 1 - quad : quad)", "kQuad * quad"),
    bug(TILE, whole, "out of bounds|numbers|uninitialised", "states beyond the last are loaded",
        "if (row < p.states) load_steps", "load_steps"),
    bug(TILE, whole, "out of bounds", "states beyond the last are stored",
        "return channel < channels.count && state(cut, s) < p.states;",
        "return channel < channels.count;"),
    bug(TILE, whole, "numbers", "a restart one step late",
        "p.reverse ? kSteps - 1 - lane : lane);", "p.reverse ? kSteps - 1 - lane : lane) - 1;"),
    # forwards
    bug(FORWARD, whole, RACE, "a tile is scanned before it is there",
        "memory + t.restarts);\n    __syncthreads();", "memory + t.restarts);"),
    bug(FORWARD, whole, RACE, "results are stored before they are there",
        "    __syncthreads();\n    store_outputs", "    store_outputs"),
    bug(FORWARD, whole, "numbers", "the gate's input before the gate's output",
        "if (p.ungated) store_group(static_cast<S*>(p.ungated) + at, steps, y);",
        "if (p.ungated) store_group(static_cast<S*>(p.ungated) + at, steps, z);"),
    # segments
    bug(SEGMENTS, segments, "numbers", "a restart that earlier segments do not see",
        "rate = restarted ? -1.f : gpu", "rate = gpu"),
    bug(SEGMENTS, segments, RACE, "the next tile comes while lanes read this one",
        "if (done > 0) __syncthreads();", ""),
    bug(SEGMENTS, segments, RACE, "the next round comes while lanes read this one's tile",
        "    __syncthreads();  // the round before has read what is staged\n", ""),
    bug(SEGMENTS, segments, "numbers", "segments start with their own end",
        "segments.states[at] = h;\n    h = factor < 0.f ? end : fmaf(factor, h, end);",
        "h = factor < 0.f ? end : fmaf(factor, h, end);\n    segments.states[at] = h;"),
    # backwards
    bug(BACKWARD, whole, RACE, "dB and dC are taken before all warps have put theirs",
        "put_sums(cut, v, memory + t.sums);\n    __syncthreads();",
        "put_sums(cut, v, memory + t.sums);"),
    bug(BACKWARD, whole, RACE, "the next state's dB and dC overwrite these",
        "memory + t.sums);\n    __syncthreads();\n  }", "memory + t.sums);\n  }"),
    bug(BACKWARD, whole, "numbers", "the gradient goes on through a restart",
        "if (restart) carry = 0.f;", ""),
    bug(BACKWARD, without_softplus, "numbers", "ddelta behind the end counts for the bias",
        "i < steps.last ? d : 0.f", "d"),
    bug(BACKWARD, many_states, "deadlock|divergent|out of bounds|uninitialised",
        "half a warp adds up rows", "max(cut.channels, 32 / kQuadsOfWindow)", "cut.channels"),
    bug(WINDOW, segments, "uninitialised|numbers", "the first round adds to what is not there",
        "to = round == 0 ? sum : to + sum;", "to = to + sum;"),
    bug(WINDOW, segments, "numbers", "the last round alone is kept",
        "to = round == 0 ? sum : to + sum;", "to = sum;"),
    bug(WINDOW, coalesced, "counters", "rows of sums in the same banks",
        "(quad ^ (lane & 7)) * kQuad", "quad * kQuad"),
    bug(WINDOW, coalesced, "counters", "both rows of a channel in the same banks",
        "t.to_delta + quad_place(channel, quad ^ 1)", "t.to_delta + quad_place(channel, quad)"),
    bug(SHAPES, coalesced, "counters|misaligned", "to_delta starts at the bank of to_x",
        "t.to_delta = t.to_x + rows + steps;", "t.to_delta = t.to_x + rows;"),
    bug(SHAPES, many_states, "misaligned", "parts of the workspace anywhere",
        "return (floats + 3) / 4 * 4;", "return floats;"),
    bug(SUMS, whole, "numbers", "one part is left out",
        "for (int i = 0; i < parts; i++) {", "for (int i = 1; i < parts; i++) {"),
    bug(SUMS, whole, "numbers", "one batch entry is left out",
        "for (int64_t row = 0; row < all.rows; row++)", "for (int64_t row = 1; row < all.rows; row++)"),
    # one step
    bug(UPDATE, update, "out of bounds|race between blocks", "channels behind the last",
        "const bool there = channel < all;", "const bool there = true;"),
    bug(UPDATE, update, "numbers|out of bounds", "padding has a state",
        "if (there && slot >= 0) {", "if (there) {"),
    bug(UPDATE, update, "numbers", "half of the lanes are added up",
        "for (int d = 1; d < lanes; d *= 2) sum", "for (int d = 2; d < lanes; d *= 2) sum"),
    bug(UPDATE, update, "numbers", "entries have their own slots, whatever the indices say",
        "p.indices ? p.indices[batch] : batch;", "batch;"),
]  # fmt: skip
