"""Bugs planted in the kernels of sampler_step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from ops.sampler_step_calls import check, example

from emulated.harness import Emulator, assert_coalesced, assert_traffic
from emulated.mutants import Mutant
from emulated.sampler_step_device import EmulatedStep

STEP = "csrc/ops/sampler_step/cuda/kernel.cuh"
THRESHOLD = "csrc/ops/sampler_step/cuda/threshold.cuh"
OPERANDS = "csrc/ops/sampler_step/cuda/operands.cuh"
GROUPS = "csrc/cuda/groups.h"
MOVES = "csrc/cuda/groups.cuh"


def ragged_step(device: Emulator) -> None:
    """Samples of odd size, noise made in the kernel, threads that go round three times and more."""
    torch.manual_seed(0)
    options = {"per_sample": True, "noise": (7, 9), "next_input": torch.float32}
    check(*example((4, 1263), outputs=2, history=1, **options), step=EmulatedStep(device, blocks=2))


def unaligned_step(device: Emulator) -> None:
    torch.manual_seed(0)
    check(*example((3, 250), outputs=2), step=EmulatedStep(device, shift=1))


def coalesced_step(device: Emulator) -> None:
    torch.manual_seed(0)
    x, models, table, kwargs = example((3, 3003), outputs=2)
    step = EmulatedStep(device)
    step(x, models, table, **kwargs)
    assert_coalesced(step.report.counters)
    assert_traffic(step.report.counters, 3 * x.nbytes, 2 * x.nbytes)


def threshold(device: Emulator) -> None:
    """Samples that a block goes round four times."""
    torch.manual_seed(0)
    x, models, table, kwargs = example((2, 6201), outputs=2, clip=math.inf)
    step = EmulatedStep(device)
    check(3 * x, models, table, kwargs | {"threshold": (0.99, 99.0)}, step=step)
    assert_coalesced(step.report.launches[0].counters)


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "sampler_step", file, old, new, case, caught_by)


MUTANTS = [
    # the step
    bug(STEP, ragged_step, "race between blocks", "threads go on at a stride of the block",
        "i += stride", "i += blockDim.x"),
    bug(STEP, ragged_step, "numbers", "noise of another Philox block",
        "static_cast<uint64_t>((at + k) / 4)", "static_cast<uint64_t>((at + k) / 4 + 1)"),
    bug(STEP, ragged_step, "numbers", "one half of a Philox block twice",
        "k % 4 == 2;", "k % 4 == 3;"),
    bug(STEP, ragged_step, "numbers", "history of another sample",
        "sample * p.terms[i].batch_stride", "0 * p.terms[i].batch_stride"),
    bug(STEP, ragged_step, "race between blocks|global race", "samples overlap by one element",
        "const int64_t start = sample * p.elements;",
        "const int64_t start = sample * (p.elements - 1);"),
    bug(STEP, threshold, "numbers", "the scale of the first sample for all",
        "static_cast<const T*>(p.scales)[sample]", "static_cast<const T*>(p.scales)[0]"),
    # groups of elements
    bug(MOVES, ragged_step, "out of bounds", "the last group goes over the end",
        "elements - e < W ? static_cast<int>(elements - e) : W", "W"),
    bug(MOVES, ragged_step, "race between blocks|global race|out of bounds",
        "the first group goes over the start", "e < 0 ? static_cast<int>(-e) : 0", "0"),
    bug(MOVES, unaligned_step, "misaligned", "words wherever the tensor lies",
        "is_aligned<Word>(from)", "true"),
    bug(MOVES, coalesced_step, "counters", "elements one by one",
        "is_aligned<Word>(to)", "false"),
    bug(MOVES, coalesced_step, "counters", "single floats instead of words",
        "is_aligned<Word>(from)", "false"),
    bug(GROUPS, coalesced_step, "counters", "groups that start where the sample does",
        "return sample * elements % kGroupAlignment;", "return 0 * sample * elements;"),
    bug(GROUPS, ragged_step, "numbers", "no group for what the shift leaves at the end",
        "shifted ? kGroupAlignment - factor : 0", "shifted ? 0 : 0"),
    bug(OPERANDS, ragged_step, "numbers", "guidance of the first output for all",
        "SamplerStepColumn::guidance + i", "SamplerStepColumn::guidance + 0"),
    # the quantile
    bug(THRESHOLD, threshold, "shared race", "no barrier before the counting",
        "uint4{0, 0, 0, 0});\n    __syncthreads();", "uint4{0, 0, 0, 0});"),
    bug(THRESHOLD, threshold, "shared race", "no barrier after the counting",
        "atomicOr(&state.has_nan, 1u);\n    __syncthreads();", "atomicOr(&state.has_nan, 1u);"),
    bug(THRESHOLD, threshold, "shared race", "no barrier before the digit is read",
        "find_digit(state, scan, rank);\n    __syncthreads();", "find_digit(state, scan, rank);"),
    bug(THRESHOLD, threshold, "shared race", "counted without an atomic",
        "atomicAdd(&counts[digit], 1u);", "counts[digit]++;"),
    bug(THRESHOLD, threshold, "deadlock", "a vote that only some lanes come to",
        "fn(magnitude_key(abs(data)), k >= group.first && k < group.last);",
        "if (k >= group.first && k < group.last) fn(magnitude_key(abs(data)), true);"),
    bug(THRESHOLD, threshold, "uninitialised", "a flag that nobody clears",
        "if (threadIdx.x == 0) state.has_nan = 0;\n", ""),
    bug(THRESHOLD, threshold, "numbers", "rank off by one",
        "static_cast<uint32_t>(rank.below), state)", "static_cast<uint32_t>(rank.below) + 1, state)"),
    bug(THRESHOLD, threshold, "numbers", "the second digit of a pass has too many bits",
        "(Key(1) << (top - shift)) - 1", "(Key(1) << (top - shift)) - 2"),
    bug(THRESHOLD, threshold, "out of bounds", "shared memory for half of the bins",
        "static_cast<int32_t>(shared)}", "static_cast<int32_t>(shared / 2)}"),
]  # fmt: skip
