"""Wrong calls of sampler_step and step_coefficients: errors name argument, expected, got."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sampler_step_calls import BF16, DOUBLE, FLOAT, HALF

from suffuse.ops import sampler_step, step_coefficients

X = torch.zeros(2, 3, 4)
TABLE = step_coefficients(x=1.0)


def table(**entries: Any) -> torch.Tensor:
    """A table with single entries overwritten by column, past step_coefficients' own checks."""
    changed = TABLE.clone()
    for column, value in entries.items():
        changed[int(column[1:])] = value
    return changed


# name: positional arguments that differ, keyword arguments, parts that the message must have
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no model output": ({"model_outputs": []}, ["model_outputs", "1 to 4 tensors", "got 0"]),
    "five outputs": ({"model_outputs": [X] * 5}, ["model_outputs", "1 to 4 tensors", "got 5"]),
    "five histories": ({"history": [X] * 5}, ["history", "at most 4 tensors", "got 5"]),
    "integer x": ({"x": X.long()}, ["x", "float32", "got Long"]),
    "integer output": ({"model_outputs": [X.int()]}, ["model_outputs[0]", "float32", "got Int"]),
    "output's shape": ({"model_outputs": [X, X[:, :2]]},
                       ["model_outputs[1]", "(2, 3, 4) like x", "got (2, 2, 4)"]),
    "output that would broadcast": ({"model_outputs": [X[:1]]},
                                    ["model_outputs[0]", "(2, 3, 4) like x", "got (1, 3, 4)"]),
    "outputs of two types": ({"model_outputs": [X, X.to(BF16)]},
                             ["model_outputs[1]", "float32 like model_outputs[0]", "got bfloat16"]),
    "float64 output": ({"model_outputs": [X.double()]},
                       ["model_outputs[0]", "float64 with a float64 x", "got float64"]),
    "float64 x": ({"x": X.double()}, ["model_outputs[0]", "float64 with a float64 x", "got float32"]),
    "output's device": ({"model_outputs": [X.to("meta")]}, ["model_outputs[0]", "device cpu", "got meta"]),
    "history's shape": ({"history": [X, X[0]]}, ["history[1]", "(2, 3, 4) like x", "got (3, 4)"]),
    "history's type": ({"history": [X.to(HALF)]}, ["history[0]", "float32 like x", "got float16"]),
    "anchor's type": ({"anchor": X.double()}, ["anchor", "float32 like x", "got float64"]),
    "anchor's shape": ({"anchor": X.permute(2, 1, 0)}, ["anchor", "(2, 3, 4) like x", "got (4, 3, 2)"]),
    "extra's shape": ({"extra": X.reshape(-1)}, ["extra", "(2, 3, 4) like x", "got (24,)"]),
    "noise's shape": ({"noise": X[..., :3]}, ["noise", "(2, 3, 4) like x", "got (2, 3, 3)"]),
    "noise's type": ({"noise": X.to(BF16)}, ["noise", "float32 like x", "got bfloat16"]),
    "coefficients' type": ({"coefficients": TABLE.to(HALF)},
                           ["coefficients", "float32 or float64", "got float16"]),
    "coefficients' columns": ({"coefficients": TABLE[:20]}, ["coefficients", "(21,) or (2, 21)", "got (20,)"]),
    "coefficients' rows": ({"coefficients": TABLE.expand(3, 21)},
                           ["coefficients", "(21,) or (2, 21)", "got (3, 21)"]),
    "coefficient NaN": ({"coefficients": table(_0=math.nan)}, ["coefficients x", "finite", "got nan"]),
    "coefficient inf": ({"coefficients": table(_11=math.inf)},
                        ["coefficients data_from_model", "finite", "got inf"]),
    "coefficient inf in a row": ({"coefficients": torch.stack([TABLE, table(_16=-math.inf)])},
                                 ["coefficients next_scale", "finite", "got -inf"]),
    "negative clip": ({"coefficients": table(_12=-1.0)}, ["coefficients clip", ">= 0", "got -1"]),
    "NaN clip": ({"coefficients": table(_12=math.nan)}, ["coefficients clip", ">= 0", "got nan"]),
    "weight without history": ({"coefficients": table(_4=0.5)},
                               ["coefficients history[1]", "no such operand", "got 0.5"]),
    "weight without anchor": ({"coefficients": table(_7=0.5)},
                              ["coefficients anchor", "no such operand", "got 0.5"]),
    "weight without noise": ({"coefficients": table(_9=0.5)},
                             ["coefficients noise", "no such operand", "got 0.5"]),
    "weight without output": ({"coefficients": table(_18=0.5)},
                              ["coefficients guidance[1]", "no such operand", "got 0.5"]),
    "negative seed": ({"noise": (-1, 0)}, ["noise seed", "0 <= seed", "-1"]),
    "huge seed": ({"noise": (2**63, 0)}, ["noise seed", "< 2**63", str(2**63)]),
    "negative offset": ({"noise": (0, -5)}, ["noise offset", "0 <= offset", "-5"]),
    "noise of one int": ({"noise": 3}, ["noise", "pair of ints", "3"]),
    "noise of three ints": ({"noise": (1, 2, 3)}, ["noise", "pair of ints", "(1, 2, 3)"]),
    "noise of floats": ({"noise": (1.5, 2)}, ["noise", "pair of ints", "1.5"]),
    "quantile above 1": ({"threshold": (1.5, 2.0)}, ["quantile", "<= 1", "got 1.5"]),
    "quantile NaN": ({"threshold": (math.nan, 2.0)}, ["quantile", "<= 1", "got nan"]),
    "maximum below 1": ({"threshold": (0.9, 0.5)}, ["maximum", ">= 1", "got 0.5"]),
    "threshold of one number": ({"threshold": 0.9}, ["threshold", "pair of numbers", "0.9"]),
    "integer next input": ({"next_input": torch.int32}, ["next_input", "float32", "got Int"]),
    "float64 next input": ({"next_input": DOUBLE}, ["next_input", "float32", "got float64"]),
    "float32 next input of float64": (
        {"x": X.double(), "model_outputs": [X.double()], "next_input": FLOAT},
        ["next_input", "float64", "got float32"]),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "parts"), WRONG.values(), ids=WRONG.keys())
