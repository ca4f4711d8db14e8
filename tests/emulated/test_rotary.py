"""The CUDA kernel of rotary, executed by the emulator, against the float64 reference."""

from __future__ import annotations

import ctypes

import pytest
import torch
from ops.rotary_calls import BF16, DTYPES, FLOAT, HALF, check, check_out, example, integers

from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic
from emulated.rotary_device import EmulatedRotary, Params


def emulated(seed: int = 0, **options) -> EmulatedRotary:
    return EmulatedRotary(Emulator("rotary", seed=seed), **options)


def test_params_have_the_layout_of_the_struct():
    size = Emulator("rotary").function("emulated_rotary_params_bytes", ctypes.c_int64)
    assert size() == ctypes.sizeof(Params)


# Heads of less and more than a thread's share; columns of whole words and not; more than a block.
SHAPES = [
    ((2, 3, 5, 32), 32),
    ((1, 4, 9, 64), 32),
    ((2, 3, 2, 37), 22),
    ((1, 2, 3, 50), 50),
    ((3, 2, 1, 10), 2),
    ((1, 9, 8, 128), 128),
    ((2, 3, 2, 10), 0),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types_and_shapes(dtype: torch.dtype, interleaved: bool, seed: int):
    for shape, rotated in SHAPES:
        for wide in (False, True):
            tensors = example(shape, rotated, dtype, wide)
            check(tensors, emulated(seed), interleaved=interleaved, inverse=wide)


@pytest.mark.parametrize("interleaved", [False, True])
def test_offsets_and_own_tables(interleaved: bool):
    for own in (False, True):
        tensors = example((3, 4, 2, 24), positions=20, own=own)
        for offsets in (7, 16, integers(0, 16, 5)):
            check(tensors, emulated(), interleaved=interleaved, offsets=offsets)


@pytest.mark.parametrize("cuts", [(0, 23), (0, 1, 1, 9, 20, 23), (0, 0, 22, 23, 23)], ids=str)
def test_packed_sequences(cuts: tuple[int, ...]):
    tensors = example((1, 23, 2, 24), positions=40)
    for offsets in (None, 3, integers(*range(len(cuts) - 1))):
        check(tensors, emulated(), offsets=offsets, cu_seqlens=integers(*cuts))


@pytest.mark.parametrize("offset", [18, -1])
@pytest.mark.parametrize("interleaved", [False, True])
def test_positions_without_a_row_give_nan(interleaved: bool, offset: int):
    tensors = example((2, 3, 5, 24), 16, positions=20)
    options = {"interleaved": interleaved, "offsets": integers(4, offset)}
    out = emulated()(**tensors, **options)
    place = torch.arange(3) + offset
    known = (place >= 0) & (place < 20)
    assert bool(out[1, ~known, :, :16].isnan().all()) and bool(out[1, known].isfinite().all())
    assert torch.equal(out[1, ..., 16:], tensors["x"][1, ..., 16:])
    own = {name: t[:1] if name == "x" else t for name, t in tensors.items()}
    assert torch.equal(out[:1], emulated()(**own, interleaved=interleaved, offsets=4))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("interleaved", [False, True])
def test_in_place_and_unaligned(interleaved: bool, dtype: torch.dtype):
    for shape, rotated in SHAPES:
        tensors = example(shape, rotated, dtype)
        for shift in (0, 1):
            rotary = emulated(in_place=True, shift=shift)
            check_out(tensors, rotary, interleaved=interleaved)


def test_strided_heads():
    tensors = example((2, 5, 3, 32), dtype=BF16)
    x = tensors["x"]
    first = x.transpose(1, 2).contiguous().transpose(1, 2)
    part = torch.stack([x, x, x], 2)[:, :, 1]
    for layout in (first, part):
        check_out({**tensors, "x": layout}, emulated())


def test_nothing_to_do():
    for shape in ((0, 3, 2, 8), (2, 0, 2, 8), (2, 3, 0, 8), (2, 3, 2, 0)):
        check_out(example(shape), emulated())
    rotary = emulated(in_place=True)
    check_out(example((2, 3, 2, 8), 0), rotary)
    assert rotary.report.launches == []


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_numbers_stay_in_their_pair(bad: float):
    tensors = example((2, 5, 3, 40), 24)
    tensors["x"][1, 2, 0, 3] = bad
    for interleaved in (False, True):
        out = check_out(tensors, emulated(), interleaved=interleaved)
        assert int((~out.isfinite()).sum()) == 2


@pytest.mark.parametrize("rotated", [128, 64])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", [FLOAT, BF16, HALF], ids=str)
def test_traffic(dtype: torch.dtype, interleaved: bool, rotated: int):
    for wide in (False, True):
        tensors = example((1, 12, 8, 128), rotated, dtype, wide)
        for in_place in (False, True):
            rotary = emulated(in_place=in_place)
            rotary(**tensors, interleaved=interleaved)
            counters = rotary.report.counters
            moved = tensors["x"].nbytes * (rotated if in_place else 128) // 128
            tables = tensors["cos"].nbytes + tensors["sin"].nbytes
            assert_traffic(counters, moved + tables, moved)
            if wide and dtype != FLOAT and not interleaved:
                # Eight floats of a row are two words, so each of the rows' sectors is asked for
                # twice, by both of the blocks of four heads; the second time it is in the cache.
                counters.global_load.sectors -= 2 * tables // 32
            assert_coalesced(counters)


def test_angles_are_read_once_for_four_heads():
    tensors = example((1, 12, 4, 128))
    rotary = emulated()
    rotary(**tensors)
    tables = tensors["cos"].nbytes + tensors["sin"].nbytes
    assert rotary.report.counters.global_load.bytes == tensors["x"].nbytes + tables
