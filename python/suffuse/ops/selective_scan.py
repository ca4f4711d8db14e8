"""The selective state-space scan of Mamba, forward and backward, without a [B, D, L, N] tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops._dispatch import has_kernel, refuse_forward_mode
from suffuse.ops._selective_scan_common import fits_cuda
from suffuse.ops._selective_scan_update import selective_state_update
from suffuse.reference import selective_scan as formula

__all__ = ["selective_scan", "selective_state_update"]

_fwd = torch.ops.suffuse.selective_scan_fwd.default
_bwd = torch.ops.suffuse.selective_scan_bwd.default
_TENSORS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "seq_idx")


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective scan (Gu and Dao 2023, "Mamba", algorithm 2), gate and skip included.

    With delta' = delta + delta_bias, through softplus if `delta_softplus`::

        h_t = exp(delta'_t A) h_{t-1} + delta'_t B_t u_t
        out_t = (C_t h_t + D u_t) silu(z_t)

    States are float32 (float64 for a float64 u). The backward pass makes the states again from one
    in 16 (on the CPU 32 for N > 16, 64 for N > 64, and 256 where B D is so small that time, not
    channels, is on the lanes). Bitwise repeatable, on the CPU for any number of
    threads; differentiable twice. CUDA kernels take up to 256 states and no float64: beyond, the
    plain PyTorch formula runs there.

    Args:
        u: input [B, D, L]; float64, float32, bfloat16 or float16. Rows of adjacent steps or, unless
            time is on the lanes, of adjacent channels are read in place, other layouts are copied.
        delta: step sizes [B, D, L], u's dtype.
        A: decay rates [D, N], usually negative, of any real dtype. A complex A takes the reference
            formula, with complex B and C and out = 2 Re(C_t h_t).
        B, C: [B, N, L] or [B, G, N, L] in u's dtype, shared by the D / G channels of a group; or
            [D, N], the same at all steps.
        D: weight of the skip connection [D], or None.
        z: gate [B, D, L] in u's dtype, or None.
        delta_bias: [D], or None.
        delta_softplus: whether delta + delta_bias goes through softplus.
        initial_state: the state before the first step [B, D, N]; None is 0.
        return_last_state: also return the state after the last step.
        seq_idx: int32 [B, L]; the state starts from 0 again wherever the index differs from that of
            the step before, so that sequences can be packed into one row.
        reverse: whether time runs from the last step to the first.

    Returns:
        out [B, D, L] in u's dtype, or ``(out, last_state)`` with last_state [B, D, N], float32 or
        float64. Gradients flow through both.

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: shapes, dtypes or devices do not fit.
        NotImplementedError: forward-mode differentiation.
    """
    given = (u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    for name, value in zip(_TENSORS, given, strict=True):
        if not isinstance(value, Tensor) and (value is not None or name in _TENSORS[:5]):
            got = type(value).__name__
            raise TypeError(f"selective_scan: {name}: expected a tensor, got {got}")
    if A.is_complex() or not has_kernel("selective_scan", u, fits_cuda(u.dtype, A.shape[-1])):
        out, last = formula.selective_scan_fwd(*given, delta_softplus, reverse)  # type: ignore[arg-type]
        return (out, last) if return_last_state else out
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    B = B.to(wide) if B.dim() == 2 else B.unsqueeze(1) if B.dim() == 3 else B
    C = C.to(wide) if C.dim() == 2 else C.unsqueeze(1) if C.dim() == 3 else C
    small = [x if x is None else x.to(wide) for x in (D, delta_bias, initial_state)]
    operands = (u, delta, A.to(wide), B, C, small[0], z, small[1], small[2], seq_idx)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in operands):
        out, last, *_ = _SelectiveScan.apply(*operands, delta_softplus, reverse)
    else:
        refuse_forward_mode("selective_scan", *operands)
        out, last, *_ = _fwd(*operands, delta_softplus, reverse, False)
    return (out, last) if return_last_state else out


