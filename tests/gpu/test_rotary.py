"""rotary and rotary_ on a CUDA device against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from ops.rotary_calls import BF16, DTYPES, FLOAT, check, check_out, example, integers
from torch import Tensor

from gpu.device import moved, on_device
from suffuse import info, ops

pytestmark = pytest.mark.gpu
run_out = on_device(ops.rotary)

SHAPES = [
    ((2, 3, 5, 32), 32),
    ((1, 4, 9, 64), 32),
    ((2, 3, 2, 37), 22),
    ((1, 2, 3, 50), 50),
    ((2, 1000, 32, 128), 128),
    ((3, 70, 1, 256), 96),
    ((1, 3, 2, 2400), 2200),
]


def run(**call) -> Tensor:
    """On the device, with gradients that come back."""
    on = {k: t.cuda() if isinstance(t, Tensor) else t for k, t in call.items()}
    return ops.rotary(**on).cpu()


def test_there_is_a_kernel():
    assert info.has_kernel("rotary", "cuda")


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types_and_shapes(dtype: torch.dtype, interleaved: bool):
    for shape, rotated in SHAPES:
        for wide in (False, True):
            tensors = example(shape, rotated, dtype, wide)
            check(tensors, run, interleaved=interleaved, inverse=wide)


@pytest.mark.parametrize("interleaved", [False, True])
def test_positions(interleaved: bool):
    for own in (False, True):
        tensors = example((3, 40, 2, 24), positions=70, own=own)
        for offsets in (7, 30, integers(0, 30, 5)):
            check(tensors, run, interleaved=interleaved, offsets=offsets)
    tensors = example((1, 230, 2, 24), positions=300)
    cuts = integers(0, 1, 1, 90, 200, 230)
    for offsets in (None, 3, integers(0, 3, 6, 9, 12)):
        check(tensors, run, interleaved=interleaved, offsets=offsets, cu_seqlens=cuts)


def test_positions_without_a_row_give_nan():
    tensors = example((2, 3, 5, 24), 16, positions=20)
    out = run_out(**tensors, offsets=integers(4, 18))
    assert bool(out[1, 2:, :, :16].isnan().all()) and bool(out[1, :2].isfinite().all())
    assert bool(out[0].isfinite().all()) and torch.equal(out[..., 16:], tensors["x"][..., 16:])


def test_layouts():
    for dtype in (FLOAT, BF16):
        tensors = example((2, 50, 3, 40), dtype=dtype)
        x = tensors["x"]
        flat = torch.cat([x.new_zeros(1), x.reshape(-1)])
        for layout in (
            x.transpose(1, 2).contiguous().transpose(1, 2),
            torch.stack([x, x, x], 2)[:, :, 1],
            torch.stack([x, x], -1)[..., 0],
            flat[1:].view(x.shape),
        ):
            check_out({**tensors, "x": layout}, run_out)


@pytest.mark.parametrize("interleaved", [False, True])
def test_in_place(interleaved: bool):
    cache = torch.randn(2, 60, 3, 40, device="cuda")
    before = cache.clone()
    tensors = moved(example((2, 50, 3, 24), 16, positions=80), "cuda")
    part, offsets = cache[:, 7:57, :, 4:28], integers(7, 9).cuda()
    options = {"interleaved": interleaved, "offsets": offsets}
    expected = ops.rotary(part, tensors["cos"], tensors["sin"], **options)
    assert ops.rotary_(part, tensors["cos"], tensors["sin"], **options) is part
    before[:, 7:57, :, 4:28] = expected
    assert torch.equal(cache, before)


def test_same_bits_at_every_run_and_in_a_graph():
    tensors = moved(example((2, 1000, 8, 128), dtype=BF16), "cuda")
    expected = ops.rotary(**tensors)
    for _ in range(3):
        assert torch.equal(ops.rotary(**tensors), expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.rotary(**tensors)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)
