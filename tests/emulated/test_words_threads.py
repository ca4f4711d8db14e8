"""How threads tell each other something in the emulator, against plain formulas: shuffles, votes,
barriers, atomic functions and flags."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import pytest
import torch

from emulated.harness import SEEDS, Emulator, KernelError

ALL = 0xFFFFFFFF
INTEGERS = ("int32", "uint32", "uint64")
STORAGE = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int32": torch.int32,
    "uint32": torch.int32,
    "uint64": torch.int64,
}


def source_lane(which: str, lane: int, by: int, width: int) -> int:
    """Whose value a lane gets; its own where that would leave its group."""
    first = lane - lane % width
    if which == "index":
        return first + by % width
    if which == "up":
        return lane - by if lane - by >= first else lane
    other = lane + by if which == "down" else lane ^ by
    return other if other < first + width else lane


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("which", ["index", "up", "down", "xor"])
def test_shuffle(which: str, size: int, seed: int) -> None:
    device = Emulator("words_threads", seed=seed)
    number = ["index", "up", "down", "xor"].index(which)
    for by, width in ((0, 32), (1, 32), (5, 32), (16, 32), (31, 32), (1, 8), (3, 4), (17, 16)):
        out = device.empty((32,), torch.float32 if size == 4 else torch.float64, "out")
        report = device.call("emulated_shuffle", out, size, number, by, width, ALL)
        expected = [100 + source_lane(which, lane, by, width) for lane in range(32)]
        assert out.read().tolist() == expected
        assert report.counters.shuffles == 1


def test_shuffle_among_some_lanes() -> None:
    device = Emulator("words_threads")
    out = device.tensor(torch.full((32,), -1.0), "out")
    device.call("emulated_shuffle", out, 4, 3, 1, 32, 0x00F0)
    got = out.read().tolist()
    assert got[4:8] == [105, 104, 107, 106]
    assert set(got[:4] + got[8:]) == {-1}


def test_shuffle_from_a_lane_outside_of_the_mask() -> None:
    device = Emulator("words_threads")
    out = device.empty((32,), torch.float32, "out")
    with pytest.raises(KernelError, match="lane 7 takes the value of lane 8") as error:
        device.call("emulated_shuffle", out, 4, 2, 1, 32, 0x00F0)
    (site,) = error.value.report.findings[0].sites
    assert site.startswith("tests/emulated/words_threads.cpp:")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mask", [ALL, 0x0FF0, 0x80000001])
def test_vote(mask: int, seed: int) -> None:
    device = Emulator("words_threads", seed=seed)
    lanes = [lane for lane in range(32) if mask >> lane & 1]
    for predicates in (torch.zeros(32), torch.ones(32) * 2, torch.arange(32) % 3):
        values = predicates.to(torch.int32)
        out = device.tensor(torch.zeros(32, 3, dtype=torch.int32), "out")
        report = device.call("emulated_vote", device.tensor(values, "in"), out, mask)
        true = [lane for lane in lanes if values[lane] != 0]
        for lane in range(32):
            ballot, some, every = out.read()[lane].tolist()
            if lane in lanes:
                assert ballot & ALL == sum(1 << voter for voter in true)
                assert (some, every) == (len(true) > 0, true == lanes)
            else:
                assert (ballot, some, every) == (0, 0, 0)
        assert report.counters.votes == 3


@pytest.mark.parametrize("seed", SEEDS)
def test_named_barriers(seed: int) -> None:
    device = Emulator("words_threads", seed=seed)
    rounds = 5
    values = torch.randint(0, 1000, (rounds, 32), dtype=torch.int32)
    out = device.empty((rounds, 32), torch.int32, "out")
    report = device.call("emulated_barrier", device.tensor(values, "in"), out, rounds)
    assert torch.equal(out.read(), values.flip(1))
    assert report.counters.barriers == 2 * rounds - 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", STORAGE)
def test_reduce_add(name: str, seed: int) -> None:
    device = Emulator("words_threads", seed=seed)
    values = torch.randint(0 if name[0] == "u" else -50, 50, (150,)).to(STORAGE[name])
    sums = device.tensor(torch.tensor([3, 4]).to(STORAGE[name]), "sums")
    report = device.call("emulated_reduce", device.tensor(values, "in"), sums, 150, name)
    assert sums.read().tolist() == [values[0::2].sum() + 3, values[1::2].sum() + 4]
    assert report.counters.atomics == 150


def test_reduce_add_of_subnormal_floats() -> None:
    """The hardware counts them as zeros."""
    device = Emulator("words_threads")
    values = torch.tensor([1e-40, 1e-40, 2**-126, -1.5 * 2**-126])
    sums = device.tensor(torch.tensor([1e-40, 2**-126]), "sums")
    device.call("emulated_reduce", device.tensor(values, "in"), sums, 4, "float32")
    assert sums.read().tolist() == [2**-126, 0]


UPDATES: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "min": min,
    "max": max,
    "and": operator.and_,
    "or": operator.or_,
    "exchange": lambda old, value: value,
}


# CUDA has but one of them for floats.
OFFERED = [
    *((name, "add") for name in STORAGE),
    *((name, update) for name in INTEGERS for update in UPDATES if update != "add"),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name, update", OFFERED)
def test_atomic_functions(name: str, update: str, seed: int) -> None:
    device = Emulator("words_threads", seed=seed)
    values = (torch.randperm(96) + 1).to(STORAGE[name])
    place = device.tensor(torch.tensor([50]).to(STORAGE[name]), "place")
    out = device.empty((96,), STORAGE[name], "out")
    report = device.call(
        "emulated_atomic", device.tensor(values, "in"), place, out, [*UPDATES].index(update), name
    )
    found, left = out.read().tolist(), place.read().item()
    # each thread's result was found by the next, or is left; the first found what was there
    results = [UPDATES[update](old, new) for old, new in zip(found, values.tolist(), strict=True)]
    assert set(results) | {50} == {*found, left}
    if update == "add":
        assert left == 50 + values.sum()
    elif update != "exchange":
        assert left == functools.reduce(UPDATES[update], values.tolist(), 50)
    assert report.counters.atomics == 96


@pytest.mark.parametrize("name", INTEGERS)
def test_compare_and_swap(name: str) -> None:
    """Each thread replaces the value of the one before; in ascending order all succeed."""
    device = Emulator("words_threads")
    values = torch.arange(1, 97).to(STORAGE[name])
    place = device.tensor(torch.zeros(1).to(STORAGE[name]), "place")
    out = device.empty((96,), STORAGE[name], "out")
    device.call("emulated_atomic", device.tensor(values, "in"), place, out, 6, name)
    assert out.read().tolist() == list(range(96))
    assert place.read().item() == 96
    device.call("emulated_atomic", device.tensor(values, "in"), place, out, 6, name)
    assert out.read().tolist() == [96] * 96


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("size", [4, 8])
def test_flags_between_blocks(size: int, ready: bool, seed: int) -> None:
    device = Emulator("words_threads", seed=seed)
    flags = device.tensor(torch.zeros(5, dtype=torch.int32 if size == 4 else torch.int64), "flags")
    sums = device.empty((5,), torch.int32, "sums")
    device.call("emulated_chain", flags, sums, size, ready)
    assert sums.read().tolist() == [0, 1, 3, 6, 10]
    assert flags.read().tolist() == [7] * 5


@pytest.mark.parametrize("seed", SEEDS)
def test_flags_within_a_warp(seed: int) -> None:
    device = Emulator("words_threads", seed=seed)
    flag, value = (device.tensor(torch.zeros(1, dtype=torch.int32), name) for name in ("f", "v"))
    out = device.empty((1,), torch.int32, "out")
    device.call("emulated_within_warp", flag, value, out)
    assert out.read().item() == 42


def test_waiting_for_nobody_is_a_deadlock() -> None:
    device = Emulator("words_threads")
    flag = device.tensor(torch.zeros(1, dtype=torch.int32), "flag")
    with pytest.raises(KernelError, match="deadlock"):
        device.call("emulated_forever", flag)
