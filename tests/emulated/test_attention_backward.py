"""The CUDA kernels of attention's gradients, executed by the emulator, against the float64 formula."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from ops.attention_cases import make
from torch import Tensor

from emulated.attention_backward_device import (
    LIBRARIES,
    EmulatedGradients,
    GradParams,
    check,
)
from emulated.harness import SEEDS, CountersError, Emulator, assert_coalesced

FLOAT, BF16, HALF = torch.float32, torch.bfloat16, torch.float16
TYPES = (BF16, HALF, FLOAT)
# (D, Dv): every head dim that there are kernels for, and some that fall between them.
HEADS = [
    *((32, 32), (64, 64), (96, 96), (128, 128), (192, 192), (256, 256)),
    *((40, 24), (33, 7), (128, 64), (64, 200)),
]


def kernels(dtype: torch.dtype, seed: int = 0, **options: Any) -> EmulatedGradients:
    """On a device that cuts off the sums of tensor cores under seed 1."""
    mma = "truncating" if seed == 1 else "ideal"
    return EmulatedGradients(Emulator(LIBRARIES[dtype], seed=seed, mma=mma), **options)


def normal(*size: int, seed: int = 9) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_params_have_the_layout_of_the_struct(dtype: torch.dtype):
    size = Emulator(LIBRARIES[dtype]).function(
        "emulated_attention_grad_params_bytes", ctypes.c_int64
    )
    assert size() == ctypes.sizeof(GradParams)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_head_dims(heads: tuple[int, int], dtype: torch.dtype, seed: int):
    """Two blocks of rows and three tiles of columns, both ragged; two heads share keys."""
    case = make(
        *(1, 130, 150, 2, 1, *heads), dtype, numbers=seed,
        causal=(False, "top_left", "bottom_right")[seed],
    )  # fmt: skip
    check(case, kernels(dtype, seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("heads", [(64, 64), (128, 96), (256, 256)], ids=str)
def test_tf32(heads: tuple[int, int], seed: int):
    case = make(1, 70, 150, 2, 1, *heads, FLOAT, numbers=seed, causal="bottom_right")
    check(case, kernels(FLOAT, seed, tf32=True))


FEATURES: dict[str, dict[str, Any]] = {
    "window": {"window": (20, 10)},
    "left": {"window": (30, None), "causal": "bottom_right"},
    "softcap": {"softcap": 2.0},
    "alibi": {"alibi_slopes": normal(4).abs()},
    "alibi of each sequence": {"alibi_slopes": normal(2, 4).abs(), "causal": "top_left"},
    "sinks": {"sinks": normal(4)},
    "mask": {"bias": normal(2, 1, 150, 130) > 0},
    "bias": {"bias": normal(1, 4, 150, 130)},
    "infinite bias": {"bias": normal(1, 1, 150, 130).masked_fill(normal(150, 130) > 1, -torch.inf)},
    "dropout": {"dropout": 0.3, "seed": 1234567890123},
    "used": {
        "seqused_k": torch.tensor([77, 0]),
        "seqused_q": torch.tensor([150, 60]),
        "causal": "bottom_right",
    },
    "all": {
        "window": (50, 20), "softcap": 3.0, "alibi_slopes": normal(4).abs(), "sinks": normal(4),
        "dropout": 0.2, "seed": 5, "bias": normal(2, 4, 150, 130),
    },
}  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("feature", FEATURES)
def test_features(feature: str, dtype: torch.dtype):
    """Each with warps that share rows and with ones that do not."""
    for i, D in enumerate((64, 192)):
        seed = (list(FEATURES).index(feature) + TYPES.index(dtype) + i) % 3
        case = make(2, 150, 130, 4, 2, D, D, dtype, numbers=seed, **FEATURES[feature])
        check(case, kernels(dtype, seed))


# What the gradient of a bias is summed over.
BIASES = {
    "nothing": (2, 4, 150, 130),
    "sequences": (1, 4, 150, 130),
    "heads": (2, 1, 150, 130),
    "sequences and heads": (1, 1, 150, 130),
    "queries": (2, 4, 1, 130),
    "keys": (2, 4, 150, 1),
    "all but heads": (1, 4, 1, 1),
}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("summed", BIASES)
def test_gradient_of_the_bias(summed: str, dtype: torch.dtype):
    i = list(BIASES).index(summed) + TYPES.index(dtype)
    bias = normal(*BIASES[summed]).to((FLOAT, dtype)[i % 2])
    options = [{}, {"causal": "top_left", "softcap": 3.0}, {"dropout": 0.3, "seed": 4}][i % 3]
    case = make(2, 150, 130, 4, 2, 64, 64, dtype, bias=bias, bias_grad=True, **options)
    check(case, kernels(dtype, i % 3))


@pytest.mark.parametrize("D", [192, 256])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_gradient_of_the_bias_with_long_heads(dtype: torch.dtype, D: int):
    for batch in (1, 2):
        bias = normal(batch, 1, 70, 80)
        case = make(2, 70, 80, 1, 1, D, D, dtype, bias=bias, bias_grad=True, causal="bottom_right")
        check(case, kernels(dtype))


PACKED: list[dict[str, Any]] = [
    {},
    {"causal": "bottom_right"},
    {"causal": "top_left", "dropout": 0.1, "seed": 3, "alibi_slopes": normal(4).abs()},
]


@pytest.mark.parametrize("options", PACKED, ids=["plain", "causal", "features"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_packed_sequences(dtype: torch.dtype, options: dict[str, Any]):
    """One without queries, one without many keys, and rows that belong to none."""
    starts = {
        "cu_seqlens_q": torch.tensor([0, 70, 70, 201, 230], dtype=torch.int32),
        "cu_seqlens_k": torch.tensor([0, 50, 80, 200, 290], dtype=torch.int32),
    }
    check(make(1, 240, 300, 4, 2, 64, 64, dtype, **starts, **options), kernels(dtype, 1))


@pytest.mark.parametrize("general", [False, True], ids=["plain", "general"])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 90), (90, 1), (0, 5), (5, 0)], ids=str)
def test_short_sequences(lengths: tuple[int, int], general: bool):
    case = make(2, *lengths, 2, 1, 64, 64, BF16, causal="top_left")
    check(case, kernels(BF16, general=general))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_rows_without_keys_have_no_gradient(dtype: torch.dtype):
    """Queries before the first key that they may see, by the mask and by the position."""
    check(make(1, 100, 40, 1, 1, 64, 64, dtype, causal="bottom_right"), kernels(dtype))
    mask = torch.ones(1, 1, 100, 40, dtype=torch.bool)
    mask[:, :, 30:60] = False
    check(make(1, 100, 40, 1, 1, 64, 64, dtype, bias=mask), kernels(dtype))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_strides(dtype: torch.dtype):
    """Rows of [B, H, T, D], of one tensor with q, k and v, and at an odd place."""
    case = make(2, 70, 70, 2, 2, 64, 64, dtype)
    q, k, v = (case.tensors[name] for name in "qkv")
    heads = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    together = torch.stack((q, k, v), dim=2).unbind(2)
    for tensors in (heads, together):
        tensors_of = dict(zip("qkv", tensors, strict=True))
        check(case._replace(tensors=tensors_of), kernels(dtype))
    check(case, kernels(dtype), shift=1)


def test_a_head_dim_that_no_copy_fits():
    check(make(1, 70, 80, 1, 1, 61, 63, HALF, causal="top_left"), kernels(HALF))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("D", [64, 192])
def test_all_features_left_out_give_the_same(dtype: torch.dtype, D: int):
    check(make(1, 130, 150, 2, 1, D, D, dtype, causal="top_left"), kernels(dtype, general=True))


def predicted(T: int, S: int, D: int, heads: int, group: int, rows: int, size: int) -> list[int]:
    """Bytes that the kernels of keys and of queries load: their rows once, and for each block of rows all of the
    other side, of each head that shares the keys."""
    row = 2 * D * size
    keys = (S * row + (S // rows) * heads * T * (row + 8)) * group
    queries = (T * (row + 8) + (T // rows) * S * row) * group * heads
    return [keys, queries]


# D, rows of a block, and of products how many the kernel makes.
@pytest.mark.parametrize(("D", "rows", "dtype"), [
    *((64, 128, BF16), (96, 128, BF16), (128, 128, HALF), (192, 64, BF16), (256, 64, BF16)),
    *((64, 128, FLOAT), (128, 64, FLOAT), (256, 32, FLOAT)),
])  # fmt: skip
def test_traffic(D: int, rows: int, dtype: torch.dtype):
    """What the tiling predicts is loaded, in whole sectors and without bank conflicts, and multiplied."""
    T, S, heads, group = 256, 128, 2, 2
    run = kernels(dtype)
    check(make(1, T, S, heads * group, group, D, D, dtype), run)
    launches = run.report.launches[1:]
    one = 16 * 8 * (16 if dtype.itemsize == 2 else 8) // (1 if dtype.itemsize == 2 else 3)
    loads = predicted(T, S, D, heads, group, rows, dtype.itemsize)
    for launch, loaded, products in zip(launches, loads, (4, 3), strict=True):
        counters = launch.counters
        assert_coalesced(counters)
        moved = 32 * counters.global_load.sectors
        if not loaded <= moved <= 1.05 * loaded:
            raise CountersError(f"{launch.kernel}: {moved} bytes, the tiling has {loaded}")
        instructions = products * heads * group * T * S * D / one
        assert counters.mma == pytest.approx(instructions, rel=0.01), launch.kernel


def test_what_no_query_sees_costs_nothing():
    """A window of 64 over 1024 keys: at most three tiles of columns for a block of 128 rows."""
    run = kernels(BF16)
    case = make(1, 1024, 1024, 1, 1, 64, 64, BF16, window=(63, 0), causal="top_left")
    check(case, run)
    for launch, products in zip(run.report.launches[1:], (4, 3), strict=True):
        visible = 1024 * 128 * 64 * products / (16 * 8 * 16)
        assert launch.counters.mma <= visible, launch.kernel
