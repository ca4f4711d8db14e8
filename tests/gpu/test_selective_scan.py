"""selective_scan on a CUDA device against its float64 reference: results and gradients."""

from __future__ import annotations

import pytest
import torch
from ops import selective_state_update_calls as updates
from ops.selective_scan_inputs import Shape, check, make, results
from torch import Tensor

from gpu.device import DEVICE, moved
from suffuse import info
from suffuse.ops import selective_scan, selective_state_update

pytestmark = pytest.mark.gpu

TYPES = [torch.float32, torch.bfloat16, torch.float16]
# Every number of lanes a channel; groups; constant B and C; segments of time; many blocks.
SHAPES = [
    Shape(1, 1, 1, 1),
    Shape(2, 17, 35, 5),
    Shape(2, 140, 64, 2),
    Shape(2, 48, 133, 24, G=4),
    Shape(1, 1536, 200, 16),
    Shape(1, 9, 300, 66),
    Shape(1, 5, 70, 256),
    Shape(2, 20, 90, 3, constant_B=True, constant_C=True),
    Shape(1, 3, 2000, 4),
]


def run(tensors: dict[str, Tensor], **options: object) -> dict[str, Tensor]:
    return moved(results(selective_scan, moved(tensors, DEVICE), **moved(options, DEVICE)), "cpu")


def test_there_is_a_kernel():
    assert info.has_kernel("selective_scan", "cuda")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_types_and_shapes(dtype: torch.dtype, shape: Shape):
    for reverse in (False, True):
        tensors = make(shape, dtype, 1)
        check(tensors, run, floor=4.0, delta_softplus=True, reverse=reverse)


@pytest.mark.parametrize("length", [115, 1500])
def test_packed_sequences(length: int):
    starts = torch.tensor([0, 1, 16, 17, 30, 64, 100, 700])
    index = torch.bucketize(torch.arange(length), starts, right=True).int().expand(2, -1)
    tensors = make(Shape(2, 18, length, 10), torch.float32, 1)
    check(tensors, run, floor=4.0, delta_softplus=True, seq_idx=index)


def test_channels_adjacent_and_unaligned_rows():
    tensors = make(Shape(2, 19, 61, 6), torch.float32)
    expected = run(tensors, delta_softplus=True)
    for name in ("u", "z", "B"):
        tensors[name] = tensors[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    tensors["delta"] = torch.cat([tensors["delta"][..., :1], tensors["delta"]], -1)[..., 1:]
    for name, value in run(tensors, delta_softplus=True).items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("shape", [Shape(2, 8, 0, 3), Shape(0, 8, 5, 3)], ids=str)
def test_nothing_to_do(shape: Shape):
    tensors = make(shape, torch.float32)
    got = run(tensors)
    assert torch.equal(got["last_state"], tensors["initial_state"])


def test_what_has_no_kernel_takes_the_formula():
    for tensors in (
        make(Shape(1, 2, 9, 3), torch.float64),
        make(Shape(1, 2, 9, 300), torch.float32),
    ):
        check(tensors, run, delta_softplus=True)


def test_same_bits_at_every_run_and_in_a_graph():
    tensors = moved(make(Shape(1, 64, 3000, 16), torch.bfloat16), DEVICE)
    expected = results(selective_scan, tensors, delta_softplus=True)
    for _ in range(3):
        for name, value in results(selective_scan, tensors, delta_softplus=True).items():
            assert torch.equal(value, expected[name]), name
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = selective_scan(**tensors, delta_softplus=True)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected["out"])


def update(state: Tensor, *arguments: object, **options: object) -> Tensor:
    """In place on the CPU's state."""
    kept = moved(state, DEVICE)
    out = selective_state_update(kept, *moved(arguments, DEVICE), **moved(options, DEVICE))
    state.copy_(kept)
    return out.cpu()


@pytest.mark.parametrize(("dtype", "state_dtype"), updates.MIXES)
def test_update(dtype: torch.dtype, state_dtype: torch.dtype):
    for size, states, groups in (((2, 33), 16, 1), ((3, 24), 5, 3), ((2, 6, 7), 130, 2)):
        call = updates.make(size, states, dtype, groups=groups, state_dtype=state_dtype)
        updates.check(call, update, floor=4.0)
    call = updates.make((5, 18), 9, dtype, slots=8)
    call["state_batch_indices"] = torch.tensor([3, -1, 7, 0, -2], dtype=torch.int32)
    updates.check(call, update, floor=4.0)
