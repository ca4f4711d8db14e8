"""Example calls of sampler_step for its tests, and the error rule on every output of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suffuse.ops import SamplerStep, sampler_step, step_coefficients
from suffuse.reference import sampler_step as formula
from suffuse.testing import assert_close_to_reference

OP = torch.ops.suffuse.sampler_step.default
FLOAT, HALF, BF16, DOUBLE = torch.float32, torch.float16, torch.bfloat16, torch.float64
MIXES = [(x, m) for x in (FLOAT, BF16, HALF) for m in (FLOAT, BF16, HALF)] + [(DOUBLE, DOUBLE)]

# Relative errors that are always allowed: the kernel rounds in another order than plain torch.
FLOOR = {FLOAT: 1e-7, HALF: 1e-5, BF16: 1e-4, DOUBLE: 1e-15}
MADE_NOISE_FLOOR = 1e-6  # a normal number made in the kernel, against one made in float64

Call = tuple[Tensor, list[Tensor], Tensor, dict[str, Any]]


def coefficients(outputs: int, history: int, rows: int | None = None, **others: Any) -> Tensor:
    """[21], or [rows, 21] with rows that differ, in float64: weights for that many operands."""
    entries: dict[str, Any] = {
        "x": 0.7, "model": -0.2, "data": 0.9, "history": [0.5, -0.3, 0.2, -0.1][:history],
        "data_from_x": 1.3, "data_from_model": -0.8, "clip": 1.5, "converted": (0.2, 0.5, -0.6),
        "next_scale": 0.4, "guidance": [2.5, -1.5, 0.3, -0.2][:outputs],
    }  # fmt: skip
    entries.update(others)
    if rows is not None:
        entries["x"] = torch.linspace(-1, 1, rows, dtype=DOUBLE)
        entries["next_scale"] = [0.5 + row for row in range(rows)]
    return step_coefficients(**entries, dtype=DOUBLE)


def example(
    shape: tuple[int, ...] = (3, 5, 7),
    dtype: torch.dtype = FLOAT,
    model_dtype: torch.dtype | None = None,
    *,
    outputs: int = 1,
    history: int = 0,
    operands: tuple[str, ...] = (),
    per_sample: bool = False,
    clip: float = 1.5,
    **options: Any,
) -> Call:
    """A call with random operands; ``operands``: which of anchor, extra and noise it has."""
    x = torch.randn(shape).to(dtype)
    models = [torch.randn(shape).to(model_dtype or dtype) for _ in range(outputs)]
    kwargs = {name: torch.randn(shape).to(dtype) for name in operands} | options
    kwargs["history"] = [torch.randn(shape).to(dtype) for _ in range(history)]
    weights = {name: 0.35 for name in kwargs if name in ("anchor", "extra", "noise")}
    table = coefficients(outputs, history, shape[0] if per_sample else None, clip=clip, **weights)
    return x, models, table, kwargs


def cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype)
    return [cast(v, dtype) for v in value] if isinstance(value, list) else value


def check(
    x: Tensor,
    models: list[Tensor],
    table: Tensor,
    kwargs: dict[str, Any],
    may_cancel: bool = False,
    step: Callable[..., SamplerStep] = sampler_step,
) -> SamplerStep:
    """The error rule on every output, with the coefficients that the kernel sees.

    step: runs the kernel, with the arguments of sampler_step.
    may_cancel: for shapes drawn at random, where a result of one or two numbers can be far smaller than its terms.
    """
    table = table if x.dtype == DOUBLE else table.float()
    actual = step(x, models, table, **kwargs)
    plain = formula.sampler_step(x, models, table, **kwargs)
    wide = {name: cast(value, DOUBLE) for name, value in kwargs.items()}
    wide["next_input"] = DOUBLE if kwargs.get("next_input") else None
    reference = formula.sampler_step(x.double(), cast(models, DOUBLE), table.double(), **wide)
    extra = MADE_NOISE_FLOOR if isinstance(kwargs.get("noise"), tuple) else 0
    for name, a, p, r in zip(SamplerStep._fields, actual, plain, reference, strict=True):
        if p is None or r is None:
            assert a is None, name
        else:
            assert a is not None and a.is_contiguous(), name
            floor = FLOOR[a.dtype] + extra
            if may_cancel:
                floor *= cancellation(x, models, kwargs, r)
            assert_close_to_reference(a, p, r, floor, name)
    return actual


def cancellation(x: Tensor, models: list[Tensor], kwargs: dict[str, Any], result: Tensor) -> float:
    """How much smaller than its terms the result is, if more than 4 times: rounding goes with the terms."""
    others = [kwargs[name] for name in ("anchor", "extra", "noise") if name in kwargs]
    terms = [x, *models, *kwargs.get("history", []), *(t for t in others if isinstance(t, Tensor))]
    size = float(sum(t.double().nan_to_num(0, 0, 0).norm() ** 2 for t in terms)) ** 0.5
    norm = float(result.nan_to_num(0, 0, 0).norm())
    return max(1.0, size / norm / 4) if norm > 0 else 1.0
