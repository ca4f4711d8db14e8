"""Calls of the kernels of blocks.cpp that check what they give."""

from __future__ import annotations

import ctypes

import numpy as np
import torch
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, assert_coalesced, assert_traffic

OPS = {"sum": torch.sum, "max": torch.amax, "min": torch.amin}
STORAGE = (torch.float32, torch.bfloat16, torch.float16)
UNIT = 2.0**-24  # of float: relative error of one operation


def sectors(*bytes_of_tensors: int) -> int:
    return sum(-(-size // 32) * 32 for size in bytes_of_tensors)


def reduce_rows(device: Emulator, x: Tensor, op: str, threads: int) -> Tensor:
    """Checks the result and returns it."""
    rows, length = x.shape
    y = device.empty((rows,), torch.float32, "y")
    code, blocks = list(OPS).index(op), 2  # of which each takes several rows
    report = device.call(
        "emulated_reduce_rows", device.tensor(x, "x"), y, rows, length, code, blocks, threads
    )
    bound = torch.zeros(rows).double()
    if op == "sum":
        bound = (length / threads + 11) * UNIT * x.double().abs().sum(1)
    error = (y.read().double() - OPS[op](x.double(), dim=1)).abs()
    assert (error <= bound).all(), f"{op} of {length} by {threads} threads: {error} > {bound}"
    if length % 8 == 0:
        assert_coalesced(report.counters)
        assert_traffic(report.counters, 4 * x.numel(), sectors(4 * rows))
    return y.read()


def random_squares(*shape: int) -> np.ndarray:
    """Of odd determinant: products of others would soon be 0 modulo 2^32."""
    squares = np.random.default_rng(0).integers(0, 2**32, (*shape, 2, 2), dtype=np.uint64)
    squares[..., 0, 0] |= 1
    squares[..., 1, 1] |= 1
    squares[..., 1, 0] &= 0xFFFFFFFE
    return squares


def product(squares: np.ndarray) -> np.ndarray:
    """Along the first axis, with all the steps on the way, modulo 2^32."""
    steps = [squares[0]]
    for square in squares[1:]:
        steps.append((steps[-1] @ square) & 0xFFFFFFFF)
    return np.stack(steps)


def on_device(device: Emulator, squares: np.ndarray, name: str) -> DeviceTensor:
    return device.tensor(torch.from_numpy(squares.astype(np.uint32).view(np.int32).copy()), name)


def read_squares(tensor: DeviceTensor, *shape: int) -> np.ndarray:
    return tensor.read().numpy().view(np.uint32).astype(np.uint64).reshape(*shape, 2, 2)


def reduce_squares(device: Emulator, threads: int) -> None:
    rounds = 7
    x = random_squares(rounds, threads)
    every = device.empty((rounds, 4), torch.int32, "all")
    groups = device.empty((rounds, threads, 4), torch.int32, "groups")
    report = device.call(
        "emulated_reduce_squares", on_device(device, x, "x"), every, groups, rounds, threads
    )
    got = read_squares(groups, rounds, threads)
    for i in range(rounds):
        assert (read_squares(every, rounds)[i] == product(x[i])[-1]).all(), f"block, round {i}"
        lanes = (4, 8, 16)[i % 3]
        expected = product(x[i].reshape(-1, lanes, 2, 2).swapaxes(0, 1))[-1].repeat(lanes, axis=0)
        assert (got[i] == expected).all(), f"groups of {lanes} lanes, round {i}"
    assert_coalesced(report.counters)


def scan_squares(device: Emulator, threads: int, items: int) -> None:
    tiles = 4
    x = random_squares(tiles, threads, items)
    y = device.empty((tiles, threads, items, 4), torch.int32, "y")
    carries = device.empty((tiles, threads, 4), torch.int32, "carries")
    x_there = on_device(device, x, "x")
    report = device.call("emulated_scan_squares", x_there, y, carries, tiles, threads, items)
    expected = product(x.reshape(-1, 2, 2)).reshape(x.shape)
    assert (read_squares(y, tiles, threads, items) == expected).all()
    assert (read_squares(carries, tiles, threads) == expected[:, -1:, -1]).all(), "carry"
    if items == 1:
        assert_coalesced(report.counters)


def look_back(device: Emulator, kinds: Tensor) -> None:
    """kinds [rows, chunks] of what is published: 1 a total, 2 a prefix, 3 one and later the other."""
    rows, chunks = kinds.shape
    totals = torch.stack([torch.rand(chunks) * 0.1 + 0.95, torch.randn(chunks)], 1)
    order = torch.stack([torch.randperm(chunks) for _ in range(rows)]).int()
    prefixes = device.empty((rows, chunks + 1, 2), torch.float32, "prefixes")
    result = device.empty((rows, 2), torch.float32, "result")
    size = device.function("emulated_look_back_workspace", ctypes.c_int64)
    words = torch.zeros(size(rows, chunks) // 4, dtype=torch.int32)
    workspace = device.tensor(words, "workspace")
    device.call(
        "emulated_look_back", device.tensor(totals, "totals"), device.tensor(kinds, "kinds"),
        device.tensor(order, "order"), prefixes, result, workspace, rows, chunks,
    )  # fmt: skip
    state, size = 0.5, 0.5
    for a, x in totals.double().tolist():
        state, size = a * state + x, a * size + abs(x)
    assert torch.equal(result.read(), prefixes.read()[:, -1]), "not the sum in the chunks' order"
    assert ((result.read()[:, 1].double() - state).abs() <= 3 * chunks * UNIT * size).all()


def copy_tiles(device: Emulator, x: Tensor, stride: int, width: int, size: int) -> None:
    """Through tiles of `width` columns in copies of `size` bytes; the result has rows of `stride`."""
    rows, columns = x.shape
    y = device.tensor(torch.full((rows, stride), -7.0).to(x.dtype), "y")
    report = device.call(
        "emulated_copy_tiles", STORAGE.index(x.dtype), device.tensor(x, "x"), x.stride(0), y,
        stride, rows, columns, width, size,
    )  # fmt: skip
    assert torch.equal(y.read()[:, :columns], x)
    assert (y.read()[:, columns:] == -7).all(), "wrote beyond a row"
    if x.stride(0) * x.element_size() % 32 == 0 and stride * x.element_size() % 32 == 0:
        assert_coalesced(report.counters)
