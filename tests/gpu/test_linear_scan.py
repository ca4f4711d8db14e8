"""linear_scan on a CUDA device against its float64 reference: results and gradients."""

from __future__ import annotations

import pytest
import torch
from ops.linear_scan_calls import COMPLEX, REAL, Call, check_scan, make, packed
from torch import Tensor

from gpu.device import DEVICE, moved, on_device
from suffuse import info
from suffuse.ops import linear_scan

pytestmark = pytest.mark.gpu
run = on_device(torch.ops.suffuse.linear_scan.default)

TYPES = [*((dtype, False) for dtype in REAL + COMPLEX), (torch.bfloat16, True)]
# Short rows, rows of several windows, split rows, many chunks.
SHAPES = [(3, 5, 1), (2, 40, 131), (8, 96, 6001), (2, 3, 9001), (1, 1, 500_003)]


def test_there_is_a_kernel():
    assert info.has_kernel("linear_scan", "cuda")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "wide_a"), TYPES)
def test_types_and_shapes(dtype: torch.dtype, wide_a: bool, shape: tuple[int, int, int]):
    for constant in (False, True):
        call = make(shape, dtype, constant=constant, wide_a=wide_a)
        index = packed(call["x"], [5, 70, 2000, 2049])
        for sequence in (None, index):
            for reverse in (False, True):
                check_scan(run, call, sequence, reverse, lagged=constant != reverse)


def gradients(call: Call, device: str, index: Tensor) -> tuple[Tensor, ...]:
    leaves = {name: moved(value, device).requires_grad_() for name, value in call.items()}
    h, last = linear_scan(**leaves, seq_idx=moved(index, device), return_last_state=True)
    loss = (h.to(last.dtype) * h.to(last.dtype).conj()).real.sum() + last.real.sum()
    return moved(torch.autograd.grad(loss, list(leaves.values())), "cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients_equal_the_cpus(dtype: torch.dtype):
    for shape in ((2, 3, 50), (1, 2, 3000)):
        call = make(shape, dtype)
        index = packed(call["x"], [7, 1100])
        for got, expected in zip(
            gradients(call, DEVICE, index), gradients(call, "cpu", index), strict=True
        ):
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last_and_unaligned_rows(dtype: torch.dtype):
    call = make((3, 20, 301), dtype)
    rows = call | {"a": call["a"][..., 3:290], "x": call["x"][..., 1:288]}
    check_scan(run, rows, None, False, False)
    a, x = (call[name].transpose(1, 2).contiguous().transpose(1, 2) for name in ("a", "x"))
    h = linear_scan(moved(a, DEVICE), moved(x, DEVICE))
    assert h.stride() == x.stride()
    expected = linear_scan(moved(call["a"], DEVICE), moved(call["x"], DEVICE))
    assert torch.equal(h, expected)


@pytest.mark.parametrize("length", [0, 3])
def test_nothing_to_do(length: int):
    call = moved(make((2, 0 if length else 4, length), torch.float32), DEVICE)
    h, last = linear_scan(**call, return_last_state=True)
    assert h.shape == call["x"].shape and torch.equal(last, call["initial_state"])


def test_same_bits_at_every_run_and_in_a_graph():
    call = moved(make((1, 3, 300_001), torch.float32), DEVICE)
    expected = linear_scan(**call)
    for _ in range(5):
        assert torch.equal(linear_scan(**call), expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = linear_scan(**call)
    for _ in range(2):  # the workspace is zeroed at every replay
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(captured, expected)
