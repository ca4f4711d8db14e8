"""Wrong arguments of the general attention ops: errors name op, argument, what was expected and what came."""

from __future__ import annotations

import re

import pytest
import torch

NAMES = (
    "scale", "left", "right", "top_left", "softcap", "bias", "alibi_slopes", "sinks", "dropout", "seed",
    "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "max_seqlen_q", "max_seqlen_k",
)  # fmt: skip
DEFAULTS = dict.fromkeys(NAMES) | {
    "scale": 0.5, "left": -1, "right": -1, "top_left": False, "softcap": 0.0, "dropout": 0.0,
}  # fmt: skip


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


def tensors(batch=2):
    return [torch.zeros(batch, n, h, d) for n, h, d in ((5, 4, 8), (7, 2, 8), (7, 2, 6))]


def forward(inputs=None, **options):
    values = DEFAULTS | options
    arguments = [values[name] for name in NAMES]
    return torch.ops.suffuse.attention_general_fwd(*(inputs or tensors()), *arguments)


PACKED = {"cu_seqlens_q": int32(0, 2, 5), "cu_seqlens_k": int32(0, 3, 7)}
WRONG = {
    "softcap": ({"softcap": -1.0}, "softcap", ">= 0", "-1"),
    "softcap_nan": ({"softcap": float("nan")}, "softcap", "finite", "nan"),
    "dropout": ({"dropout": 1.0, "seed": torch.tensor([1])}, "dropout", "[0, 1)", "1.0"),
    "no_seed": ({"dropout": 0.5}, "seed", "a tensor where dropout > 0", "None"),
    "seed_dtype": ({"dropout": 0.5, "seed": int32(1)}, "seed", "int64", "Int"),
    "seed_shape": ({"dropout": 0.5, "seed": torch.tensor([1, 2])}, "seed", "(1,)", "(2,)"),
    "bias_rank": ({"bias": torch.zeros(5, 7)}, "bias", "[B, H, T, S]", "(5, 7)"),
    "bias_shape": ({"bias": torch.zeros(2, 4, 5, 6)}, "bias", "(2, 4, 5, 7)", "(2, 4, 5, 6)"),
    "bias_dtype": ({"bias": torch.zeros(1, 1, 5, 7).double()}, "bias", "float32", "float64"),
    "slopes_shape": ({"alibi_slopes": torch.zeros(3)}, "alibi_slopes", "(4,)", "(3,)"),
    "slopes_batch": ({"alibi_slopes": torch.zeros(3, 4)}, "alibi_slopes", "(2, 4)", "(3, 4)"),
    "slopes_dtype": ({"alibi_slopes": torch.zeros(4).half()}, "alibi_slopes", "float32", "float16"),
    "sinks_shape": ({"sinks": torch.zeros(2)}, "sinks", "(4,)", "(2,)"),
    "sinks_dtype": ({"sinks": torch.zeros(4).double()}, "sinks", "float32", "float64"),
    "packed_batch": (PACKED, "q", "a batch of 1", "2"),
    "used_dtype": ({"seqused_k": torch.tensor([1, 2])}, "seqused_k", "int32", "Long"),
    "used_shape": ({"seqused_q": int32(1, 2, 3)}, "seqused_q", "(2,)", "(3,)"),
    "used_long": ({"seqused_q": int32(1, 6)}, "seqused_q", "[0, 5]", "6"),
    "used_negative": ({"seqused_k": int32(-1, 6)}, "seqused_k", "[0, 7]", "-1"),
    "longest_alone": ({"max_seqlen_k": 7}, "max_seqlen_k", "None without cu_seqlens_k", "7"),
}  # fmt: skip
WRONG_PACKED = {
    "rank": ({"cu_seqlens_q": int32(0, 5).reshape(1, 2)}, "cu_seqlens_q", "[N + 1]", "(1, 2)"),
    "counts": ({"cu_seqlens_k": int32(0, 7)}, "cu_seqlens_k", "(3,)", "(2,)"),
    "beyond": ({"cu_seqlens_q": int32(0, 2, 6)}, "cu_seqlens_q", "[0, 5]", "0 to 6"),
    "falling": ({"cu_seqlens_k": int32(0, 5, 3)}, "cu_seqlens_k", "do not fall", "3 after 5"),
    "used": ({"seqused_k": int32(3, 5)}, "seqused_k", "[0, 4]", "5"),
    "longest": ({"max_seqlen_q": 2}, "max_seqlen_q", "at least the longest length, 3", "2"),
}  # fmt: skip


def must_fail(call, op, argument, expected, got):
    with pytest.raises(RuntimeError, match=rf"{op}: {argument}: expected .*, got .*") as error:
        call()
    first = str(error.value).split("\n")[0]
    wanted, came = first.rsplit(", got ", 1)
    assert expected in wanted and got in came, first


@pytest.mark.parametrize("name", WRONG)
def test_wrong_option(name):
    options, argument, expected, got = WRONG[name]
    must_fail(lambda: forward(**options), "attention", argument, expected, got)


@pytest.mark.parametrize("name", WRONG_PACKED)
def test_wrong_layout(name):
    options, argument, expected, got = WRONG_PACKED[name]
    must_fail(
        lambda: forward(tensors(1), **(PACKED | options)), "attention", argument, expected, got
    )


@pytest.mark.parametrize("bias", [None, torch.ones(1, 1, 5, 7, dtype=torch.bool)])
def test_a_gradient_of_no_bias(bias):
    q, k, v = tensors()
    out, lse = forward(bias=bias)
    arguments = [(DEFAULTS | {"bias": bias})[name] for name in NAMES]

    def call():
        torch.ops.suffuse.attention_general_bwd(out, None, q, k, v, out, lse, *arguments, True)

    must_fail(call, re.escape("attention backward"), "bias_grad", "False", "True")
