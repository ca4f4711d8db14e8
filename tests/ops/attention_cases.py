"""Operands of attention with any feature, and their gradients by the formula in any dtype."""

from __future__ import annotations

from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from suffuse.reference import attention as formula


class Case(NamedTuple):
    """Operands, their cotangents and the options of `suffuse.attention`."""

    tensors: dict[str, Tensor]  # q, k, v and, where its gradient is asked, bias
    grad_out: Tensor
    grad_lse: Tensor
    options: dict[str, Any]


def make(
    B: int, T: int, S: int, H: int, G: int, D: int, Dv: int, dtype: torch.dtype, *,
    numbers: int = 0, bias: Tensor | None = None, bias_grad: bool = False, **options: Any,
) -> Case:  # fmt: skip
    """q [B, T, H, D] and so on, `numbers` their seed; packed: B is 1, T and S count all rows."""
    generator = torch.Generator().manual_seed(numbers)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    tensors = {"q": normal(B, T, H, D), "k": normal(B, S, G, D), "v": normal(B, S, G, Dv)}
    grad_out, grad_lse = normal(B, T, H, Dv), normal(B, H, T).float()
    if bias is not None and bias_grad:
        tensors["bias"] = bias
    elif bias is not None:
        options["bias"] = bias
    return Case(tensors, grad_out, grad_lse, options)


def gradients(case: Case, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """By the formula in that dtype, every step of it; also out and lse."""
    leaves = {
        name: (x if dtype is None else x.to(dtype)).clone().requires_grad_()
        for name, x in case.tensors.items()
    }
    wide = case.tensors["q"].dtype if dtype is None else dtype
    options = dict(case.options)
    for name in ("bias", "alibi_slopes", "sinks"):
        if name in options and options[name].dtype != torch.bool:
            options[name] = options[name].to(wide)
    with mock.patch.object(formula, "_wide", lambda dtype: dtype):
        out, lse = formula.attention(**leaves, **options, return_lse=True)
    inside = lse.isfinite()
    grads = torch.autograd.grad(
        (out, lse[inside]),
        tuple(leaves.values()),
        (case.grad_out.to(out.dtype), case.grad_lse.to(lse.dtype)[inside]),
    )
    return {"out": out.detach(), "lse": lse.detach(), **dict(zip(leaves, grads, strict=True))}
