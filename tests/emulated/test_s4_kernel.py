"""The CUDA kernels of s4_kernel, executed by the emulator, against the formulas in complex128."""

from __future__ import annotations

import ctypes

import pytest
import torch
from ops.s4_kernel_calls import (
    DTYPES,
    PARTS,
    check_cauchy,
    check_moments,
    check_vandermonde,
    logarithms,
    normal,
    points,
    poles,
)

from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic
from emulated.s4_kernel_device import PARAMS, EmulatedS4, VandermondeParams, code


def emulated(seed: int = 0) -> EmulatedS4:
    return EmulatedS4(Emulator("s4_kernel", seed=seed))


def test_params_have_the_layout_of_the_structs():
    size = Emulator("s4_kernel").function("emulated_s4_params_bytes", ctypes.c_int64)
    assert [size(which) for which in range(3)] == [ctypes.sizeof(params) for params in PARAMS]


@pytest.mark.parametrize("real", [True, False], ids=["real", "complex"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 1), (2, 17, 65), (1, 33, 1100)], ids=str)
def test_vandermonde(shape: tuple[int, int, int], dtype: torch.dtype, real: bool):
    rows, terms, length = shape
    v, x = normal(rows, terms).to(dtype), logarithms(rows, terms).to(dtype)
    for seed in SEEDS if dtype == torch.complex64 else (0,):
        check_vandermonde(emulated(seed).vandermonde, v, x, length, real)


@pytest.mark.parametrize("real", [True, False], ids=["real", "complex"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_vandermonde_with_four_rows_a_thread(dtype: torch.dtype, real: bool):
    """As many rows as it takes; checked in full for the last ones of them."""
    rows, length = 256, 4100
    p = VandermondeParams(rows, 1, length, dtype=code(dtype))
    thread_rows = Emulator("s4_kernel").function("emulated_s4_thread_rows", ctypes.c_int64)
    assert thread_rows(ctypes.byref(p)) == 4
    v, x = normal(rows, 1).to(dtype), logarithms(rows, 1).to(dtype)
    device = EmulatedS4(Emulator("s4_kernel", races=False, counters=False))
    check_vandermonde(device.vandermonde, v, x, length, real)


@pytest.mark.parametrize("parts", ["real", "complex"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 1), (2, 17, 100), (1, 16, 4097)], ids=str)
def test_moments(shape: tuple[int, int, int], dtype: torch.dtype, parts: str):
    rows, terms, length = shape
    u, x = normal(rows, length, seed=5), logarithms(rows, terms).to(dtype)
    u = u.to(dtype) if parts == "complex" else u.real.to(PARTS[dtype])
    for seed in SEEDS if dtype == torch.complex64 else (0,):
        check_moments(emulated(seed).moments, u, x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("power", "conj", "both"), [
    (1, True, False), (1, False, False), (1, True, True), (2, True, True), (3, False, False),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 33, 300), (1, 300, 33)], ids=str)
def test_cauchy(
    shape: tuple[int, int, int], power: int, conj: bool, both: bool, dtype: torch.dtype
):
    rows, terms, outputs = shape
    for shared in (False, True):
        v, w = normal(rows, terms).to(dtype), poles(1 if shared else rows, terms).to(dtype)
        z = points(1 if shared else rows, outputs).to(dtype)
        for seed in SEEDS if dtype == torch.complex64 else (0,):
            check_cauchy(emulated(seed).cauchy, v, z, w, power, conj, both)


def test_large_steps_keep_their_phases():
    """The plain formula is off by 1e-3 here; twice its error would allow as much."""
    x = torch.tensor([[-1e-6 + 3.1j]], dtype=torch.complex64)
    v = torch.ones_like(x)
    length = 50_000
    device = EmulatedS4(Emulator("s4_kernel", races=False, counters=False))
    ours = device.vandermonde(v, x, length, True)[0, -1]
    exact = 2 * torch.exp(x.to(torch.complex128) * (length - 1)).real
    assert abs(float(ours - exact)) < 1e-6


def test_no_terms_give_zero():
    v = torch.empty(2, 0, dtype=torch.complex64)
    assert torch.equal(emulated().vandermonde(v, v, 5, True), torch.zeros(2, 5))


def test_traffic_of_the_vandermonde_product():
    for dtype in DTYPES:
        rows, terms, length = 2, 64, 2048
        v, x = normal(rows, terms).to(dtype), logarithms(rows, terms).to(dtype)
        device = emulated()
        out = device.vandermonde(v, x, length, True)
        assert_coalesced(device.report.counters)
        assert_traffic(device.report.counters, v.nbytes + x.nbytes, out.nbytes)


def test_traffic_of_the_moments():
    for dtype in DTYPES:
        rows, terms, length = 2, 32, 4096
        x = logarithms(rows, terms).to(dtype)
        u = normal(rows, length).real.to(PARTS[dtype])
        device = emulated()
        zeroth, first = device.moments(u, x)
        assert_coalesced(device.report.counters)
        assert_traffic(device.report.counters, u.nbytes + x.nbytes, zeroth.nbytes + first.nbytes)


@pytest.mark.parametrize(("terms", "outputs"), [(32, 512), (512, 32)])
def test_traffic_of_the_cauchy_product(terms: int, outputs: int):
    for dtype in DTYPES:
        v, z, w = (
            normal(2, terms).to(dtype),
            points(2, outputs).to(dtype),
            poles(2, terms).to(dtype),
        )
        device = emulated()
        out, above = device.cauchy(v, z, w, 1, True, True)
        assert_coalesced(device.report.counters)
        loaded = v.nbytes + z.nbytes + w.nbytes
        assert_traffic(device.report.counters, loaded, out.nbytes + above.nbytes)
