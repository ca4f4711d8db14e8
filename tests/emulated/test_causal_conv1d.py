"""The CUDA kernels of causal_conv1d, executed by the emulator, against the float64 reference."""

from __future__ import annotations

import ctypes

import pytest
import torch
from ops.causal_conv1d_calls import (
    BF16,
    DOUBLE,
    DTYPES,
    FLOAT,
    HALF,
    Tensors,
    channels_last,
    check,
    check_update,
    example,
    packed,
    results,
    update_example,
)

from emulated.causal_conv1d_device import (
    EmulatedConv,
    EmulatedUpdate,
    GradParams,
    Params,
    UpdateParams,
)
from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic

LAYOUTS = {"steps": dict, "channels": channels_last}  # what is adjacent


def emulated(seed: int = 0, shift: int = 0) -> EmulatedConv:
    return EmulatedConv(Emulator("causal_conv1d", seed=seed), shift)


@pytest.mark.parametrize(
    ("name", "struct"),
    [("params", Params), ("grad_params", GradParams), ("update_params", UpdateParams)],
)
def test_params_have_the_layout_of_the_struct(name: str, struct: type[ctypes.Structure]):
    entry = f"emulated_causal_conv1d_{name}_bytes"
    assert Emulator("causal_conv1d").function(entry, ctypes.c_int64)() == ctypes.sizeof(struct)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 37, 4), (1, 5, 50, 6)], ids=str)
def test_types(shape, dtype: torch.dtype, layout: str, seed: int):
    tensors = LAYOUTS[layout](example(shape, dtype))
    check(tensors, emulated(seed), activation="silu")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 13])
def test_widths(width: int, layout: str):
    for activation in (None, "silu"):
        check(LAYOUTS[layout](example((1, 2, 21, width))), emulated(), activation=activation)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 63])
def test_lengths(length: int, layout: str):
    for dtype in (FLOAT, BF16):
        check(LAYOUTS[layout](example((2, 3, length, 4), dtype)), emulated(), activation="silu")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_bias_and_state(layout: str):
    tensors = LAYOUTS[layout](example((2, 3, 40, 4), state=False))
    check(tensors, emulated())
    del tensors["bias"]
    check(tensors, emulated(), activation="silu")


# Three blocks along time, or channels, and a part of one.
LARGE = {
    "steps": ((1, 2, 3 * 1024 + 5), (1, 1, 3 * 1024 + 800)),
    "channels": ((1, 3, 3 * 256 + 5), (1, 3 * 64 + 7, 20)),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("layout", "shape"), [(name, s) for name in LARGE for s in LARGE[name]], ids=str
)
def test_several_tiles(layout: str, shape: tuple[int, int, int], seed: int):
    tensors = LAYOUTS[layout](example((*shape, 4)))
    index = packed(1, shape[2]) if seed == 1 else None
    check(tensors, emulated(seed), activation="silu", seq_idx=index)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [2, 3, 4, 7])
def test_packed_sequences(width: int, layout: str, seed: int):
    for dtype in (FLOAT, HALF) if seed == 0 else (BF16,):
        tensors = LAYOUTS[layout](example((2, 3, 45, width), dtype))
        check(tensors, emulated(seed), activation="silu", seq_idx=packed(2, 45))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [FLOAT, BF16], ids=str)
def test_rows_at_any_address(dtype: torch.dtype, layout: str):
    for shift in (1, 5):
        for length in (96, 101):
            tensors = LAYOUTS[layout](example((2, 3, length, 4), dtype))
            both = torch.cat([tensors["x"], tensors["x"]], 1 if layout == "steps" else 2)
            tensors["x"] = both[:, :3, :length]
            check(tensors, emulated(shift=shift), activation="silu", seq_idx=packed(2, length))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [2, 4, 6])
def test_bad_numbers_stay_where_the_reference_has_them(width: int, layout: str, bad: float):
    tensors = LAYOUTS[layout](example((1, 3, 60, width)))
    tensors["x"][0, 1, 30], tensors["x"][0, 2, 59] = bad, bad
    tensors["initial_state"][0, 0, 0] = bad
    check(tensors, emulated())


def test_nothing_to_do():
    for shape in ((2, 3, 0, 4), (0, 3, 5, 4), (2, 0, 5, 4)):
        got = results(emulated(), example(shape))
        assert got["out"].shape == shape[:3] and not got["weight"].any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [4, 5])
def test_same_bits_in_every_order(width: int, layout: str):
    tensors = LAYOUTS[layout](example((1, 2, 2100, width)))
    first, *others = (results(emulated(seed), tensors) for seed in SEEDS)
    for other in others:
        for name, value in other.items():
            assert torch.equal(value, first[name]), name


def tensor_bytes(tensors: Tensors) -> int:
    return sum(t.nbytes for t in tensors.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [FLOAT, BF16, HALF], ids=str)
def test_traffic(dtype: torch.dtype, layout: str):
    shapes = {"steps": [(1, 2, 4096), (3, 1, 3001)], "channels": [(1, 64, 520), (2, 130, 300)]}
    for shape in shapes[layout]:
        tensors = LAYOUTS[layout](example((*shape, 4), dtype, state=False))
        conv = emulated()
        results(conv, tensors, activation="silu")
        (forward,), (main, finish) = conv.forward.launches, conv.backward.launches
        size, operands = tensors["x"].nbytes, tensor_bytes(tensors)
        assert_traffic(forward.counters, operands, size)
        assert_traffic(main.counters, operands + size, size + finish.counters.global_load.bytes)
        if layout == "steps" or shape[1] % 16 == 0:  # else warps begin within a sector
            assert_coalesced(forward.counters)
            assert_coalesced(main.counters)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_traffic_of_any_width(layout: str):
    tensors = LAYOUTS[layout](example((1, 64, 256, 9), state=False))
    conv = emulated()
    results(conv, tensors, activation="silu")
    size = tensors["x"].nbytes
    assert_traffic(conv.forward.launches[0].counters, tensor_bytes(tensors), size)
    slopes, inputs, sums, _ = conv.backward.launches
    assert_traffic(slopes.counters, tensor_bytes(tensors) + size, size)
    assert_traffic(inputs.counters, tensor_bytes(tensors), size)
    assert_traffic(sums.counters, 2 * size, 2 * size)


def test_float64_takes_the_kernels_of_any_width():
    conv = emulated()
    check(example((2, 3, 40, 2), DOUBLE), conv, activation="silu")
    assert [launch.kernel for launch in conv.forward.launches] == ["the kernel of any width"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("slots", [False, True])
def test_update(slots: bool, ring: bool, dtype: torch.dtype, seed: int):
    shapes = [((1, 1, 0, 1), 0), ((3, 17, 0, 4), 3), ((3, 150, 1, 3), 5), ((2, 5, 9, 4), 6)]
    for shape, places in shapes:
        update = EmulatedUpdate(Emulator("causal_conv1d", seed=seed))
        tensors = update_example(shape, places, dtype, ring, slots)
        check_update(tensors, update, activation="silu" if ring else None)


@pytest.mark.parametrize("dtype", [FLOAT, BF16], ids=str)
def test_traffic_of_update(dtype: torch.dtype):
    tensors = update_example((4, 512, 0, 4), 4, dtype)
    update = EmulatedUpdate(Emulator("causal_conv1d"))
    check_update(tensors, update, activation="silu")
    states = tensors["conv_state"].nbytes
    stored = tensors["x"].nbytes + states
    assert_traffic(update.report.counters, tensor_bytes(tensors), stored)
