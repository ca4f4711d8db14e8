"""attention_append on a CUDA device: the bits that the caches must have."""

from __future__ import annotations

import pytest
import torch
from ops.attention_append_calls import DTYPES, KINDS, SHAPES, Call, check, make, without_places
from torch import Tensor

from gpu.device import moved
from suffuse.ops import attention_append

pytestmark = pytest.mark.gpu

LARGE = (4, 300, 8, 128, 128)


def run(k_cache: Tensor, v_cache: Tensor, k: Tensor, v: Tensor, **options: Tensor) -> None:
    """On the device, with the caches brought back."""
    tensors = moved((k_cache, v_cache, k, v), "cuda")
    attention_append(*tensors, **moved(options, "cuda"))
    k_cache.copy_(tensors[0])
    v_cache.copy_(tensors[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_types_and_shapes(kind: str, dtype: torch.dtype):
    for shape in (*SHAPES, LARGE):
        check(run, make(shape, dtype, kind))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts(dtype: torch.dtype):
    for columns in (2, 3, 4, 8, 64):
        call = make((2, 4, 3, columns, columns), dtype, "plain")
        head_first = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in call[:4])
        check(run, Call(*head_first, call.options))
        part = (torch.stack([x, x], 2)[:, :, 1] for x in call[:4])
        check(run, Call(*part, call.options))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_a_place_are_left_out(kind: str):
    check(run, without_places(kind))


def test_in_a_graph():
    """Nothing waits for the device, and the places are those of the replay."""
    call = make((2, 1, 2, 64, 64), torch.bfloat16, "plain")
    tensors, so_far = moved(call[:4], "cuda"), call.options["cache_seqlens"].cuda()
    attention_append(*tensors, cache_seqlens=so_far)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attention_append(*tensors, cache_seqlens=so_far)
    so_far += 1
    graph.replay()
    torch.cuda.synchronize()
    for cache, row in zip(tensors[:2], tensors[2:], strict=True):
        for b in range(2):
            place = int(so_far[b])
            assert torch.equal(cache[b, place], row[b, 0])
            assert torch.equal(cache[b, place - 1], row[b, 0])
