"""Calls of the kernels of scan_rows.cpp and scan_rows_16bit.cpp that check what they give."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, assert_coalesced, assert_traffic

STORAGE = (torch.float32, torch.bfloat16, torch.float16)
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
UNIT = 2.0**-24
# Vectors of 16 bytes that a thread has, and threads, as scan_rows_run.h has them; SPLIT: rows are split.
THREADS = {1: 160, 2: 96, 4: 64, 8: 32}
SPLIT = 0


def library(dtype: torch.dtype) -> str:
    return "scan_rows" if dtype == torch.float32 else "scan_rows_16bit"


def tile_length(dtype: torch.dtype, vectors: int) -> int:
    """Elements that a block has at once."""
    threads = 64 if vectors == SPLIT else THREADS[vectors]
    return threads * (vectors or 2) * 16 // dtype.itemsize


def example(rows: int, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """a, x and start; the end of a row still depends on all of it."""
    a = 1 - torch.rand(rows, length) * 4 / length
    a = torch.where(torch.rand(rows, length) < 8 / length, 0.75, a)
    a = a * torch.randn(rows, length).sign()
    return a.to(dtype), torch.randn(rows, length).to(dtype), torch.randn(rows)


def reference(a: Tensor, x: Tensor, start: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """h in float64, and how far float may be off: a path from s to t is a product of t - s factors,
    and each sum has gone through `levels` additions."""
    states: list[tuple[float, float]] = []
    for factors, terms, first in zip(a.tolist(), x.tolist(), start.tolist(), strict=True):
        state, size, error = first, abs(first), 0.0
        for factor, term in zip(factors, terms, strict=True):
            state, size = factor * state + term, abs(factor) * size + abs(term)
            error = abs(factor) * error + 3 * UNIT * size
            states.append((state, error + 2 * levels * UNIT * size))
    values, errors = torch.tensor(states, dtype=torch.float64).view(*a.shape, 2).unbind(-1)
    return values, errors


def scan(
    device: Emulator, a: Tensor, x: Tensor, start: Tensor, vectors: int, reverse: bool, shift: int = 0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Runs the kernel, checks what it gives against the reference, and returns it."""
    (rows, length), dtype = a.shape, a.dtype
    h = device.empty((rows, length), dtype, "h")
    last = device.empty((rows,), torch.float32, "last")
    workspace: DeviceTensor | None = None
    needed = 0
    if vectors == SPLIT:
        size = device.function("emulated_linear_scan_workspace", ctypes.c_int64)
        needed = size(rows, length)
        workspace = device.tensor(torch.zeros(needed // 4, dtype=torch.int32), "workspace")
    report = device.call(
        "emulated_linear_scan", device.tensor(a, "a", shift=shift), device.tensor(x, "x"),
        device.tensor(start, "start"), h, last, rows, length, vectors, reverse, workspace,
        *([dtype == torch.float16] if dtype.itemsize == 2 else []),
    )  # fmt: skip

    flip = (lambda t: t.flip(1)) if reverse else (lambda t: t)
    windows = length / tile_length(dtype, vectors) + 2
    expected, bound = reference(flip(a), flip(x), start, 10 + int(windows))
    error = (flip(h.read()).double() - expected).abs()
    allowed = bound + ROUNDING[dtype] * (expected.abs() + bound)
    assert (error <= allowed).all(), f"h is off by {error.max()}, {(error / allowed).max()} times"
    error = (last.read().double() - expected[:, -1]).abs()
    assert (error <= bound[:, -1]).all(), f"last is off by {error.max()}"
    if shift == 0 and length >= 1000:
        assert_coalesced(report.counters)
        assert_traffic(report.counters, 2 * a.nbytes + needed, h.read().nbytes + needed)
    return h.read(), last.read()
