"""What CUDA C++ spells itself and the host half supplies: functions of numbers, __trap."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

import pytest
import torch

from emulated.harness import Emulator, KernelError

WORDS = [0, 1, 2, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFF, 0x00010000, 0x7FC00000, 0x3F800000]
WORDS += [0x7F800000, 0xFF800000, 0x00000001, 0x80000001, 0x40490FDB, 0xC0490FDB]


def as_float(word: int, code: str = "f") -> float:
    size = struct.calcsize(code)
    return struct.unpack(code, word.to_bytes(size, "little"))[0]


def to_float(x: float) -> float:
    return torch.tensor(x, dtype=torch.float64).float().item()


def quiet(word: int, infinity: int, bit: int) -> int:
    """With a quiet NaN for a signalling one: libm and the GPU differ on those."""
    return word | bit if word & infinity == infinity and word & (bit - 1) else word


def signed(word: int, bits: int = 32) -> int:
    return word - (word >> bits - 1 << bits)


def first_bit(word: int) -> int:
    """From 1; 0 where there is none."""
    return (word & -word).bit_length()


def number(pick: Callable[[float, float], float]) -> Callable[[float, float], float]:
    """The other where one is NaN."""
    return lambda x, y: y if math.isnan(x) else x if math.isnan(y) else pick(x, y)


def divided(x: float, y: float) -> float:
    """With what IEEE 754 says of zeros and infinities."""
    return (torch.tensor(x, dtype=torch.float64) / y).item()


def of_floats(function: Callable[[float, float], float], code: str = "f") -> Callable[..., float]:
    return lambda a, b: function(as_float(a, code), as_float(b, code))


def root(x: float) -> float:
    return math.sqrt(x) if x >= 0 else x if x == 0 else math.nan


def inverse_root(x: float) -> float:
    return divided(1.0, root(x)) if root(x) == root(x) else math.nan


def fused(x: float, y: float) -> float:
    """x y + 1 rounded once: the product of two floats is exact in double, the sum nearly."""
    return to_float(x * y + 1.0)


# In the order of the results of word_functions_kernel.
OF_WORDS: list[Callable[[int, int], float]] = [
    lambda a, b: a.bit_count(),
    lambda a, b: first_bit(a),
    lambda a, b: 32 - a.bit_length(),
    lambda a, b: a * b >> 32,
    min,
    max,
    lambda a, b: min(signed(a), signed(b)) % 2**32,
    lambda a, b: max(signed(a), signed(b)) % 2**32,
    of_floats(number(min)),
    of_floats(number(max)),
    lambda a, b: a,
    of_floats(lambda x, y: to_float(x + y)),
    of_floats(lambda x, y: to_float(x - y)),
    of_floats(lambda x, y: to_float(x * y)),
    of_floats(fused),
    of_floats(lambda x, y: to_float(divided(x, y))),
    of_floats(lambda x, y: to_float(root(x))),
    of_floats(fused),
    of_floats(number(max)),
    of_floats(lambda x, y: abs(x)),
    of_floats(lambda x, y: to_float(root(x))),
    of_floats(lambda x, y: to_float(inverse_root(x))),
]
OF_LONGS: list[Callable[[int, int], float]] = [
    lambda a, b: a.bit_count(),
    lambda a, b: first_bit(a),
    lambda a, b: 64 - a.bit_length(),
    lambda a, b: min(signed(a, 64), signed(b, 64)) % 2**64,
    lambda a, b: max(signed(a, 64), signed(b, 64)) % 2**64,
    min,
    max,
    of_floats(number(min), "d"),
    of_floats(number(max), "d"),
    of_floats(lambda x, y: inverse_root(x), "d"),
]


def check(
    entry: str, words: Sequence[int], functions: Sequence[Callable[[int, int], float]], bits: int
) -> None:
    device = Emulator("cuda_functions")
    dtype, code = (torch.int32, "f") if bits == 32 else (torch.int64, "d")
    values = torch.tensor([signed(word, bits) for word in words], dtype=dtype)
    out = device.empty((len(functions), len(words)), dtype, "out")
    device.call(entry, device.tensor(values, "in"), out, len(words))
    for k, function in enumerate(functions):
        for i, got in enumerate(word % 2**bits for word in out.read()[k].tolist()):
            a, b = words[i], words[-1 - i]
            expected = function(a, b)
            if isinstance(expected, float):
                value = as_float(got, code)
                close = math.isnan(value) and math.isnan(expected)
                assert close or value == expected, (k, a, b, value, expected)
            else:
                assert got == expected, (k, a, b)


def test_functions_of_4_bytes() -> None:
    random = torch.Generator().manual_seed(0)
    more = torch.randint(0, 2**32, (500,), generator=random).tolist()
    usual = (torch.randn(400, generator=random).view(torch.int32).long() % 2**32).tolist()
    words = [quiet(word, 0x7F800000, 1 << 22) for word in WORDS + more + usual]
    check("emulated_word_functions", words, OF_WORDS, 32)


def test_functions_of_8_bytes() -> None:
    random = torch.Generator().manual_seed(0)
    more = (torch.randint(-(2**62), 2**62, (500,), generator=random) * 2).tolist()
    words = [0, 1, 2**63, 2**64 - 1, *(word << 32 | 1 for word in WORDS), *more]
    words = [quiet(word % 2**64, 0x7FF << 52, 1 << 51) for word in words]
    check("emulated_long_functions", words, OF_LONGS, 64)


def test_trap() -> None:
    device = Emulator("cuda_functions")
    device.call("emulated_trap", 1)
    with pytest.raises(KernelError, match="trap") as error:
        device.call("emulated_trap", -1)
    (site,) = error.value.report.findings[0].sites
    assert site.startswith("tests/emulated/cuda_functions.cuh:")
