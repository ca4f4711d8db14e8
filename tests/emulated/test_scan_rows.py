"""A linear recurrence along rows, h_t = a_t h_{t-1} + x_t, of row tiles, block scans and look-back."""

from __future__ import annotations

import pytest
import torch

from emulated.harness import SEEDS, Emulator
from emulated.scan_rows_calls import SPLIT, STORAGE, example, library, scan, tile_length

CASES = [
    *((torch.float32, vectors) for vectors in (1, 2, 4, 8, SPLIT)),
    *((dtype, vectors) for dtype in STORAGE[1:] for vectors in (2, 8, SPLIT)),
]


@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize(("dtype", "vectors"), CASES)
def test_rows_of_several_tiles(dtype: torch.dtype, vectors: int, reverse: bool):
    tile = tile_length(dtype, vectors)
    for length in (4 * tile, 3 * tile + 37):
        inputs = example(3, length, dtype)
        results = [scan(Emulator(library(dtype), seed=s), *inputs, vectors, reverse) for s in SEEDS]
        for h, last in results:
            same = torch.equal(h, results[0][0]) and torch.equal(last, results[0][1])
            assert same, "depends on the order"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("dtype", "vectors"), CASES)
def test_short_rows_and_operands_that_lie_differently(dtype: torch.dtype, vectors: int, seed: int):
    for length, shift in ((1, 0), (7, 1), (131, 0), (260, 3)):
        for reverse in (False, True):
            inputs = example(4, length, dtype)
            scan(Emulator(library(dtype), seed=seed), *inputs, vectors, reverse, shift)


@pytest.mark.parametrize("vectors", (2, SPLIT))
def test_many_chunks_of_many_rows(vectors: int):
    tile = tile_length(torch.bfloat16, vectors)
    inputs = example(5, 41 * tile if vectors == SPLIT else 5 * tile, torch.bfloat16)
    scan(Emulator("scan_rows_16bit", seed=1), *inputs, vectors, False)


def test_rows_of_length_0_leave_the_start():
    device = Emulator("scan_rows")
    start, last = torch.randn(3), device.empty((3,), torch.float32, "last")
    nothing = device.tensor(torch.empty(3, 0), "nothing")
    device.call(
        "emulated_linear_scan", nothing, nothing, device.tensor(start, "start"), nothing, last,
        3, 0, 2, 0, None,
    )  # fmt: skip
    assert torch.equal(last.read(), start)
