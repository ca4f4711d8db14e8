"""Causal depthwise convolution with bias and SiLU, forward and backward, of any width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops._causal_conv1d_common import (
    as_type,
    check_tensors,
    empty_like_rows,
    is_silu,
    wide_like,
)
from suffuse.ops._causal_conv1d_update import causal_conv1d_update, causal_conv1d_varlen_states
from suffuse.ops._dispatch import has_kernel, needs_gradient, refuse_forward_mode
from suffuse.reference import causal_conv1d as formula

__all__ = ["causal_conv1d", "causal_conv1d_update", "causal_conv1d_varlen_states"]

_fwd = torch.ops.suffuse.causal_conv1d_fwd.default
_bwd = torch.ops.suffuse.causal_conv1d_bwd.default


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    seq_idx: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise convolution along time that sees no later step, as Mamba has it before its scan.

    ::

        out_t = act(bias + sum_k weight_k x_{t - W + 1 + k})

    The steps before the first are the initial state. Sums are float32 (float64 for a float64 x).
    Bitwise repeatable for any number of threads; differentiable twice.

    Args:
        x: input [B, D, L]; float64, float32, bfloat16 or float16. Rows of adjacent steps or of
            adjacent channels are read in place, other layouts are copied.
        weight: [D, W], any width of 1 or more, any real dtype; the last tap is the present.
        bias: [D], or None.
        activation: None, "silu" or "swish" (the same).
        initial_state: the W - 1 inputs before the first step [B, D, W - 1]; None is 0.
        return_final_state: also return the last W - 1 inputs, initial state included.
        seq_idx: int32 [B, L]: sequences packed into one row. A step sees the steps of its own
            sequence only; the initial state belongs to the first one, the final state to the last.
            Negative: padding, of which out is 0.

    Returns:
        out [B, D, L] in x's dtype and layout, or ``(out, final_state)`` with final_state
        [B, D, W - 1] in x's dtype. Gradients flow through both.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: another activation.
        RuntimeError: shapes, dtypes or devices do not fit.
        NotImplementedError: forward-mode differentiation.
    """
    op = "causal_conv1d"
    check_tensors(
        op, ("x", "weight"), x=x, weight=weight, bias=bias, initial_state=initial_state,
        seq_idx=seq_idx,
    )  # fmt: skip
    silu, wide = is_silu(op, activation), wide_like(x)
    if initial_state is not None:
        initial_state = as_type(initial_state, x.dtype)
    weights = as_type(weight, wide), bias if bias is None else as_type(bias, wide)
    operands = (x, *weights, initial_state, seq_idx)
    if not has_kernel(op, x):
        out = formula.causal_conv1d_fwd(*operands, silu)
    elif needs_gradient(*operands):
        out = _CausalConv1d.apply(*operands, silu)
    else:
        refuse_forward_mode(op, *operands)
        out = _fwd(*operands, silu)
    if not return_final_state:
        return out
    return out, formula.final_state(x, weight.shape[1], initial_state, seq_idx)


class _CausalConv1d(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None,
        seq_idx: Tensor | None, silu: bool,
    ) -> Tensor:  # fmt: skip
        return _fwd(x, weight, bias, initial, seq_idx, silu)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.silu = inputs[5]
        ctx.save_for_backward(*inputs[:5])

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:
        operands = ctx.saved_tensors
        grads = _CausalConv1dBackward.apply(grad_out, *operands, ctx.silu)
        wanted = [
            grad if x is not None and need else None
            for grad, x, need in zip(grads, operands[:4], ctx.needs_input_grad[:4], strict=True)
        ]
        return (*wanted, None, None)


class _CausalConv1dBackward(torch.autograd.Function):
    """The gradients. Their own backward pass differentiates the reference formula."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None,
        seq_idx: Tensor | None, silu: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        return _bwd(grad_out, x, weight, bias, initial, seq_idx, silu)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.silu = inputs[6]
        ctx.save_for_backward(*inputs[:6])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        grad_out, *operands = ctx.saved_tensors
        there = [i for i in range(4) if operands[i] is not None]

        def gradients(grad: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
            def forward(*given: Tensor) -> Tensor:
                full = list(operands)
                for i, value in zip(there, given, strict=True):
                    full[i] = value
                return formula.causal_conv1d_fwd(*full, ctx.silu)  # type: ignore[call-arg]

            return torch.func.vjp(forward, *variables)[1](grad)

        _, pull = torch.func.vjp(gradients, grad_out, *(operands[i] for i in there))  # type: ignore[misc]
        results = pull(tuple(cotangents[i] for i in there))
        by_operand = dict(zip(there, results[1:], strict=True))
        return (results[0], *(by_operand.get(i) for i in range(4)), None, None)


@torch.library.register_fake("suffuse::causal_conv1d_fwd")
def _fwd_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None,
    seq_idx: Tensor | None, silu: bool,
) -> Tensor:  # fmt: skip
    return empty_like_rows(x)


@torch.library.register_fake("suffuse::causal_conv1d_bwd")
def _bwd_fake(
    grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None,
    initial_state: Tensor | None, seq_idx: Tensor | None, silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, channels, _ = x.shape
    width = weight.shape[1]
    return (
        empty_like_rows(x),
        weight.new_empty(channels, width),
        weight.new_empty(channels),
        x.new_empty(batch, channels, width - 1 if initial_state is not None else 0),
    )
