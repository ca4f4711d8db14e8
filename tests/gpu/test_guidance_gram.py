"""guidance_gram on a CUDA device against the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from ops.guidance_gram_calls import BF16, FLOAT, TYPES, check, example

from gpu.device import moved, on_device
from suffuse import info
from suffuse.ops import guidance_gram

pytestmark = pytest.mark.gpu
run = on_device(guidance_gram)


def test_there_is_a_kernel():
    assert info.has_kernel("guidance_gram", "cuda")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", TYPES)
def test_types_and_counts(dtype: torch.dtype, count: int):
    for shape in ((3, 7, 43), (2, 4, 64, 64), (1, 5_000_003)):
        for center in (False, True):
            check(example(shape, dtype, count), center, run)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 15, 16, 17, 63, 250, 1003, 70001])
def test_ragged_sizes(size: int):
    for dtype in TYPES:
        check(example((5, size), dtype), True, run)


@pytest.mark.parametrize("dtype", TYPES)
def test_strided_samples(dtype: torch.dtype):
    for size in (96, 101):
        first, second, third = example((4, size), dtype, 3)
        tensors = [
            torch.stack([first, first], dim=1)[:, 1],
            torch.cat([second, second[:, :1]], dim=1)[:, :-1],
            third[:1].expand_as(third),
        ]
        check(tensors, True, run)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_numbers_stay_in_their_sample(bad: float):
    for dtype in (FLOAT, BF16):
        tensors = example((3, 40), dtype)
        tensors[1][1, 7] = bad
        check(tensors, True, run)


def test_same_bits_at_every_run_and_in_a_graph():
    tensors = moved(example((4, 300_001), FLOAT, 3), "cuda")
    expected = guidance_gram(tensors, center=True)
    for _ in range(3):
        assert torch.equal(guidance_gram(tensors, center=True).gram, expected.gram)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = guidance_gram(tensors, center=True)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured.gram, expected.gram)
    assert torch.equal(captured.means, expected.means)
