"""attention on a CUDA device against its float64 formula: results and gradients, every feature."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ops.attention_cases import Case, gradients, make
from torch import Tensor

from gpu.device import DEVICE, moved
from suffuse import info
from suffuse.ops import attention
from suffuse.testing import assert_close_to_reference, relative_error

pytestmark = pytest.mark.gpu

TYPES = (torch.bfloat16, torch.float16, torch.float32)
HEADS = [(32, 32), (64, 64), (96, 96), (128, 128), (192, 192), (256, 256), (40, 24), (33, 7)]
# Tensor cores cut off the sums of float: 2^-24 on average for each step of a product.
FLOOR = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 4e-6}
INTEGERS = ("cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k")


def normal(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(9))


def on_device(case: Case) -> dict[str, Tensor]:
    """out, lse and the gradients, as `gradients` has them."""
    leaves = {name: moved(x, DEVICE).requires_grad_() for name, x in case.tensors.items()}
    options = {
        name: moved(value.int() if name in INTEGERS else value, DEVICE)
        for name, value in case.options.items()
    }
    out, lse = attention(**leaves, **options, return_lse=True)
    inside = lse.isfinite()
    cotangents = (moved(case.grad_out, DEVICE), moved(case.grad_lse, DEVICE)[inside])
    grads = torch.autograd.grad((out, lse[inside]), tuple(leaves.values()), cotangents)
    results = {"out": out.detach(), "lse": lse.detach()}
    return moved({**results, **dict(zip(leaves, grads, strict=True))}, "cpu")


def check(case: Case) -> None:
    """The error rule on every result."""
    exact, plain = gradients(case, torch.float64), gradients(case)
    for name, result in on_device(case).items():
        assert_close_to_reference(
            result,
            plain[name].to(result.dtype),
            exact[name],
            FLOOR[case.tensors["q"].dtype],
            name,
        )


def test_there_is_a_kernel():
    assert info.has_kernel("attention", "cuda")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_head_dims(heads: tuple[int, int], dtype: torch.dtype):
    for causal in (False, "top_left", "bottom_right"):
        check(make(2, 330, 401, 4, 2, *heads, dtype, causal=causal))


FEATURES: dict[str, dict[str, Any]] = {
    "window": {"window": (70, 30)},
    "left": {"window": (100, None), "causal": "bottom_right"},
    "softcap": {"softcap": 2.0},
    "alibi": {"alibi_slopes": normal(2, 4).abs()},
    "sinks": {"sinks": normal(4)},
    "mask": {"bias": normal(2, 1, 330, 401) > 0},
    "bias": {"bias": normal(2, 4, 330, 401), "bias_grad": True},
    "bias of all heads": {"bias": normal(2, 1, 330, 401), "bias_grad": True, "causal": "top_left"},
    "bias of keys": {"bias": normal(1, 4, 1, 401), "bias_grad": True},
    "dropout": {"dropout": 0.3, "seed": 1234567890123},
    "used": {
        "seqused_k": torch.tensor([377, 0]),
        "seqused_q": torch.tensor([330, 60]),
        "causal": "bottom_right",
    },
}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("feature", FEATURES)
def test_features(feature: str, dtype: torch.dtype):
    for D in (64, 192):
        check(make(2, 330, 401, 4, 2, D, D, dtype, **FEATURES[feature]))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_packed_sequences(dtype: torch.dtype):
    starts = {
        "cu_seqlens_q": torch.tensor([0, 270, 270, 601, 630]),
        "cu_seqlens_k": torch.tensor([0, 150, 280, 500, 690]),
    }
    for causal in (False, "bottom_right"):
        check(make(1, 640, 700, 4, 2, 64, 64, dtype, **starts, causal=causal))


@pytest.mark.parametrize("lengths", [(1, 1), (1, 90), (90, 1), (0, 5), (5, 0)], ids=str)
def test_short_sequences(lengths: tuple[int, int]):
    check(make(2, *lengths, 2, 1, 64, 64, torch.bfloat16, causal="top_left"))


def test_gradients_have_the_same_bits_at_every_run():
    case = make(2, 2000, 2000, 4, 2, 128, 128, torch.bfloat16, causal="top_left")
    first = on_device(case)
    for _ in range(5):
        for name, result in on_device(case).items():
            assert torch.equal(result, first[name]), name


def test_head_dims_beyond_the_kernels_take_the_formula():
    check(make(1, 8, 9, 2, 1, 300, 300, TYPES[0], causal="bottom_right"))


def test_products_of_float_follow_pytorch_s_switch():
    matmul, worst = torch.backends.cuda.matmul, {}
    case = make(2, 330, 401, 4, 2, 64, 64, torch.float32, causal="top_left")
    exact = gradients(case, torch.float64)
    for precision in ("ieee", "tf32"):
        before, matmul.fp32_precision = matmul.fp32_precision, precision
        try:
            results = on_device(case)
        finally:
            matmul.fp32_precision = before
        worst[precision] = {n: relative_error(x, exact[n]) for n, x in results.items()}
    for name, error in worst["tf32"].items():
        assert 20 * worst["ieee"][name] < error < 5e-3, name
