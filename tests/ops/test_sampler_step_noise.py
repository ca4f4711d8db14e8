"""The normal numbers that sampler_step makes: known answers, distribution, layout."""

from __future__ import annotations

import math

import pytest
import torch
from sampler_step_calls import BF16, DOUBLE, FLOAT
from torch import Tensor

from suffuse.ops import sampler_step, step_coefficients
from suffuse.reference._philox import philox_bits, philox_normal
from suffuse.testing import cpu_isas, use_isa

SEED, OFFSET = 2**40 + 7, 2**35 + 3


def kernel_normal(
    shape: tuple[int, ...], seed: int = SEED, offset: int = OFFSET, dtype: torch.dtype = FLOAT
) -> Tensor:
    zero = torch.zeros(shape, dtype=dtype)
    table = step_coefficients(noise=1.0)
    return sampler_step(zero, [zero], table, noise=(seed, offset), converted=False).sample


# Random123, kat_vectors: counter, key, answer of philox4x32 with 10 rounds.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers(counter: str, key: str, answer: str):
    first, second = words(key)
    assert philox_bits(torch.tensor(words(counter)), (first, second)).tolist() == words(answer)


@pytest.mark.parametrize("isa", cpu_isas())
def test_kernel_makes_its_numbers_from_the_known_answer(isa: str):
    c = words(KNOWN[0][2])  # of block 0, offset 0, seed 0
    expected = []
    for radius, angle in ((c[0], c[1]), (c[2], c[3])):
        r = math.sqrt(-2 * math.log((radius + 0.5) / 2**32))
        expected += [r * f(2 * math.pi * angle / 2**32) for f in (math.cos, math.sin)]
    with use_isa(isa):
        got = kernel_normal((4,), 0, 0)
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize(
    ("seed", "offset"), [(0, 0), (SEED, OFFSET), (2**63 - 1, 2**63 - 1), (2**32 - 1, 2**32)]
)
def test_kernel_equals_the_float64_reference(seed: int, offset: int, isa: str):
    reference = philox_normal((1 << 17,), seed, offset, dtype=DOUBLE)
    with use_isa(isa):
        assert (kernel_normal((1 << 17,), seed, offset) - reference).abs().max() < 1e-6


def test_same_numbers_whatever_isa_type_and_shape():
    n = 6 * 1001
    expected = kernel_normal((n,))
    for isa in cpu_isas():
        with use_isa(isa):
            for shape in ((n,), (2, n // 2), (6, 7, 143), (n, 1)):
                assert torch.equal(kernel_normal(shape).reshape(-1), expected)
            assert torch.equal(kernel_normal((n,), dtype=DOUBLE), expected.double())
            assert torch.equal(kernel_normal((n,), dtype=BF16), expected.to(BF16))


def test_numbers_do_not_depend_on_layout_or_per_sample_weights():
    x = torch.zeros(4, 3, 50)
    table = step_coefficients(noise=[1.0] * 4)
    expected = kernel_normal((4, 3, 50))
    for layout in (x, x.transpose(1, 2).contiguous().transpose(1, 2), x[:1].expand(4, 3, 50)):
        got = sampler_step(layout, [x], table, noise=(SEED, OFFSET)).sample
        assert torch.equal(got, expected)


def test_a_longer_tensor_begins_with_the_same_numbers():
    assert torch.equal(kernel_normal((5000,))[:1003], kernel_normal((1003,)))


def test_seed_and_offset_give_other_numbers():
    base = kernel_normal((4096,))
    for seed, offset in ((SEED + 1, OFFSET), (SEED, OFFSET + 1), (SEED + 2**32, OFFSET),
                         (SEED, OFFSET + 2**32), (OFFSET, SEED)):  # fmt: skip
        other = kernel_normal((4096,), seed, offset)
        assert not torch.equal(other, base)
        correlation = float((other * base).mean())
        assert abs(correlation) < 5 / math.sqrt(4096)


def test_distribution():
    n = 1 << 22
    z = kernel_normal((n,)).double()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = float((z**power).mean()) - moment
        assert abs(error) < 4.5 * math.sqrt(variance / n), f"moment {power} is off by {error:.2e}"
    neighbours = [float((z[:-lag] * z[lag:]).mean()) for lag in (1, 2, 3, 4, 5)]
    assert max(map(abs, neighbours)) < 4.5 / math.sqrt(n)
    # Kolmogorov and Smirnov: sup |F_n - F| sqrt(n) is above 1.95 once in a thousand samples.
    ordered = torch.special.ndtr(z.sort().values)
    steps = torch.arange(n + 1, dtype=DOUBLE) / n
    distance = torch.maximum((ordered - steps[:-1]).abs(), (steps[1:] - ordered).abs()).max()
    assert float(distance) * math.sqrt(n) < 1.95
    assert 5.0 < float(z.abs().max()) < 6.8


def test_reference_needs_no_float64():
    single = philox_normal((10000,), 1, 2)
    assert single.dtype == FLOAT
    torch.testing.assert_close(
        single.double(), philox_normal((10000,), 1, 2, dtype=DOUBLE), rtol=0, atol=1e-5
    )
