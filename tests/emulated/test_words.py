"""What the words of csrc/cuda give in the emulator, against the formulas of their documentation:
memory, conversions, approximations, matrices and copies. The device half is tests/cuda's.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from emulated.harness import MMA_ROUNDINGS, SEEDS, Emulator, KernelError, assert_coalesced

INTS = {2: torch.int16, 4: torch.int32}


def bits(values: Tensor) -> Tensor:
    return values.view(INTS[values.dtype.itemsize])


def same(a: Tensor, b: Tensor) -> bool:
    """Bit by bit, but for the bits of a NaN."""
    return bool(((bits(a) == bits(b)) | (a.isnan() & b.isnan())).all())


def floats(count: int = 4000) -> Tensor:
    """Of all magnitudes, the borders of the 16-bit types, ties, and what is not finite."""
    random = torch.Generator().manual_seed(0)
    patterns = torch.randint(-(2**31), 2**31, (count,), generator=random).to(torch.int32)
    near_one = torch.randint(0x33000000, 0x48000000, (count,), generator=random).to(torch.int32)
    ties = torch.arange(0x3F800000, 0x3F840000, 0x800, dtype=torch.int32)
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 65504, 65519.996, 65520, 65536, 2**-14]
    special += [2**-24, 2**-25, 1.5 * 2**-25, 2.9e-8, 6.1e-5, 3.3895e38, 3.4e38, 2**-126, 1e-40]
    most = torch.cat([patterns, near_one, ties, ties + 0x800, ties + 0x1000]).view(torch.float32)
    return torch.cat([most, torch.tensor(special), -torch.tensor(special)])


# ---- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [1, 2, 4, -1, -2, -4])
def test_vectors(words: int) -> None:
    device = Emulator("words")
    size = abs(words)
    value = torch.randn(32, size)
    x = device.tensor(value, "x")
    out, again = (device.empty((32, size), torch.float32, name) for name in ("out", "again"))
    counters = device.call("emulated_vectors", x, out, again, words).counters
    assert torch.equal(out.read(), value.roll(-1, 0))
    assert torch.equal(again.read(), value)
    assert counters.global_load.requests == counters.global_store.requests == 2
    assert counters.global_load.sectors == counters.global_load.ideal == 2 * 32 * 4 * size // 32
    assert_coalesced(counters)


def test_shared_memory_begins_on_1024_bytes() -> None:
    device = Emulator("words")
    out = device.empty((1,), torch.int64, "out")
    device.call("emulated_shared", out, 0)
    assert int(out.read()) % 1024 == 0
    with pytest.raises(KernelError):
        device.call("emulated_shared", out, 1)


# ---- convert --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_widening_is_exact(dtype: torch.dtype) -> None:
    device = Emulator("words", races=False, counters=False)
    outs = [device.empty((65536,), torch.float32, name) for name in ("one", "low", "high")]
    device.call("emulated_widen", *outs, dtype == torch.float16)
    every = torch.arange(65536).to(torch.int32).to(torch.int16).view(dtype).float()
    for out in outs:
        assert same(out.read(), every)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrowing_rounds_to_nearest_even(dtype: torch.dtype) -> None:
    device = Emulator("words", races=False, counters=False)
    values = floats()
    x = device.tensor(values, "x")
    out = device.empty(values.shape, dtype, "out")
    pairs = device.empty(values.shape, torch.int32, "pairs")
    device.call("emulated_narrow", x, out, pairs, len(values), dtype == torch.float16)
    expected = values.to(dtype)
    assert same(out.read(), expected)
    halves = pairs.read().view(torch.int16).view(-1, 2).view(dtype)
    assert same(halves[:, 0].contiguous(), expected)
    assert same(halves[:, 1].contiguous(), expected.flip(0))


def test_tf32_rounds_ties_away_from_zero() -> None:
    device = Emulator("words", races=False, counters=False)
    values = floats()
    x = device.tensor(values, "x")
    out, unchanged = (device.empty(values.shape, torch.float32, name) for name in ("out", "same"))
    device.call("emulated_tf32", x, unchanged, out, len(values))
    assert same(unchanged.read(), values)
    # 2^13 units of the last place each; what is largest overflows
    units = bits(values.abs()).long()
    expected = ((units + 2**12) // 2**13 * 2**13).to(torch.int32).view(torch.float32)
    assert same(out.read(), torch.where(values.isnan(), values, expected.copysign(values)))
    assert (bits(out.read())[~values.isnan()] % 2**13 == 0).all()


# ---- math -----------------------------------------------------------------------------------------

SMALLEST = 2.0**-126


def flush(x: Tensor) -> Tensor:
    """With zeros for subnormal numbers."""
    return torch.where(x.abs() < SMALLEST, torch.zeros(()).to(x).copysign(x), x)


def ulps(got: Tensor, exact: Tensor) -> Tensor:
    """How many floats lie between."""
    return (bits(got).long() - bits(exact.float()).long()).abs()


def relative(got: Tensor, exact: Tensor) -> Tensor:
    return (got - exact).abs() / exact.abs()


def of_log2(got: Tensor, exact: Tensor) -> Tensor:
    """Absolute for x in (0.5, 2), else relative."""
    return (got - exact).abs() / exact.abs().clamp(min=1)


# By number in math_kernel: the exact function of doubles, how the error is measured, its limit, and
# what the emulator's own rounding may add.
MATH = {
    "exp2": (lambda x: flush(x.exp2()), ulps, 2, 0),
    "log2": (lambda x: flush(x).log2(), of_log2, 2**-22, 2**-23),
    "reciprocal": (lambda x: flush(1 / flush(x)), ulps, 1, 0),
    "rsqrt": (lambda x: flush(x).rsqrt(), relative, 2**-22.9, 2**-23),
    "tanh": (lambda x: x.tanh(), relative, 2**-11, 2**-23),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("word", MATH)
def test_approximation(word: str, seed: int) -> None:
    device = Emulator("words", seed=seed, races=False, counters=False)
    function, measure, limit, rounding = MATH[word]
    values = torch.cat([floats(), torch.linspace(-30, 30, 4001)])
    out = device.empty(values.shape, torch.float32, "out")
    device.call("emulated_math", device.tensor(values, "x"), out, len(values), [*MATH].index(word))
    got, exact = out.read(), function(values.double())
    # what the error may carry to 0 or infinity is left out
    border = (exact / SMALLEST).abs().log2().abs() < 0.01
    border |= (exact.abs() > 3.402e38) & (exact.abs() < 3.404e38)
    got, exact = got[~border], exact[~border]
    assert torch.equal(got.isnan(), exact.isnan())
    special = exact.float().isinf() | ((exact.float() == 0) & (measure is not of_log2))
    assert same(got[special], exact[special].float())
    plain = ~special & ~exact.isnan() & ((exact.abs() >= SMALLEST) | (exact == 0))
    error = measure(got[plain], exact[plain])
    assert plain.sum() > 1000
    assert error.max() <= rounding + (limit if seed else 0)
    assert seed == 0 or error.max() >= 0.9 * limit


# ---- warp -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(96, 1, 1), (8, 8, 2), (16, 2, 3)])
def test_place_in_a_block(shape: tuple[int, int, int], seed: int) -> None:
    device = Emulator("words", seed=seed)
    threads = math.prod(shape)
    out = device.empty((threads, 4), torch.int32, "out")
    device.call("emulated_place", out, *shape)
    lane, warp, first, second = out.read().T
    index = torch.arange(threads)
    assert torch.equal(lane.long(), index % 32)
    assert torch.equal(warp.long(), index // 32)
    assert (first.view(-1, 32).sum(1) == 1).all()
    assert torch.equal(first, second)


# ---- matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_load_matrix(count: int, transposed: bool) -> None:
    device = Emulator("words")
    rows = torch.arange(32 * 8, dtype=torch.int16).view(32, 8)
    x = device.tensor(rows, "x")
    out = device.empty((32, count), torch.int32, "out")
    counters = device.call("emulated_load_matrix", x, out, count, transposed).counters
    got = out.read().view(torch.int16).view(32, count, 2)
    for m in range(count):
        matrix = rows[[5 * (8 * m + i) % 32 for i in range(8)]]
        matrix = matrix.T if transposed else matrix
        for lane, half in itertools.product(range(32), range(2)):
            group, quad = divmod(lane, 4)
            assert got[lane, m, half] == matrix[group, 2 * quad + half]
    assert counters.matrix_load.requests == 1
    assert counters.matrix_load.bytes == 128 * count


def registers(matrix: Tensor, places: list[tuple[int, int]]) -> Tensor:
    """By lane, the elements at its places, 4 bytes a register."""
    values = torch.stack([matrix[place] for place in places])
    return values.view(32, -1).view(torch.int32)


def half_places() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """A and B of m16n8k16, as documented at words/mma.cuh."""
    a, b = [], []
    for lane in range(32):
        g, t = divmod(lane, 4)
        for row, column in ((g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8)):
            a += [(row, column), (row, column + 1)]
        for row in (2 * t, 2 * t + 8):
            b += [(row, g), (row + 1, g)]
    return a, b


def tf32_places() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    a, b = [], []
    for lane in range(32):
        g, t = divmod(lane, 4)
        a += [(g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)]
        b += [(t, g), (t + 4, g)]
    return a, b


@pytest.mark.parametrize("rounding", MMA_ROUNDINGS)
@pytest.mark.parametrize(
    "word, dtype", [*enumerate([torch.bfloat16, torch.float16, torch.float32])]
)
def test_mma(word: int, dtype: torch.dtype, rounding: str) -> None:
    device = Emulator("words", mma=rounding)
    depth, (a_places, b_places) = (8, tf32_places()) if word == 2 else (16, half_places())
    a, b, c = torch.randn(16, depth).to(dtype), torch.randn(depth, 8).to(dtype), torch.randn(16, 8)
    if word == 2:  # the tensor core does not look at the lower 13 bits
        a, b = ((bits(x) & -(2**13)).view(torch.float32) for x in (a, b))
    d_places = [
        (g + 8 * (i // 2), 2 * t + i % 2) for g in range(8) for t in range(4) for i in range(4)
    ]
    operands = [
        device.tensor(registers(a, a_places), "a"),
        device.tensor(registers(b, b_places), "b"),
    ]
    d = device.tensor(torch.stack([c[place] for place in d_places]).view(32, 4), "d")
    counters = device.call("emulated_mma", *operands, d, word).counters
    exact = a.double() @ b.double() + c.double()
    magnitude = a.double().abs() @ b.double().abs() + c.double().abs()
    got = torch.empty(16, 8)
    for place, value in zip(d_places, d.read().flatten(), strict=True):
        got[place] = value
    unit = 2**-24 if rounding == "ideal" else (depth + 1) * 2**-23
    assert bool(((got - exact).abs() <= unit * magnitude).all())
    assert counters.mma == 1


# ---- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [4, 8, 16])
def test_copy(size: int, seed: int) -> None:
    device = Emulator("words", seed=seed)
    data = torch.randint(0, 256, (96, size), dtype=torch.uint8)
    inside = torch.randint(0, 2, (96,), dtype=torch.int32)
    inside[0], inside[95] = 0, 1
    out = device.empty((96, size), torch.uint8, "out")
    report = device.call(
        "emulated_copy", device.tensor(data, "x"), device.tensor(inside, "inside"), out, size
    )
    assert torch.equal(out.read(), data * inside.to(torch.uint8)[:, None])
    assert report.counters.copies == 96


@pytest.mark.parametrize("size", [4, 16])
def test_a_copy_of_what_is_outside_touches_nothing(size: int) -> None:
    device = Emulator("words")
    data = torch.ones(95, size, dtype=torch.uint8)  # the last piece is beyond
    inside = torch.ones(96, dtype=torch.int32)
    x, out = device.tensor(data, "x"), device.empty((96, size), torch.uint8, "out")
    with pytest.raises(KernelError, match="out of bounds"):
        device.call("emulated_copy", x, device.tensor(inside, "inside"), out, size)
    inside[95] = 0
    device.call("emulated_copy", x, device.tensor(inside, "inside"), out, size)
    assert out.read()[95].sum() == 0