def test_wrong_call(changes: dict[str, Any], parts: list[str]):
    arguments = {"x": X, "model_outputs": [X], "coefficients": TABLE} | changes
    positional = [arguments.pop(name) for name in ("x", "model_outputs", "coefficients")]
    with pytest.raises((RuntimeError, ValueError, TypeError)) as error:
        sampler_step(*positional, **arguments)
    message = str(error.value).splitlines()[0]
    assert message.startswith("sampler_step: ")
    for part in parts:
        assert part in message


WRONG_COEFFICIENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "NaN": ({"data": math.nan}, ["data", "finite"]),
    "inf": ({"guidance": (1.0, math.inf)}, ["guidance[1]", "finite"]),
    "inf in a tensor": ({"x": torch.tensor([1.0, math.inf])}, ["x", "finite"]),
    "NaN clip": ({"clip": math.nan}, ["clip", "NaN"]),
    "negative clip": ({"clip": -0.5}, ["clip", ">= 0", "-0.5"]),
    "too much history": ({"history": [0.1] * 5}, ["history", "at most 4", "5 entries"]),
    "too much guidance": ({"guidance": [0.1] * 5}, ["guidance", "at most 4", "5 entries"]),
    "two converted": ({"converted": (0.0, 1.0)}, ["converted", "expected 3", "2 entries"]),
    "two batch sizes": ({"x": [1.0, 2.0], "model": [1.0, 2.0, 3.0]}, ["(2,)", "(3,)", "one (B,)"]),
    "matrix": ({"x": torch.zeros(2, 2)}, ["(2, 2)", "one (B,)"]),
    "half precision": ({"dtype": BF16}, ["dtype", "float32 or float64", "bfloat16"]),
}


@pytest.mark.parametrize(
    ("entries", "parts"), WRONG_COEFFICIENTS.values(), ids=WRONG_COEFFICIENTS.keys()
)
def test_wrong_coefficients(entries: dict[str, Any], parts: list[str]):
    with pytest.raises(ValueError, match="step_coefficients: ") as error:
        step_coefficients(**entries)
    for part in parts:
        assert part in str(error.value)


def test_columns():
    row = step_coefficients(
        x=0, model=1, data=2, history=(3, 4, 5, 6), anchor=7, extra=8, noise=9, data_from_x=10,
        data_from_model=11, clip=12, converted=(13, 14, 15), next_scale=16,
        guidance=(17, 18, 19, 20),
    )  # fmt: skip
    assert row.tolist() == list(range(21))


def test_per_sample_entries_make_rows_and_keep_gradients():
    weight = torch.tensor([0.1, 0.2, 0.3], dtype=DOUBLE, requires_grad=True)
    rows = step_coefficients(x=weight, noise=torch.tensor(2.0), history=[[4, 5, 6]], dtype=DOUBLE)
    assert rows.shape == (3, 21)
    assert rows[:, 9].tolist() == [2, 2, 2] and rows[:, 3].tolist() == [4, 5, 6]
    (grad,) = torch.autograd.grad(rows.sum(), weight)
    assert grad.tolist() == [1, 1, 1]
