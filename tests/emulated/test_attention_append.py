"""The CUDA kernel that writes to a cache of keys and values, executed by the emulator."""

from __future__ import annotations

import ctypes

import pytest
import torch
from ops.attention_append_calls import DTYPES, KINDS, SHAPES, Call, check, make, without_places

from emulated.attention_append_device import EmulatedAppend, Params
from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic


def emulated(seed: int = 0, shift: int = 0) -> EmulatedAppend:
    return EmulatedAppend(Emulator("attention_append", seed=seed), shift)


def test_params_have_the_layout_of_the_struct() -> None:
    entry = "emulated_attention_append_params_bytes"
    size = Emulator("attention_append").function(entry, ctypes.c_int64)
    assert size() == ctypes.sizeof(Params)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_types_and_shapes(kind: str, dtype: torch.dtype, seed: int) -> None:
    for shape in SHAPES:
        check(emulated(seed), make(shape, dtype, kind))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_words_of_every_size(dtype: torch.dtype) -> None:
    """Rows that start at multiples of an element's bytes alone, and strided ones."""
    for shift in (1, 2, 4):
        check(emulated(shift=shift), make((2, 4, 3, 64, 32), dtype, "plain"))
    for columns in (2, 3, 4, 8):
        call = make((2, 4, 3, columns, columns), dtype, "plain")
        head_first = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in call[:4])
        check(emulated(), Call(*head_first, call.options))
        part = (torch.stack([x, x], 2)[:, :, 1] for x in call[:4])
        check(emulated(), Call(*part, call.options))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_a_place_are_left_out(kind: str) -> None:
    check(emulated(), without_places(kind))
    call = make((2, 4, 2, 8, 8), torch.float32, kind)
    call.options["cache_seqlens"][0] = -2
    check(emulated(), call)


def test_nothing_to_do() -> None:
    for shape in ((0, 2, 2, 8, 8), (2, 0, 2, 8, 8), (2, 2, 0, 8, 8), (2, 2, 2, 0, 0)):
        append = emulated()
        check(append, make(shape, torch.float32, "plain"))
        assert append.report is not None and append.report.launches == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_traffic(kind: str, dtype: torch.dtype) -> None:
    """Each byte is read and written once, in words of 16 bytes."""
    for shape in ((2, 6, 8, 128, 128), (8, 1, 8, 64, 64), (2, 6, 4, 128, 64)):
        append, call = emulated(), make(shape, dtype, kind)
        check(append, call)
        assert append.report is not None
        counters, moved = append.report.counters, call.k.nbytes + call.v.nbytes
        places = sum(x.nbytes for x in call.options.values())
        assert_traffic(counters, moved + places, moved)
        assert counters.global_store.bytes == moved
        assert_coalesced(counters)
