"""Example calls of causal_conv1d for its tests, and the error rule on all results and gradients of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse import ops
from suffuse.reference.causal_conv1d import causal_conv1d as reference
from suffuse.reference.causal_conv1d import causal_conv1d_update as update_reference
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
    cotangents = [
        torch.randn(y.shape, generator=generator, dtype=DOUBLE).to(BF16).to(y) for y in (out, final)
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


def update_example(
    shape: tuple[int, int, int, int], state_length: int, dtype: torch.dtype = FLOAT,
    ring: bool = False, slots: bool = False,
) -> Tensors:  # fmt: skip
    """A call of causal_conv1d_update. shape: batch, channels, steps (0: one, x [B, D]), width."""
    batch, channels, length, width = shape
    tensors = example((batch, channels, max(length, 1), width), dtype, state=False)
    if length == 0:
        tensors["x"] = tensors["x"][..., 0].contiguous()
    states = 2 * batch + 1 if slots else batch
    tensors["conv_state"] = torch.randn(states, channels, state_length).to(dtype)
    if ring:
        seen = [3 * b + state_length - 1 for b in range(batch)]
        tensors["cache_seqlens"] = torch.tensor(seen, dtype=torch.int32)
    if slots:
        own = [-1 if b == 1 else 2 * b + 1 for b in range(batch)]
        tensors["conv_state_indices"] = torch.tensor(own, dtype=torch.int32)
    return tensors


def check_update(
    tensors: Tensors, function: Callable[..., Tensor] = ops.causal_conv1d_update, **options: Any
) -> Tensor:
    """The error rule on out, and the very state; function: runs the kernel."""
    dtype = tensors["x"].dtype
    kinds = {
        "exact": {k: t.double() if t.is_floating_point() else t for k, t in tensors.items()},
        "plain": {k: t.clone() for k, t in tensors.items()},
        "ours": {k: t.clone() for k, t in tensors.items()},
    }
    exact = update_reference(**kinds["exact"], **options)
    plain = update_reference(**kinds["plain"], **options)
    ours = function(**kinds["ours"], **options)
    assert_close_to_reference(ours, plain, exact, FLOOR[dtype], "out")
    states = kinds["ours"]["conv_state"], kinds["plain"]["conv_state"]
    torch.testing.assert_close(*states, rtol=0, atol=0, equal_nan=True)
    return ours
