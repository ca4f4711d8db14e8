"""Causal convolution of new steps behind a state that is kept between calls, as generation has it."""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch op below)
from suffuse.ops._causal_conv1d_common import (
    as_type,
    check_tensors,
    empty_like_rows,
    is_silu,
    wide_like,
)
from suffuse.ops._dispatch import has_kernel, needs_gradient
from suffuse.reference import causal_conv1d as formula

_op = torch.ops.suffuse.causal_conv1d_update.default


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """`causal_conv1d` of one or a few new steps; the inputs before them are a state, updated in place.

    Without ``cache_seqlens`` the state holds the last S inputs in their order, and moves up. With it
    the state is a ring: step t of this call goes to place (cache_seqlens + t) mod S, and the W - 1
    places before cache_seqlens are what came before.

    Gradients flow to x, weight and bias, through the plain PyTorch formula, which is slower: call it
    under ``torch.no_grad()`` to generate. The state is data.

    Args:
        x: the new inputs [B, D], or [B, D, L] for L steps; float64, float32, bfloat16 or float16.
        conv_state: [B, D, S] with S >= W - 1, in x's dtype, or [N, D, S] with conv_state_indices;
            channels or steps are adjacent in memory. Updated in place.
        weight: [D, W], any width of 1 or more, any real dtype.
        bias: [D], or None.
        activation: None, "silu" or "swish" (the same).
        cache_seqlens: int32 [B], the number of inputs that each ring has seen; None: no ring.
        conv_state_indices: int32 [B], which of the N states a batch entry has, no state twice;
            negative: padding, of which out is 0 and that touches no state. None: its own. An index
            of N or more is an error on the CPU and undefined on CUDA, where values are not looked
            at.

    Returns:
        out in x's shape and dtype.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: another activation; a conv_state that needs a gradient.
        RuntimeError: shapes, dtypes, devices, layouts or indices do not fit.
    """
    op = "causal_conv1d_update"
    check_tensors(
        op, ("x", "conv_state", "weight"), x=x, conv_state=conv_state, weight=weight, bias=bias,
        cache_seqlens=cache_seqlens, conv_state_indices=conv_state_indices,
    )  # fmt: skip
    silu = is_silu(op, activation)
    steps = x.unsqueeze(2) if x.dim() == 2 else x
    weight = as_type(weight, wide_like(x))
    bias = None if bias is None else as_type(bias, weight.dtype)
    if needs_gradient(conv_state):
        raise ValueError(
            f"{op}: conv_state: expected a tensor without gradient, got one that needs it"
        )
    operands = (steps, conv_state, weight, bias, cache_seqlens, conv_state_indices, silu)
    if needs_gradient(x, weight, bias) or not has_kernel(op, x):
        out = formula.causal_conv1d_update_fwd(*operands)
    else:
        out = _op(*operands)
    return out.squeeze(2) if x.dim() == 2 else out


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """The last inputs of each of several sequences in one row, as `causal_conv1d_update` takes them.

    Differentiable, any dtype and device.

    Args:
        x: the inputs of all sequences, one after another [T, D].
        cu_seqlens: where they begin, and T [B + 1], integers that do not decrease.
        state_len: how many inputs to keep.

    Returns:
        [B, D, state_len], the last input last, 0 before the first of a sequence. The channels are
        adjacent in memory.

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: shapes do not fit.
    """
    op = "causal_conv1d_varlen_states"
    check_tensors(op, ("x", "cu_seqlens"), x=x, cu_seqlens=cu_seqlens)
    for name, tensor, dims, shape in (
        ("x", x, 2, "[T, D]"),
        ("cu_seqlens", cu_seqlens, 1, "[B + 1]"),
    ):
        if tensor.dim() != dims:
            raise RuntimeError(f"{op}: {name}: expected shape {shape}, got {tuple(tensor.shape)}")
    if state_len < 0:
        raise RuntimeError(f"{op}: state_len: expected 0 or more, got {state_len}")
    return formula.causal_conv1d_varlen_states(x, cu_seqlens, state_len)


@torch.library.register_fake("suffuse::causal_conv1d_update")
def _fake(
    x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None,
    cache_seqlens: Tensor | None, conv_state_indices: Tensor | None, silu: bool,
) -> Tensor:  # fmt: skip
    return empty_like_rows(x)
