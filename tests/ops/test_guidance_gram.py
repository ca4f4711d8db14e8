"""guidance_gram against its float64 reference: types, sizes, layouts, special values, ISAs."""

from __future__ import annotations

import math

import pytest
import torch
from guidance_gram_calls import BF16, DOUBLE, FLOAT, HALF, TYPES, check, example
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.ops import guidance_gram
from suffuse.testing import cpu_isas, use_isa, use_threads

OP = torch.ops.suffuse.guidance_gram.default


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", TYPES)
def test_types_and_counts(dtype: torch.dtype, count: int, isa: str):
    with use_isa(isa):
        for shape in ((3, 5, 7), (2, 1025), (1, 9001)):
            for center in (False, True):
                check(example(shape, dtype, count), center)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 1023, 1024, 1025, 4095, 4096, 4097, 12289])
def test_odd_sizes(size: int, isa: str):
    with use_isa(isa):
        for dtype in (FLOAT, BF16):
            check(example((3, size), dtype), center=True)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=5).map(tuple),
    count=st.integers(1, 4),
    dtype=st.sampled_from(TYPES),
)
def test_any_shape(shape, count, dtype):
    torch.manual_seed(0)
    check(example(shape, dtype, count))


LAYOUTS = {
    "channel slice": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
    "transposed": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "expanded batch": lambda t: t[:1].expand_as(t),
    "expanded inside": lambda t: t[:, :, :1].expand_as(t),
    "every second sample": lambda t: torch.stack([t, t], dim=1)[:, 1],
    "unaligned": lambda t: torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].reshape(t.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str):
    first, second = example((4, 6, 9, 11))
    check([LAYOUTS[layout](first), second], center=True)
    check([LAYOUTS[layout](first), LAYOUTS[layout](second)], center=True)


def test_halves_of_one_batch():
    cond, uncond = torch.cat(example((3, 4, 50))).tensor_split(2)
    check([cond, uncond])


@pytest.mark.parametrize("dtype", [FLOAT, BF16, HALF])
def test_a_small_difference_keeps_its_digits(dtype: torch.dtype):
    first = torch.randn(2, 5000)
    second = first * (1 + 1e-4 * torch.randn(2, 5000))
    tensors = [first.to(dtype), second.to(dtype)]
    gram = guidance_gram(tensors).gram
    length = gram[:, 0, 0] - 2 * gram[:, 0, 1] + gram[:, 1, 1]
    expected = (tensors[0].double() - tensors[1].double()).square().sum(1)
    torch.testing.assert_close(length, expected, rtol=1e-5, atol=0)


def test_centred_gram_is_the_covariance():
    tensors = [t.double() for t in example((3, 4, 30), FLOAT, 3)]
    gram, means = guidance_gram(tensors, center=True)
    for b in range(3):
        rows = torch.stack([t[b].flatten() for t in tensors])
        torch.testing.assert_close(gram[b] / 119, rows.cov(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(means[b], rows.mean(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (2, 0, 5)])
@pytest.mark.parametrize("center", [True, False])
def test_empty(shape: tuple[int, ...], center: bool):
    gram = check(example(shape), center)
    assert gram.gram.shape == (shape[0], 2, 2)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("center", [True, False])
def test_bad_numbers_stay_where_the_reference_has_them(bad: float, center: bool, isa: str):
    with use_isa(isa):
        for dtype in TYPES:
            tensors = example((3, 40), dtype, 3)
            tensors[1][1, 7] = bad
            check(tensors, center)


@pytest.mark.parametrize("dtype", TYPES)
def test_same_bits_on_every_isa_and_for_any_thread_count(dtype: torch.dtype):
    tensors = example((3, 70001), dtype, 4)
    expected = guidance_gram(tensors, center=True)
    for isa in cpu_isas():
        for threads in (1, 2, 3):
            with use_isa(isa), use_threads(threads):
                actual = guidance_gram(tensors, center=True)
            assert torch.equal(actual.gram, expected.gram), (isa, threads)
            assert torch.equal(actual.means, expected.means), (isa, threads)


def test_inputs_are_left_alone():
    tensors = example((3, 40))
    before = [t.clone() for t in tensors]
    guidance_gram(tensors, center=True)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize("dtype", [FLOAT, BF16, DOUBLE])
@pytest.mark.parametrize("center", [True, False])
def test_opcheck(dtype: torch.dtype, center: bool):
    torch.library.opcheck(OP, (example((3, 4), dtype, 3), center))


X = torch.zeros(2, 3, 4)
WRONG = {
    "no tensor": ([], ["tensors", "1 to 4 tensors", "got 0"]),
    "five tensors": ([X] * 5, ["tensors", "1 to 4 tensors", "got 5"]),
    "no dimension": ([X[0, 0, 0]], ["tensors[0]", "[B, ...]", "got ()"]),
    "integers": ([X.long()], ["tensors[0]", "float32", "got Long"]),
    "two types": ([X, X.to(BF16)], ["tensors[1]", "float32 like tensors[0]", "got bfloat16"]),
    "two shapes": ([X, X[:, :2]], ["tensors[1]", "(2, 3, 4) like tensors[0]", "got (2, 2, 4)"]),
    "one that would broadcast": ([X, X[:1]], ["tensors[1]", "(2, 3, 4)", "got (1, 3, 4)"]),
    "two devices": ([X, X.to("meta")], ["tensors[1]", "device cpu", "got meta"]),
}


@pytest.mark.parametrize(("tensors", "parts"), WRONG.values(), ids=WRONG.keys())
def test_wrong_call(tensors: list[torch.Tensor], parts: list[str]):
    with pytest.raises(RuntimeError) as error:
        guidance_gram(tensors)
    message = str(error.value).splitlines()[0]
    assert message.startswith("guidance_gram: ")
    for part in parts:
        assert part in message
