"""The CUDA kernels of guidance_gram, executed by the emulator, against the float64 reference."""

from __future__ import annotations

import ctypes
import math

import pytest
import torch
from ops.guidance_gram_calls import BF16, DOUBLE, FLOAT, TYPES, check, example

from emulated.guidance_gram_device import EmulatedGram, Params
from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic


def emulated(seed: int = 0, shift: int = 0) -> EmulatedGram:
    return EmulatedGram(Emulator("guidance_gram", seed=seed), shift)


def test_params_have_the_layout_of_the_struct():
    size = Emulator("guidance_gram").function("emulated_guidance_gram_params_bytes", ctypes.c_int64)
    assert size() == ctypes.sizeof(Params)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", TYPES)
def test_types_and_counts(dtype: torch.dtype, count: int, seed: int):
    for center in (False, True):
        check(example((3, 7, 43), dtype, count), center, emulated(seed))


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 63, 250, 1003])
def test_ragged_sizes(size: int):
    for dtype in TYPES:
        check(example((5, size), dtype), True, emulated())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("dtype", "size"), [(FLOAT, 40003), (BF16, 80003), (DOUBLE, 20003)])
def test_many_pieces(dtype: torch.dtype, size: int, seed: int):
    gram = emulated(seed)
    check(example((2, size), dtype, 3), True, gram)
    rows, _ = gram.report.launches
    assert rows.shape.startswith("grid 40x1x1")  # more than a slice's share of the second kernel


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shift", [0, 1])
def test_strided_samples(dtype: torch.dtype, shift: int):
    for size in (96, 101):
        first, second, third = example((4, size), dtype, 3)
        tensors = [
            torch.stack([first, first], dim=1)[:, 1],
            torch.cat([second, second[:, :1]], dim=1)[:, :-1],
            third[:1].expand_as(third),
        ]
        check(tensors, True, emulated(shift=shift))


def test_samples_without_elements():
    gram = check(example((3, 0)), True, emulated())
    assert bool((gram.gram == 0).all()) and bool(gram.means.isnan().all())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("center", [True, False])
def test_bad_numbers_stay_in_their_sample(bad: float, center: bool):
    tensors = example((3, 40))
    tensors[1][1, 7] = bad
    gram = check(tensors, center, emulated())
    assert bool(gram.gram[::2].isfinite().all()) and bool(gram.gram[:, 0, 0].isfinite().all())


def test_same_bits_in_every_order():
    tensors = example((2, 9001), FLOAT, 4)
    first, *others = (emulated(seed)(tensors, center=True) for seed in SEEDS)
    for other in others:
        assert torch.equal(first.gram, other.gram) and torch.equal(first.means, other.means)


@pytest.mark.parametrize("shape", [(3, 4096), (1, 10007), (3, 5003)])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", TYPES)
def test_traffic(dtype: torch.dtype, count: int, shape: tuple[int, int]):
    tensors = example(shape, dtype, count)
    gram = emulated()
    gram(tensors)
    rows, finish = gram.report.launches
    assert_coalesced(rows.counters)
    partials = rows.counters.global_store.bytes
    assert_traffic(rows.counters, sum(t.nbytes for t in tensors), partials)
    # The second kernel's results are a few numbers a sample that need not fill a sector.
    assert_coalesced(finish.counters, stores=False)
    assert finish.counters.global_load.distinct * 32 == partials
