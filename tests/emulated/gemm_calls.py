"""Calls of the kernels of gemm.cpp that check what they give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from emulated.harness import Emulator

STORAGE = (torch.float32, torch.bfloat16, torch.float16)
ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
LAYOUTS = ("A B^T", "A B", "A^T B")
UNIT = 2.0**-24


def to_tf32(x: Tensor) -> Tensor:
    """The nearest number of 10 mantissa bits, the larger of two."""
    bits = (x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF
    return bits.view(torch.float32)


def check(got: Tensor, a: Tensor, b: Tensor, mma: str) -> None:
    """got = a b up to the roundings that tensor cores make."""
    if a.dtype == torch.float32:
        a, b = to_tf32(a), to_tf32(b)
    k = a.shape[1]
    expected, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    # ideal: one rounding for each instruction; truncating: for each 8 products, of them and the sum
    # so far 24 bits below the largest, and of the result.
    steps = k / 8 * 11 if mma == "truncating" else k / (32 / a.element_size())
    bound = (steps + 1) * UNIT * size
    bound = bound + ROUNDING[got.dtype] * (expected.abs() + bound)
    error = (got.double() - expected).abs()
    assert (error <= bound).all(), f"off by {error.max()}, {(error / bound).max()} times the bound"


def padded(x: Tensor, columns: int) -> Tensor:
    """The same with `columns` more elements between rows, which are not to be read."""
    return torch.cat([x, torch.full((len(x), columns), torch.nan).to(x.dtype)], 1)[:, : x.shape[1]]


def gemm(
    device: Emulator, a: Tensor, b: Tensor, layout: str, size: int, mma: str = "ideal",
    out: torch.dtype | None = None, padding: int = 0,
) -> Any:  # fmt: skip
    """a b with the operands laid out as asked, in copies of `size` bytes; the counters."""
    (m, k), n, kind = a.shape, b.shape[1], STORAGE.index(a.dtype)
    out = out or a.dtype
    a_there = padded((a.t() if layout == "A^T B" else a).contiguous(), padding)
    b_there = padded((b.t() if layout == "A B^T" else b).contiguous(), padding)
    c = device.tensor(torch.full((m, n + padding), -7.0).to(out), "c")
    report = device.call(
        "emulated_gemm", kind, LAYOUTS.index(layout), size, out == torch.float32,
        device.tensor(a_there, "a"), a_there.stride(0), device.tensor(b_there, "b"),
        b_there.stride(0), c, n + padding, m, n, k,
    )  # fmt: skip
    check(c.read()[:, :n], a, b, mma)
    assert (c.read()[:, n:] == -7).all(), "wrote beyond a row"
    return report.counters


def example(m: int, n: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
