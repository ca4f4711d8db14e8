"""Reductions, scans, look-back and tiles, each alone in a kernel, executed by the emulator."""

from __future__ import annotations

import pytest
import torch

from emulated.blocks_calls import (
    OPS,
    STORAGE,
    copy_tiles,
    look_back,
    reduce_rows,
    reduce_squares,
    scan_squares,
)
from emulated.harness import SEEDS, Emulator

THREADS = (32, 64, 96, 160, 992, 1024)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("threads", THREADS)
def test_reduce_rows(op: str, threads: int):
    for length in (1, 31, 1000, 2048):
        x = torch.randn(7, length)
        results = [reduce_rows(Emulator("blocks", seed=s), x, op, threads) for s in SEEDS]
        assert all(torch.equal(result, results[0]) for result in results), "depends on the order"


@pytest.mark.parametrize("op", ("max", "min"))
def test_largest_and_smallest_of_nan_and_infinity(op: str):
    x = torch.randn(6, 70)
    x[0, 3] = x[1, 69] = x[2, 0] = torch.nan
    x[2, 1], x[3], x[4] = torch.inf, torch.inf, -torch.inf
    y = Emulator("blocks")
    out = y.empty((6,), torch.float32, "y")
    y.call("emulated_reduce_rows", y.tensor(x, "x"), out, 6, 70, list(OPS).index(op), 2, 64)
    torch.testing.assert_close(out.read(), OPS[op](x, dim=1), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads", THREADS)
def test_reduce_in_the_order_of_threads(threads: int, seed: int):
    reduce_squares(Emulator("blocks", seed=seed), threads)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads", THREADS)
def test_scan_with_carry(threads: int, seed: int):
    for items in (1, 3):
        scan_squares(Emulator("blocks", seed=seed), threads, items)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("chunks", (1, 2, 31, 32, 33, 70, 131))
def test_look_back_sums_in_order_wherever_it_ends(chunks: int, seed: int):
    kinds = torch.randint(1, 4, (9, chunks)).int()
    kinds[0], kinds[1], kinds[2] = 1, 2, 3
    kinds[3] = 1
    kinds[3, 0] = 2
    kinds[4, 1:] = 1
    kinds[5, -33:] = 1
    look_back(Emulator("blocks", seed=seed), kinds)


@pytest.mark.parametrize("dtype", STORAGE)
@pytest.mark.parametrize("width", (32, 64))
def test_tiles_of_any_alignment(dtype: torch.dtype, width: int):
    for size in {16, 8, 4, dtype.itemsize}:
        step = size // dtype.itemsize
        for rows, columns in ((50, 4 * width), (17, 3 * width + step), (1, step)):
            x = torch.randn(rows, columns + 4 * step).to(dtype)[:, :columns]
            for seed in SEEDS:
                copy_tiles(Emulator("blocks", seed=seed), x, columns + step, width, size)


@pytest.mark.parametrize("dtype", STORAGE)
def test_tiles_in_vectors_move_no_byte_twice(dtype: torch.dtype):
    x = torch.randn(50, 256).to(dtype)
    device = Emulator("blocks")
    copy_tiles(device, x, 256, 64, 16)
