"""The CUDA kernel of selective_state_update, executed by the emulator, against the float64 reference."""

from __future__ import annotations

import ctypes

import pytest
import torch
from ops.selective_state_update_calls import FLOAT, MIXES, check, make

from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic
from emulated.selective_state_update_device import EmulatedUpdate, Params


def emulated(seed: int = 0) -> EmulatedUpdate:
    return EmulatedUpdate(Emulator("selective_scan", seed=seed))


def test_params_have_the_layout_of_the_struct():
    entry = "emulated_selective_state_update_params_bytes"
    size = Emulator("selective_scan").function(entry, ctypes.c_int64)
    assert size() == ctypes.sizeof(Params)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("dtype", "state_dtype"), MIXES[1:])
def test_shapes_and_types(dtype: torch.dtype, state_dtype: torch.dtype, seed: int):
    for size, states, groups in (((2, 33), 16, 1), ((3, 24), 5, 3), ((2, 6, 7), 20, 2)):
        call = make(size, states, dtype, groups=groups, state_dtype=state_dtype)
        check(call, emulated(seed), floor=4.0 if seed else 1.0)


@pytest.mark.parametrize("states", [1, 2, 3, 31, 33, 128])
@pytest.mark.parametrize("missing", ["D", "z", "dt_bias", "groups"])
def test_numbers_of_states_and_optional_operands(states: int, missing: str):
    call = make((2, 19), states, FLOAT, groups=0)
    call.pop(missing, None)
    check(call, emulated())


def test_slots_padding_and_expanded_operands():
    call = make((5, 4, 6), 9, FLOAT, slots=8, groups=2)
    call["state_batch_indices"] = torch.tensor([3, -1, 7, 0, -2], dtype=torch.int32)
    call["A"] = torch.rand(4, 1, 1).neg().expand(4, 6, 9)
    call["dt"] = call["dt"][..., :1].expand(5, 4, 6)
    out, _ = check(call, emulated())
    assert (out[[1, 4]] == 0).all()


@pytest.mark.parametrize("states", [16, 128])
def test_traffic(states: int):
    call = make((4, 512), states, FLOAT)
    update = emulated()
    update(**call)
    (launch,) = update.report.launches
    assert_coalesced(launch.counters)
    loaded = sum(value.nbytes for value in call.values())
    assert_traffic(launch.counters, loaded, call["state"].nbytes + call["x"].nbytes)
