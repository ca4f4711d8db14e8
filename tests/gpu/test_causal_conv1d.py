"""causal_conv1d on a CUDA device against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from ops.causal_conv1d_calls import (
    BF16,
    DTYPES,
    FLOAT,
    channels_last,
    check,
    check_update,
    example,
    packed,
    results,
    update_example,
)
from torch import Tensor

from gpu.device import moved, on_device
from suffuse import info, ops

pytestmark = pytest.mark.gpu
LAYOUTS = {"steps": dict, "channels": channels_last}  # what is adjacent


def run(**call):
    """On the device, with gradients that come back."""
    on = {k: t.cuda() if isinstance(t, Tensor) else t for k, t in call.items()}
    out, final = ops.causal_conv1d(**on)
    return out.cpu(), final.cpu()


def run_update(**call) -> Tensor:
    on = moved(call, "cuda")
    out = ops.causal_conv1d_update(**on)
    call["conv_state"].copy_(on["conv_state"])
    return out.cpu()


def test_there_is_a_kernel():
    assert info.has_kernel("causal_conv1d", "cuda")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 9, 33])
def test_types_and_widths(width: int, dtype: torch.dtype, layout: str):
    for shape in ((2, 67, 301, width), (1, 256, 2048, width)):
        for activation in (None, "silu"):
            check(LAYOUTS[layout](example(shape, dtype)), run, activation=activation)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 63, 1000, 5003])
def test_lengths(length: int, layout: str):
    for dtype in (FLOAT, BF16):
        check(LAYOUTS[layout](example((2, 35, length, 4), dtype)), run, activation="silu")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [2, 4, 7])
def test_packed_sequences(width: int, layout: str):
    for dtype in (FLOAT, BF16):
        for length in (45, 3001):
            tensors = LAYOUTS[layout](example((2, 35, length, width), dtype))
            check(tensors, run, activation="silu", seq_idx=packed(2, length))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [2, 4, 6])
def test_bad_numbers_stay_where_the_reference_has_them(width: int, layout: str, bad: float):
    tensors = LAYOUTS[layout](example((1, 3, 60, width)))
    tensors["x"][0, 1, 30], tensors["x"][0, 2, 59] = bad, bad
    check(tensors, run)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("slots", [False, True])
def test_update(slots: bool, ring: bool, dtype: torch.dtype):
    for shape, places in (((1, 1, 0, 1), 0), ((30, 700, 0, 4), 4), ((2, 50, 9, 4), 6)):
        check_update(update_example(shape, places, dtype, ring, slots), run_update)


def test_varlen_states():
    x, cuts = torch.randn(23, 5), torch.tensor([0, 0, 2, 9, 10, 23])
    on_gpu = on_device(ops.causal_conv1d_varlen_states)(x, cuts, 4)
    assert torch.equal(on_gpu, ops.causal_conv1d_varlen_states(x, cuts, 4))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [4, 6])
def test_same_bits_at_every_run_and_in_a_graph(width: int, layout: str):
    tensors = moved(LAYOUTS[layout](example((2, 130, 5003, width))), "cuda")
    expected = results(ops.causal_conv1d, tensors, activation="silu")
    for _ in range(3):
        for name, value in results(ops.causal_conv1d, tensors, activation="silu").items():
            assert torch.equal(value, expected[name]), name
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.causal_conv1d(**tensors, activation="silu")
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected["out"])
