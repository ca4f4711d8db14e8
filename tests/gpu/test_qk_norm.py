"""qk_norm on a CUDA device against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from ops.qk_norm_calls import BF16, DTYPES, check, example, results
from torch import Tensor

from gpu.device import moved
from suffuse import info, ops

pytestmark = pytest.mark.gpu

SHAPES = [
    ((1, 1, 1, 1, 2), None),
    ((2, 50, 5, 1, 64), 64),
    ((1, 4, 2, 9, 40), None),
    ((2, 3, 4, 2, 96), 24),
    ((3, 2, 1, 5, 37), 22),
    ((2, 1000, 32, 8, 128), 128),
    ((1, 30, 5, 1, 700), 600),
]


def run(**call) -> tuple[Tensor, ...]:
    """On the device, with gradients that come back."""
    on = {k: t.cuda() if isinstance(t, Tensor) else t for k, t in call.items()}
    return tuple(y.cpu() for y in ops.qk_norm(**on))


def test_there_is_a_kernel():
    assert info.has_kernel("qk_norm", "cuda")


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types_and_shapes(dtype: torch.dtype, interleaved: bool):
    for shape, rotated in SHAPES:
        for weights in (False, True):
            check(example(shape, rotated, dtype, weights), run, interleaved=interleaved)


def test_too_many_columns():
    q = torch.zeros(1, 1, 1, 5000, device="cuda")
    with pytest.raises(RuntimeError, match="expected at most 2040 columns of a head on CUDA"):
        ops.qk_norm(q, q)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_numbers_stay_in_their_head(bad: float):
    tensors = example((2, 5, 3, 2, 40), 24, weights=False)
    tensors["q"][1, 2, 0, 3], tensors["k"][0, 1, 1, 30] = bad, bad
    check(tensors, run)


def test_strided_heads():
    tensors = example((2, 50, 3, 2, 40), 24, BF16)
    tensors["q"] = tensors["q"].transpose(1, 2).contiguous().transpose(1, 2)
    tensors["k"] = torch.stack([tensors["k"]] * 3, 2)[:, :, 1]
    on = moved(tensors, "cuda")
    for got, expected in zip(ops.qk_norm(**on), ops.qk_norm(**tensors), strict=True):
        torch.testing.assert_close(got.cpu(), expected)


def test_same_bits_at_every_run_and_in_a_graph():
    tensors = moved(example((2, 1000, 8, 2, 128), 128, BF16), "cuda")
    expected = results(ops.qk_norm, tensors)
    for _ in range(3):
        for name, value in results(ops.qk_norm, tensors).items():
            assert torch.equal(value, expected[name]), name
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.qk_norm(**tensors)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured[0], expected["out q"])
    assert torch.equal(captured[1], expected["out k"])
