"""Wrong calls of attention: each error names the op, the argument, what was expected and what came."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from suffuse import ops

F32 = torch.float32
NAMES = "'top_left' or 'bottom_right'"


def tensors(q=(2, 5, 4, 8), k=(2, 7, 2, 8), v=(2, 7, 2, 6), dtypes=(F32, F32, F32), device="cpu"):
    return [torch.zeros(s, dtype=d, device=device) for s, d in zip((q, k, v), dtypes, strict=True)]


WRONG = {
    "q_rank": (lambda: ops.attention(*tensors(q=(2, 5, 32))), RuntimeError, "q", "[B, T, H, D]", "(2, 5, 32)"),
    "k_rank": (lambda: ops.attention(*tensors(k=(2, 7, 16))), RuntimeError, "k", "[B, S, G, D]", "(2, 7, 16)"),
    "v_rank": (lambda: ops.attention(*tensors(v=(12,))), RuntimeError, "v", "[B, S, G, Dv]", "(12,)"),
    "k_batch": (lambda: ops.attention(*tensors(k=(3, 7, 2, 8))), RuntimeError, "k", "(2, 7, 2, 8)", "(3, 7, 2, 8)"),
    "k_dim": (lambda: ops.attention(*tensors(k=(2, 7, 2, 9))), RuntimeError, "k", "(2, 7, 2, 8)", "(2, 7, 2, 9)"),
    "v_length": (lambda: ops.attention(*tensors(v=(2, 8, 2, 6))), RuntimeError, "v", "(2, 7, 2, 6)", "(2, 8, 2, 6)"),
    "v_heads": (lambda: ops.attention(*tensors(v=(2, 7, 1, 6))), RuntimeError, "v", "(2, 7, 2, 6)", "(2, 7, 1, 6)"),
    "v_batch": (lambda: ops.attention(*tensors(v=(1, 7, 2, 6))), RuntimeError, "v", "(2, 7, 2, 6)", "(1, 7, 2, 6)"),
    "groups": (
        lambda: ops.attention(*tensors(k=(2, 7, 3, 8), v=(2, 7, 3, 6))),
        RuntimeError, "k", "divides the 4 heads", "G = 3",
    ),
    "no_groups": (
        lambda: ops.attention(*tensors(k=(2, 7, 0, 8), v=(2, 7, 0, 6))),
        RuntimeError, "k", "divides the 4 heads", "G = 0",
    ),
    "no_dim": (
        lambda: ops.attention(*tensors(q=(2, 5, 4, 0), k=(2, 7, 2, 0))),
        RuntimeError, "q", "D >= 1", "(2, 5, 4, 0)",
    ),
    "integers": (
        lambda: ops.attention(*tensors(dtypes=(torch.int64,) * 3)),
        RuntimeError, "q", "float64, float32, bfloat16 or float16", "Long",
    ),
    "k_dtype": (
        lambda: ops.attention(*tensors(dtypes=(F32, torch.bfloat16, F32))),
        RuntimeError, "k", "float32 like q", "bfloat16",
    ),
    "v_dtype": (
        lambda: ops.attention(*tensors(dtypes=(F32, F32, torch.float64))),
        RuntimeError, "v", "float32 like q", "float64",
    ),
    "scale_nan": (lambda: ops.attention(*tensors(), scale=float("nan")), RuntimeError, "scale", "finite", "nan"),
    "scale_inf": (lambda: ops.attention(*tensors(), scale=-float("inf")), RuntimeError, "scale", "finite", "-inf"),
    "causal_true": (lambda: ops.attention(*tensors(), causal=True), ValueError, "causal", NAMES, "T = 5, S = 7"),
    "causal_name": (lambda: ops.attention(*tensors(), causal="left"), ValueError, "causal", NAMES, "'left'"),
    "causal_number": (lambda: ops.attention(*tensors(), causal=1), ValueError, "causal", NAMES, "1"),
    "numpy": (lambda: ops.attention(np.zeros((2, 5, 4, 8)), *tensors()[1:]), TypeError, "q", "tensor", "ndarray"),
    "none": (lambda: ops.attention(*tensors()[:2], None), TypeError, "v", "tensor", "NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call(name):
    call, kind, argument, expected, got = WRONG[name]
    with pytest.raises(kind, match=rf"attention: {argument}: expected .*, got .*") as error:
        call()
    first = str(error.value).split("\n")[0]
    assert expected in first.split(", got ")[0] and got in first.split(", got ")[1]


def backward_arguments(**change):
    q, k, v = tensors()
    out, lse = torch.zeros(2, 5, 4, 6), torch.zeros(2, 4, 5)
    arguments = {"grad_out": out, "grad_lse": lse, "q": q, "k": k, "v": v, "out": out, "lse": lse}
    return [*{**arguments, **change}.values(), 0.5, 0]


@pytest.mark.parametrize(
    ("argument", "value", "got"),
    [
        ("grad_out", torch.zeros(2, 5, 4, 8), "(2, 5, 4, 8)"),
        ("grad_out", torch.zeros(2, 5, 4, 6, dtype=torch.float64), "float64"),
        ("grad_lse", torch.zeros(2, 5, 4), "(2, 5, 4)"),
        ("grad_lse", torch.zeros(2, 4, 5, dtype=torch.bfloat16), "bfloat16"),
        ("out", torch.zeros(2, 4, 5, 6), "(2, 4, 5, 6)"),
        ("lse", torch.zeros(2, 4), "(2, 4)"),
        ("v", torch.zeros(2, 7, 6), "(2, 7, 6)"),
    ],
    ids=lambda x: None if isinstance(x, torch.Tensor) else str(x),
)
def test_wrong_backward(argument, value, got):
    message = rf"attention backward: {argument}: expected .*, got .*{re.escape(got)}"
    with pytest.raises(RuntimeError, match=message):
        torch.ops.suffuse.attention_bwd(*backward_arguments(**{argument: value}))


@pytest.mark.parametrize("causal", [-1, 3])
def test_wrong_causal_code(causal):
    with pytest.raises(RuntimeError, match=rf"attention: causal: expected 0 .*, got {causal}"):
        torch.ops.suffuse.attention_fwd(*tensors(), 1.0, causal)
