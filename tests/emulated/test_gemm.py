"""The GEMM of sm_80, executed by the emulator, against float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch

from emulated.gemm_calls import LAYOUTS, STORAGE, check, example, gemm
from emulated.harness import MMA_ROUNDINGS, SEEDS, Emulator, assert_coalesced, assert_traffic


@pytest.mark.parametrize("mma", MMA_ROUNDINGS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", STORAGE)
def test_in_vectors(dtype: torch.dtype, layout: str, seed: int, mma: str):
    for m, n, k, padding in ((96, 160, 128, 0), (72, 136, 104, 8), (8, 8, 8, 0)):
        device = Emulator("gemm", seed=seed, mma=mma)
        counters = gemm(device, *example(m, n, k, dtype), layout, 16, mma, None, padding)
        if m == 96:
            assert_coalesced(counters)
            inputs, outputs = (m * k + k * n) * dtype.itemsize, m * n * dtype.itemsize
            assert_traffic(counters, inputs, outputs)


@pytest.mark.parametrize("mma", MMA_ROUNDINGS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", STORAGE)
def test_element_by_element(dtype: torch.dtype, layout: str, seed: int, mma: str):
    for m, n, k, padding in ((67, 77, 101, 0), (65, 3, 97, 5), (1, 1, 1, 0)):
        device = Emulator("gemm", seed=seed, mma=mma)
        gemm(device, *example(m, n, k, dtype), layout, dtype.itemsize, mma, None, padding)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", STORAGE[1:])
def test_float_results(dtype: torch.dtype, layout: str):
    for size, (m, n, k) in ((16, (72, 80, 96)), (2, (33, 70, 99))):
        for seed in SEEDS:
            device = Emulator("gemm", seed=seed)
            gemm(device, *example(m, n, k, dtype), layout, size, out=torch.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sum_of_nothing_is_0(layout: str):
    gemm(Emulator("gemm"), *example(40, 24, 0, torch.bfloat16), layout, 16)


@pytest.mark.parametrize("mma", MMA_ROUNDINGS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_size_that_a_device_gets(
    seed: int, mma: str, record_property: Callable[[str, object], None]
):
    m, n, k = 288, 160, 224
    a, b = example(m, n, k, torch.bfloat16)
    device = Emulator("gemm", seed=seed, mma=mma)
    c = device.empty((m, n), torch.bfloat16, "c")
    a_there, b_there = device.tensor(a, "a"), device.tensor(b.t().contiguous(), "b")
    counters = device.call("emulated_gemm_large", a_there, b_there, c, m, n, k).counters
    check(c.read(), a, b, mma)
    assert_coalesced(counters)
    assert_traffic(counters, 2 * (m * k + k * n), 2 * m * n)
    if seed == 0 and mma == "ideal":
        again = counters.global_load.sectors / counters.global_load.distinct
        record_property(
            "summary",
            f"gemm_sm80 {m} x {n} x {k}: each byte of the operands is loaded {again:.2f} times",
        )


def test_copy_bytes():
    copy_bytes = Emulator("gemm").function("emulated_copy_bytes", ctypes.c_int64)
    for address, stride, columns, expected in (
        *((4096, 64, 64, 16), (4096, 64, 60, 8), (4096, 62, 64, 4), (4096, 64, 63, 2)),
        *((4104, 64, 64, 8), (4098, 64, 64, 2), (4096, 0, 0, 16)),
    ):
        assert copy_bytes(ctypes.c_void_p(address), stride, columns) == expected
