"""Calls of the emulated matrix product of sm_90a, with the bounds on its error and its traffic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from emulated.harness import CountersError, DeviceTensor, Emulator

TYPES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
LAYOUTS = {"A B^T": 0, "A B": 1, "A^T B": 2, "A B narrow": 3, "A B narrower": 4}


def rows_of(value: Tensor, transposed: bool, padding: int) -> Tensor:
    """A matrix as it lies in memory: rows of whole 16 bytes, `padding` times that longer."""
    value = value.t() if transposed else value
    unit = 16 // value.element_size()
    length = (-(-value.shape[1] // unit) + padding) * unit
    return torch.empty(value.shape[0], length, dtype=value.dtype)[:, : value.shape[1]].copy_(value)


def row_bytes(tensor: DeviceTensor) -> int:
    return tensor.stride[0] * tensor.dtype.itemsize


def bound(a: Tensor, b: Tensor, expected: Tensor, out: torch.dtype, truncating: bool) -> Tensor:
    """Of the error: every sum of 8 products may be cut off at 2^-23 of the largest partial sum;
    tf32 operands are rounded at 2^-11 or cut off at 2^-10; the result is rounded once."""
    sums = a.double().abs() @ b.double().abs().t()
    steps = a.shape[1] / 8 + 1 if truncating else 1 + a.shape[1] * a.element_size() / 32
    relative = steps * 2.0**-23
    if a.dtype == torch.float32:
        relative += 2.0**-9 if truncating else 2.0**-10
    return expected.abs() * torch.finfo(out).eps / 2 + sums * relative + torch.finfo(out).tiny


def check_traffic(counters: Any, loaded: int, stored: int, aligned: bool) -> None:
    """Sectors of the boxes, where rows start at one, and distinct sectors of the launch."""
    for name, bytes_ in (("tensor_load", loaded), ("tensor_store", stored)):
        traffic = getattr(counters, name)
        if aligned and traffic.sectors > 1.05 * traffic.ideal:
            raise CountersError(f"{name}: {traffic.sectors} sectors, ideal are {traffic.ideal}")
        if aligned and 32 * traffic.distinct > 1.05 * bytes_:
            raise CountersError(f"{name}: {32 * traffic.distinct} bytes, {bytes_} are needed")
    for name in ("shared_load", "shared_store"):
        traffic = getattr(counters, name)
        if traffic.sectors != traffic.ideal:
            raise CountersError(f"{name}: {traffic.sectors} wavefronts, ideal are {traffic.ideal}")
    if counters.global_load.requests or counters.global_store.requests:
        raise CountersError("global memory is touched by other than TMA")


def check_product(
    device: Emulator,
    m: int,
    n: int,
    k: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    out: torch.dtype | None = None,
    layout: str = "A B^T",
    padding: int = 0,
    multiprocessors: int = 2,
    truncating: bool = False,
) -> Any:
    """Runs one product and returns its counters.

    Raises:
        KernelError: a finding. CountersError: too much traffic. AssertionError: a wrong number.
    """
    torch.manual_seed(m + n + k)
    out = out or dtype
    a, b = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
    device_a = device.tensor(rows_of(a, layout == "A^T B", padding), "a")
    device_b = device.tensor(rows_of(b, layout != "A B^T", padding), "b")
    c = device.tensor(rows_of(torch.full((m, n), torch.nan, dtype=out), False, padding), "c")
    report = device.call(
        "emulated_gemm_sm90", TYPES[dtype], LAYOUTS[layout], out != dtype, device_a,
        row_bytes(device_a), device_b, row_bytes(device_b), c, row_bytes(c), m, n, k,
        multiprocessors,
    )  # fmt: skip
    check_numbers(a, b, c.read(), truncating)
    aligned = all(row_bytes(t) % 32 == 0 for t in (device_a, device_b, c)) and padding == 0
    check_traffic(report.counters, (a.numel() + b.numel()) * a.element_size(),
                  m * n * out.itemsize, aligned)  # fmt: skip
    return report.counters


def check_numbers(a: Tensor, b: Tensor, c: Tensor, truncating: bool) -> None:
    expected = a.double() @ b.double().t()
    error = (c.double() - expected).abs()
    allowed = bound(a, b, expected, c.dtype, truncating)
    worst = (error / allowed).max().item()
    assert not error.isnan().any() and worst <= 1, f"error is {worst:.2f} times what is allowed"
