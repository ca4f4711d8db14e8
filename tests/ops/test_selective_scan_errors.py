"""Wrong calls of selective_scan: each error names the op, the argument, what was expected and what came."""

from __future__ import annotations

import re

import pytest
import torch
from selective_scan_inputs import Shape, make

from suffuse import ops

SHAPE = Shape(2, 6, 5, 3, G=2)
F64 = torch.float64

# argument -> (what is passed, error, expected, got)
WRONG = {
    "u_rank": ("u", torch.zeros(6, 5), RuntimeError, "[B, D, L]", "(6, 5)"),
    "u_dtype": (
        "u",
        torch.zeros(2, 6, 5, dtype=torch.int64),
        RuntimeError,
        "float64, float32",
        "Long",
    ),
    "u_kind": ("u", [1.0], TypeError, "a tensor", "list"),
    "delta_shape": ("delta", torch.zeros(2, 6, 4), RuntimeError, "(2, 6, 5)", "(2, 6, 4)"),
    "delta_dtype": ("delta", torch.zeros(2, 6, 5, dtype=F64), RuntimeError, "float32", "float64"),
    "delta_none": ("delta", None, TypeError, "a tensor", "NoneType"),
    "z_shape": ("z", torch.zeros(2, 5, 5), RuntimeError, "(2, 6, 5)", "(2, 5, 5)"),
    "A_rank": ("A", torch.zeros(6), RuntimeError, "[D, N]", "(6,)"),
    "A_channels": ("A", torch.zeros(5, 3), RuntimeError, "(6, 3)", "(5, 3)"),
    "B_states": ("B", torch.zeros(2, 2, 4, 5), RuntimeError, "(2, 2, 3, 5)", "(2, 2, 4, 5)"),
    "B_groups": ("B", torch.zeros(2, 4, 3, 5), RuntimeError, "divide the 6 channels", "G = 4"),
    "B_dtype": ("B", torch.zeros(2, 2, 3, 5, dtype=F64), RuntimeError, "float32", "float64"),
    "C_groups": ("C", torch.zeros(2, 3, 3, 5), RuntimeError, "(2, 2, 3, 5)", "(2, 3, 3, 5)"),
    "C_constant": ("C", torch.zeros(6, 4), RuntimeError, "(6, 3)", "(6, 4)"),
    "D_shape": ("D", torch.zeros(5), RuntimeError, "(6,)", "(5,)"),
    "D_kind": ("D", 1.0, TypeError, "a tensor", "float"),
    "delta_bias_shape": ("delta_bias", torch.zeros(6, 1), RuntimeError, "(6,)", "(6, 1)"),
    "initial_state_shape": (
        "initial_state",
        torch.zeros(2, 6, 4),
        RuntimeError,
        "(2, 6, 3)",
        "(2, 6, 4)",
    ),
    "seq_idx_shape": (
        "seq_idx",
        torch.zeros(2, 6, dtype=torch.int32),
        RuntimeError,
        "(2, 5)",
        "(2, 6)",
    ),
    "seq_idx_dtype": (
        "seq_idx",
        torch.zeros(2, 5, dtype=torch.int64),
        RuntimeError,
        "int32",
        "Long",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call(name):
    argument, value, error, expected, got = WRONG[name]
    tensors = {**make(SHAPE, torch.float32), argument: value}
    with pytest.raises(error) as raised:
        ops.selective_scan(**tensors)
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"selective_scan: {argument}: expected ", message), message
    assert expected in message and got in message, message
