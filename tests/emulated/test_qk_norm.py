"""The CUDA kernels of qk_norm, executed by the emulator, against the float64 reference."""

from __future__ import annotations

import ctypes

import pytest
import torch
from ops.qk_norm_calls import BF16, DTYPES, FLOAT, HALF, check, example, results

from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic
from emulated.qk_norm_device import EmulatedQkNorm, GradParams, Params


def emulated(seed: int = 0, shift: int = 0) -> EmulatedQkNorm:
    return EmulatedQkNorm(Emulator("qk_norm", seed=seed), shift)


@pytest.mark.parametrize(("name", "struct"), [("params", Params), ("grad_params", GradParams)])
def test_params_have_the_layout_of_the_struct(name: str, struct: type[ctypes.Structure]):
    entry = f"emulated_qk_norm_{name}_bytes"
    assert Emulator("qk_norm").function(entry, ctypes.c_int64)() == ctypes.sizeof(struct)


# Fewer and more heads than a row of threads takes; columns of whole words and not; slots of columns
# that are no power of two.
SHAPES = [
    ((1, 1, 1, 1, 2), None),
    ((2, 5, 5, 1, 64), 64),
    ((1, 4, 2, 9, 40), None),
    ((2, 3, 4, 2, 96), 24),
    ((3, 2, 1, 5, 37), 22),
    ((2, 3, 2, 1, 10), 0),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types_and_shapes(dtype: torch.dtype, seed: int):
    for shape, rotated in SHAPES:
        for weights in (False, True):
            tensors = example(shape, rotated, dtype, weights)
            check(tensors, emulated(seed), interleaved=weights == (seed == 0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_heads_that_take_a_block(dtype: torch.dtype, seed: int):
    columns = 32 * 2 * (16 // dtype.itemsize) + 70
    for rotated in (None, columns - 32):
        norm = emulated(seed)
        check(example((1, 3, 5, 1, columns), rotated, dtype), norm, interleaved=seed == 0)
        assert "256x1x1" in norm.forward.launches[0].shape


def test_more_heads_than_a_block_backward():
    norm = emulated()
    check(example((2, 50, 5, 3, 64), 32), norm)
    assert norm.backward.launches[0].shape.startswith("grid 7x1x1")


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_table_for_each_batch_entry(interleaved: bool):
    check(example((3, 4, 2, 1, 24), 16, own=True), emulated(), interleaved=interleaved)


def test_only_one_weight():
    tensors = example((2, 3, 4, 2, 24), 16)
    for name in ("q_weight", "k_weight"):
        check({key: t for key, t in tensors.items() if key != name}, emulated())


@pytest.mark.parametrize("dtype", [FLOAT, BF16], ids=str)
def test_heads_at_any_address(dtype: torch.dtype):
    for shape, rotated in SHAPES:
        check(example(shape, rotated, dtype), emulated(shift=1))
    tensors = example((2, 5, 3, 2, 32), 16, dtype)
    tensors["q"] = tensors["q"].transpose(1, 2).contiguous().transpose(1, 2)
    tensors["k"] = torch.stack([tensors["k"]] * 3, 2)[:, :, 1]
    check(tensors, emulated())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_numbers_stay_in_their_head(bad: float):
    tensors = example((2, 5, 3, 2, 40), 24, weights=False)
    tensors["q"][1, 2, 0, 3], tensors["k"][0, 1, 1, 30] = bad, bad
    check(tensors, emulated())


def test_no_token():
    for shape in ((0, 3, 2, 1, 8), (2, 0, 2, 1, 8)):
        got = results(emulated(), example(shape, 4))
        assert not got["q_weight"].any() and not got["k_weight"].any()
    check(example((2, 3, 0, 2, 8), 4), emulated())


def test_same_bits_in_every_order():
    tensors = example((1, 90, 5, 2, 64), 32)
    first, *others = (results(emulated(seed), tensors) for seed in SEEDS)
    for other in others:
        assert all(torch.equal(value, first[name]) for name, value in other.items())


@pytest.mark.parametrize("rotated", [None, 128, 64])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", [FLOAT, BF16, HALF], ids=str)
def test_traffic(dtype: torch.dtype, interleaved: bool, rotated: int | None):
    tensors = example((1, 24, 8, 4, 128), rotated, dtype)
    if rotated is not None:
        tensors |= {name: tensors[name][:24].contiguous() for name in ("cos", "sin")}
    norm = emulated()
    results(norm, tensors, interleaved=interleaved)
    (forward,), (main, finish) = norm.forward.launches, norm.backward.launches
    size = tensors["q"].nbytes + tensors["k"].nbytes
    operands = sum(t.nbytes for t in tensors.values())
    partials = finish.counters.global_load.bytes
    assert_traffic(forward.counters, operands, size)
    assert_traffic(main.counters, operands + size, size + partials)
    assert finish.counters.global_load.distinct * 32 == partials
    for launch in (forward, main):
        if dtype == FLOAT:
            assert_coalesced(launch.counters)
        else:
            # Eight floats of weights and tables are two words for a thread: sectors are asked for
            # twice, the second time they are in the cache. The heads themselves are not.
            stores = launch.counters.global_store
            assert stores.sectors <= 1.05 * stores.ideal
