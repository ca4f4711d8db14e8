"""Example calls of qk_norm for its tests, and the error rule on both results and all gradients of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from ops.rotary_calls import BF16, DOUBLE, DTYPES, FLOAT, FLOOR, HALF, angles
from ops.rotary_calls import plain as plain_rotary
from torch import Tensor

from suffuse import ops
from suffuse.reference.qk_norm import qk_norm as reference
from suffuse.testing import assert_close_to_reference

__all__ = ["BF16", "DOUBLE", "DTYPES", "FLOAT", "HALF", "Tensors", "check", "example", "results"]

Tensors = dict[str, Tensor]


def example(
    shape: tuple[int, int, int, int, int], rotated: int | None = None, dtype: torch.dtype = FLOAT,
    weights: bool = True, own: bool = False, seed: int = 0,
) -> Tensors:  # fmt: skip
    """shape: batch, steps, heads of q, heads of k, columns. rotated: None for no tables."""
    batch, length, heads, groups, columns = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=DOUBLE)

    wide = DOUBLE if dtype == DOUBLE else FLOAT
    tensors = {
        "q": (3 * normal(batch, length, heads, columns)).to(dtype),
        "k": (0.5 * normal(batch, length, groups, columns)).to(dtype),
    }
    if weights:
        tensors |= {name: (1 + normal(columns)).to(wide) for name in ("q_weight", "k_weight")}
    if rotated is not None:
        tables = angles(length + 2, rotated // 2, wide)
        if own:
            tables = tuple(torch.stack([t.roll(b, 0) for b in range(batch)]) for t in tables)  # type: ignore[assignment]
        tensors |= dict(zip(("cos", "sin"), tables, strict=True))
    return tensors


def plain(
    q: Tensor, k: Tensor, q_weight: Tensor | None = None, k_weight: Tensor | None = None, *,
    eps: float = 1e-6, cos: Tensor | None = None, sin: Tensor | None = None,
    interleaved: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What one writes without the op: torch's own norm, and the rotation as transformers has it."""
    found = []
    for x, weight in ((q, q_weight), (k, k_weight)):
        y = F.rms_norm(x, x.shape[-1:], None if weight is None else weight.to(x.dtype), eps)
        if cos is not None and sin is not None:
            y = plain_rotary(y, cos, sin, interleaved=interleaved)
        found.append(y)
    return found[0], found[1]


def results(function: Callable[..., Any], tensors: Tensors, **options: Any) -> Tensors:
    """Both results, and the gradients of all tensors but the tables."""
    leaves = {name: x.detach().clone() for name, x in tensors.items()}
    wanted = {name: x.requires_grad_() for name, x in leaves.items() if name not in ("cos", "sin")}
    out = function(**leaves, **options)
    generator = torch.Generator().manual_seed(1)
    cotangents = [
        torch.randn(y.shape, generator=generator, dtype=DOUBLE).to(BF16).to(y) for y in out
    ]
    grads = torch.autograd.grad(out, list(wanted.values()), cotangents)
    named = {f"out {name}": y.detach() for name, y in zip("qk", out, strict=True)}
    return {**named, **dict(zip(wanted, grads, strict=True))}


def check(tensors: Tensors, function: Callable[..., Any] = ops.qk_norm, **options: Any) -> Tensors:
    """The error rule; function: runs the kernel."""
    dtype = tensors["q"].dtype
    exact = results(reference, {name: x.double() for name, x in tensors.items()}, **options)
    naive = results(plain, tensors, **options)
    ours = results(function, tensors, **options)
    for name, value in ours.items():
        assert_close_to_reference(value, naive[name], exact[name], FLOOR[dtype], name)
    return ours