class _SelectiveScan(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _fwd(*inputs, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.softplus, ctx.reverse = inputs[10], inputs[11]
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*inputs[:10], *output[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, *_: Any) -> Any:
        *operands, states, ungated = ctx.saved_tensors
        if grad_out is None:
            if grad_last is None:
                return (None,) * 12
            grad_out = torch.zeros_like(operands[0])
        grads = _SelectiveScanBackward.apply(
            grad_out, grad_last, *operands, states, ungated, ctx.softplus, ctx.reverse
        )
        wanted = [
            grad if x is not None and need else None
            for grad, x, need in zip(grads, operands[:9], ctx.needs_input_grad[:9], strict=True)
        ]
        return (*wanted, None, None, None)


class _SelectiveScanBackward(torch.autograd.Function):
    """The gradients. Their own backward pass differentiates the reference formula."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad_out: Tensor, grad_last: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, B: Tensor,
        C: Tensor, D: Tensor | None, z: Tensor | None, bias: Tensor | None, initial: Tensor | None,
        seq_idx: Tensor | None, states: Tensor, ungated: Tensor, softplus: bool, reverse: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        return _bwd(
            grad_out, grad_last, u, delta, A, B, C, D, z, bias, seq_idx, states, ungated, softplus,
            reverse,
        )  # fmt: skip

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        grad_out, grad_last, *operands = inputs[:12]
        ctx.softplus, ctx.reverse = inputs[-2:]
        ctx.save_for_backward(grad_out, grad_last, *operands)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        grad_out, grad_last, *operands = ctx.saved_tensors
        there = [i for i, x in enumerate(operands[:9]) if x is not None]
        outputs = [grad_out] if grad_last is None else [grad_out, grad_last]

        def gradients(*variables: Tensor) -> tuple[Tensor, ...]:
            inputs, grads = variables[: len(there)], variables[len(there) :]

            def forward(*given: Tensor) -> tuple[Tensor, ...]:
                full = list(operands)
                for i, x in zip(there, given, strict=True):
                    full[i] = x
                result = formula.selective_scan_fwd(*full, ctx.softplus, ctx.reverse)  # type: ignore[call-arg]
                return result[: len(grads)]

            return torch.func.vjp(forward, *inputs)[1](grads)

        _, pull = torch.func.vjp(gradients, *(operands[i] for i in there), *outputs)  # type: ignore[misc]
        results = pull(tuple(cotangents[i] for i in there))
        by_operand = dict(zip(there, results, strict=False))
        rest = list(results[len(there) :])
        return (
            rest[0], rest[1] if grad_last is not None else None,
            *(by_operand.get(i) for i in range(9)), *(None,) * 5,
        )  # fmt: skip


@torch.library.register_fake("suffuse::selective_scan_fwd")
def _fwd_fake(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, seq_idx: Tensor | None,
    delta_softplus: bool, reverse: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    last = A.new_empty(u.shape[0], *A.shape)
    saved = _saved_fake(u, A, B, C) if save else A.new_empty(0)
    ungated = u.new_empty(u.shape if save and z is not None and u.is_cuda else 0)
    return u.new_empty(u.shape), last, saved, ungated


def _saved_fake(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The states that the forward pass saves."""
    (batch, channels, length), states = u.shape, A.shape[1]
    if u.is_cuda:
        return A.new_empty(batch, (length + 15) // 16, channels, states)
    groups = B.shape[1] if B.dim() == 4 else C.shape[1] if C.dim() == 4 else 1
    blocks = groups * -(-channels // groups // 16)
    if _takes_panels(batch, channels, length, states, groups, blocks):
        return A.new_empty(batch, channels, -(-length // 256), states)
    chunk = 16 if states <= 16 else 32 if states <= 64 else 64
    return A.new_empty(batch, blocks, -(-length // chunk), states, 16)


def _takes_panels(
    batch: int, channels: int, length: int, states: int, groups: int, blocks: int
) -> bool:
    """scan_takes_panels of the CPU kernels."""
    units, pairs = batch * blocks, batch * groups
    if units == 0 or states == 0:
        return False
    least = 4 if states < 16 else 8 if states < 32 else 16
    parts = min(-(-states // least), -(-8 // units))
    of_channels = min(-(-8 // pairs), channels // groups)
    of_states = min(-(-8 // (pairs * of_channels)), -(-states // 4))
    in_panels = 7 * batch * channels * min(units * parts, 2)
    in_blocks = 5 * units * 16 * min(pairs * of_channels * of_states, 2)
    # The first says no for any length, which may be symbolic.
    return in_panels < in_blocks and in_panels * (-(-length // 256) * 256) < in_blocks * length


@torch.library.register_fake("suffuse::selective_scan_bwd")
def _bwd_fake(
    grad_out: Tensor, grad_last: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, B: Tensor,
    C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
    seq_idx: Tensor | None, states: Tensor, ungated: Tensor, delta_softplus: bool, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, channels, _ = u.shape

    def dense(like: Tensor) -> Tensor:
        return like.new_empty(like.shape)

    return (
        dense(u), dense(u), dense(A), dense(B), dense(C), A.new_empty(channels),
        u.new_empty(u.shape if z is not None else 0), A.new_empty(channels),
        A.new_empty(batch, channels, A.shape[1]),
    )  # fmt: skip
