"""The CUDA kernels of linear_scan, executed by the emulator, against the float64 reference."""

from __future__ import annotations

import ctypes

import pytest
import torch
from ops.linear_scan_calls import COMPLEX, REAL, check_scan, make, packed
from torch import Tensor

from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic
from emulated.linear_scan_device import EmulatedScan, Params
from emulated.sampler_step_device import DTYPES

FLOAT, BF16, HALF = torch.float32, torch.bfloat16, torch.float16
# With float32 decays of inputs of half precision, too.
TYPES = [*((dtype, False) for dtype in REAL + COMPLEX), (BF16, True), (HALF, True)]
WAYS = [(reverse, lagged) for reverse in (False, True) for lagged in (False, True)]


def emulated(seed: int = 0, shift: int = 0) -> EmulatedScan:
    return EmulatedScan(Emulator("linear_scan", seed=seed), shift)


def tile(dtype: torch.dtype, threads: int) -> int:
    """Steps that a block has at once."""
    return threads * min(16, 64 // dtype.itemsize)


def check_same_bits(results: list[tuple[Tensor, Tensor]]) -> None:
    for h, last in results[1:]:
        assert torch.equal(h, results[0][0]) and torch.equal(last, results[0][1])


def test_params_have_the_layout_of_the_struct():
    size = Emulator("linear_scan").function("emulated_linear_scan_params_bytes", ctypes.c_int64)
    assert size() == ctypes.sizeof(Params)


@pytest.mark.parametrize(("reverse", "lagged"), WAYS)
@pytest.mark.parametrize(("dtype", "wide_a"), TYPES)
def test_rows_split_over_blocks(dtype: torch.dtype, wide_a: bool, reverse: bool, lagged: bool):
    """Of several chunks, an odd number of steps, and sequences that start within and between them."""
    call = make((1, 2, 3 * tile(dtype, 128) + 37), dtype, wide_a=wide_a)
    index = packed(call["x"], [5, 70, tile(dtype, 128), 2 * tile(dtype, 128) + 1])
    for sequence in (None, index):
        results = []
        for seed in SEEDS if sequence is None or dtype == FLOAT else (0,):
            scan = emulated(seed)
            results.append(check_scan(scan, call, sequence, reverse, lagged))
            assert scan.workspace_bytes > 0
        check_same_bits(results)


@pytest.mark.parametrize(("reverse", "lagged"), WAYS)
@pytest.mark.parametrize(("dtype", "wide_a"), TYPES)
def test_short_rows(dtype: torch.dtype, wide_a: bool, reverse: bool, lagged: bool):
    """Up to two windows of one warp; every row lies differently."""
    for seed, length in enumerate((1, 19, tile(dtype, 32) + 7)):
        call = make((2, 3, length), dtype, seed, wide_a=wide_a)
        index = packed(call["x"], [1, 2, 17])
        for sequence in (None, index):
            check_scan(emulated(seed), call, sequence, reverse, lagged)
        constant = make((2, 3, length), dtype, seed, constant=True, wide_a=wide_a)
        check_scan(emulated(seed), constant, index, reverse, lagged)


@pytest.mark.parametrize(("reverse", "lagged"), WAYS)
@pytest.mark.parametrize("dtype", [FLOAT, BF16, torch.complex64])
def test_constant_decays_and_long_rows(dtype: torch.dtype, reverse: bool, lagged: bool):
    for length in (2 * tile(dtype, 128) - 3, 2 * tile(dtype, 128) + 37):
        call = make((1, 2, length), dtype, constant=True)
        check_same_bits([check_scan(emulated(seed), call, None, reverse, lagged) for seed in SEEDS])


def test_rows_are_split_where_there_are_few():
    entry = Emulator("linear_scan").function("emulated_linear_scan_workspace", ctypes.c_int64)
    for channels, length, split in ((511, 4097, True), (512, 4097, False), (511, 4096, False)):
        p = Params(1, channels, length, dtype=DTYPES.index(FLOAT))
        assert (entry(ctypes.byref(p)) > 0) == split


def test_operands_that_lie_differently():
    for dtype in (FLOAT, BF16, torch.complex64, torch.float64):
        wide = make((3, 2, 300), dtype)
        call = wide | {"a": wide["a"][..., 3:260], "x": wide["x"][..., 1:258]}
        for reverse in (False, True):
            check_scan(emulated(shift=1), call, None, reverse, reverse)


@pytest.mark.parametrize("lagged", [False, True])
def test_rows_of_length_0_leave_the_initial_state(lagged: bool):
    call = make((2, 3, 0), FLOAT)
    h, last = emulated()(call["a"], call["x"], call["initial_state"], None, False, lagged)
    assert h.numel() == 0 and torch.equal(last, call["initial_state"])
    _, last = emulated()(call["a"], call["x"], None, None, False, lagged)
    assert torch.equal(last, torch.zeros(2, 3))


def test_nan_goes_on_to_later_steps_of_its_sequence():
    call = make((1, 2, 2 * tile(FLOAT, 128) + 37), FLOAT)
    call["x"][0, 0, 700], call["x"][0, 1, 33] = torch.nan, torch.nan
    index = packed(call["x"], [32, 600, 3000])
    for reverse in (False, True):
        check_scan(emulated(), call, index, reverse, False)


@pytest.mark.parametrize("length", [300, 2 * 2048 + 37])
def test_infinity_stays_in_its_sequence(length: int):
    """Composed decays underflow to 0, so that it may become NaN, but never finite."""
    call = make((1, 1, length), FLOAT)
    call["x"][0, 0, 33] = -torch.inf
    index = packed(call["x"], [30, length - 20])
    for reverse, bad in ((False, slice(33, length - 20)), (True, slice(30, 34))):
        h, _ = emulated()(call["a"], call["x"], None, index, reverse, False)
        finite = torch.ones(length, dtype=torch.bool)
        finite[bad] = False
        assert torch.equal(h[0, 0].isfinite(), finite)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("dtype", "wide_a"), TYPES)
def test_traffic(dtype: torch.dtype, wide_a: bool, constant: bool, reverse: bool):
    """Of split rows, and of short ones that begin within sectors."""
    for shape in ((1, 1, 4 * tile(dtype, 128)), (4, 4, 2 * tile(dtype, 32) - 5)):
        call = make(shape, dtype, constant=constant, wide_a=wide_a)
        scan = emulated()
        _, last = scan(
            call["a"].expand(shape) if not constant else call["a"][:, None].expand(shape),
            call["x"], call["initial_state"], None, reverse, False,
        )  # fmt: skip
        needed = scan.workspace_bytes + 32 * last.numel()
        assert_coalesced(scan.report.counters)
        loaded = call["a"].nbytes + call["x"].nbytes + needed
        assert_traffic(scan.report.counters, loaded, call["x"].nbytes + needed)
