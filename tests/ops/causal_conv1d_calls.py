"""Example calls of causal_conv1d for its tests, and the error rule on all results and gradients of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse import ops
from suffuse.reference.causal_conv1d import causal_conv1d as reference
from suffuse.testing import assert_close_to_reference

DOUBLE, FLOAT, BF16, HALF = torch.float64, torch.float32, torch.bfloat16, torch.float16
DTYPES = (DOUBLE, FLOAT, BF16, HALF)
FLOOR = {dtype: (4 if dtype.itemsize > 2 else 0.5) * torch.finfo(dtype).eps for dtype in DTYPES}

Tensors = dict[str, Tensor]


def example(
    shape: tuple[int, int, int, int], dtype: torch.dtype = FLOAT, seed: int = 0, state: bool = True
) -> Tensors:
    """shape: batch, channels, steps, width."""
    batch, channels, length, width = shape
    generator = torch.Generator().manual_seed(seed)
    wide = DOUBLE if dtype == DOUBLE else FLOAT

    def normal(*size: int, to: torch.dtype = dtype) -> Tensor:
        return torch.randn(size, generator=generator, dtype=DOUBLE).to(to)

    tensors = {
        "x": normal(batch, channels, length),
        "weight": normal(channels, width, to=wide),
        "bias": normal(channels, to=wide),
    }
    return {**tensors, "initial_state": normal(batch, channels, width - 1)} if state else tensors


def channels_last(tensors: Tensors) -> Tensors:
    """The same with the channels of a step adjacent in memory."""
    return {**tensors, "x": tensors["x"].transpose(1, 2).contiguous().transpose(1, 2)}


def packed(batch: int, length: int) -> Tensor:
    """Sequence indices [B, L] with short and long sequences, and padding between them."""
    cuts = [0, 1, 2, 5, 6, length // 3, length // 3 + 2, length // 2, length]
    index = torch.zeros(batch, length, dtype=torch.int32)
    for b in range(batch):
        for i, cut in enumerate(cuts):
            index[b, max(0, cut - b) :] = -1 if i in (3, 6) else i
    return index


def plain(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = None,
    initial_state: Tensor | None = None, return_final_state: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What one writes without the op: torch's own convolution, in the dtype of the weight."""
    if initial_state is None:
        initial_state = x.new_zeros(*x.shape[:2], weight.shape[1] - 1)
    window = torch.cat([initial_state, x], 2)
    out = F.conv1d(window.to(weight.dtype), weight[:, None], bias, groups=x.shape[1])
    out = F.silu(out) if activation else out
    return out.to(x.dtype), window[..., x.shape[2] :]


def results(function: Callable[..., Any], tensors: Tensors, **options: Any) -> Tensors:
    """out, the final state and the gradients of all tensors."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    out, final = function(**leaves, **options, return_final_state=True)
    generator = torch.Generator().manual_seed(1)
    dtype = tensors["x"].dtype
    cotangents = [
        torch.randn(y.shape, generator=generator, dtype=DOUBLE).to(BF16).to(dtype)
        for y in (out, final)
    ]
    grads = torch.autograd.grad(
        (out, final), list(leaves.values()), cotangents, materialize_grads=True
    )
    return {"out": out.detach(), "final": final.detach(), **dict(zip(leaves, grads, strict=True))}


def check(
    tensors: Tensors, function: Callable[..., Any] = ops.causal_conv1d, **options: Any
) -> Tensors:
    """The error rule; function: runs the kernel."""
    dtype = tensors["x"].dtype
    exact = results(reference, {name: x.double() for name, x in tensors.items()}, **options)
    if options.get("seq_idx") is None:
        naive = results(plain, tensors, **{k: v for k, v in options.items() if k != "seq_idx"})
    else:  # torch has no convolution of packed sequences
        naive = results(reference, tensors, **options)
    ours = results(function, tensors, **options)
    for name, value in ours.items():
        plain_value = naive[name].to(value.dtype)
        assert_close_to_reference(value, plain_value, exact[name], FLOOR[dtype], name)
    return ours
