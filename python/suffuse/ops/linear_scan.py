"""The linear recurrence h_t = a_t h_{t-1} + x_t, real and complex, in both directions of time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops._dispatch import has_kernel, refuse_forward_mode
from suffuse.reference import linear_scan as formula

_op = torch.ops.suffuse.linear_scan.default


def linear_scan(
    a: Tensor,
    x: Tensor,
    *,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """First-order linear recurrence along time, the core of LRU, S5, HGRN and minGRU.

    ::

        h_t = a_t h_{t-1} + x_t

    The state is float32 (float64, complex64 or complex128 for inputs of that precision or kind). Its
    gradients are scans again (Martin and Cundy 2018, "Parallelizing Linear Recurrent Neural Nets",
    section 2.3). Bitwise repeatable, on the CPU for any number of threads; differentiable any number
    of times. On CUDA steps are composed before they are applied: where a product of decays leaves
    the range of the state's dtype, an infinite state becomes NaN (too small a product), or any state
    does (too large a one).

    Args:
        a: [B, C, T] or what expands to it, or [C]; x's dtype, or float32 with a half-precision x. A
            decay that is the same at all steps is read once.
        x: [B, C, T]; float64, float32, bfloat16, float16, complex64 or complex128. Rows of adjacent
            steps (on the CPU, real: or of adjacent channels) are read in place, other layouts are
            copied.
        initial_state: the state before the first step [B, C]; None is 0.
        return_last_state: also return the state after the last step.
        seq_idx: int32 [B, T]; the state starts from 0 again wherever the index differs from that of
            the step before, so that sequences can be packed into one row.
        reverse: whether time runs from the last step to the first.

    Returns:
        h [B, C, T] in x's dtype and layout, or ``(h, last_state)`` with last_state [B, C]. Gradients
        flow through both.

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: shapes, dtypes or devices do not fit.
        NotImplementedError: forward-mode differentiation.
    """
    named = {"a": a, "x": x, "initial_state": initial_state, "seq_idx": seq_idx}
    for name, value in named.items():
        if not isinstance(value, Tensor) and (value is not None or name in ("a", "x")):
            got = type(value).__name__
            raise TypeError(f"linear_scan: {name}: expected a tensor, got {got}")
    if a.dim() == 1:
        a = a[:, None]
    if x.dim() == 3 and a.shape != x.shape and _expands(a, x):
        a = a.expand(x.shape)
    if initial_state is not None:
        half = x.dtype in (torch.bfloat16, torch.float16)
        initial_state = initial_state.to(torch.float32 if half else x.dtype)
    operands = (a.resolve_conj(), x.resolve_conj(), initial_state, seq_idx)
    if not has_kernel("linear_scan", x):
        h, last = formula.linear_scan_fwd(*operands, reverse, False)
    elif torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands):
        h, last = _LinearScan.apply(*operands, reverse, False)
    else:
        refuse_forward_mode("linear_scan", *operands)
        h, last = _op(*operands, reverse, False)
    return (h, last) if return_last_state else h


def _expands(a: Tensor, x: Tensor) -> bool:
    padded = (1,) * (x.dim() - a.dim()) + tuple(a.shape)
    return a.dim() <= x.dim() and all(n in (1, m) for n, m in zip(padded, x.shape, strict=True))


class _LinearScan(torch.autograd.Function):
    """The scan, plain or lagged: each is the other's transpose, so that gradients are scans too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        a: Tensor, x: Tensor, initial: Tensor | None, seq_idx: Tensor | None, reverse: bool,
        lagged: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return _op(a, x, initial, seq_idx, reverse, lagged)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.reverse, ctx.lagged = inputs[4], inputs[5]
        ctx.save_for_backward(inputs[0], inputs[2], inputs[3], output[0])

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor, grad_last: Tensor) -> Any:
        a, initial, seq_idx, h = ctx.saved_tensors
        grad_x, grad_initial = _LinearScan.apply(
            a.conj().resolve_conj(), grad_h.resolve_conj(), grad_last.resolve_conj(), seq_idx,
            not ctx.reverse, not ctx.lagged,
        )  # fmt: skip
        grad_a = None
        if ctx.needs_input_grad[0]:
            wide = grad_last.dtype
            if ctx.lagged:  # a_t takes h_t to the step behind it
                entering, leaving = _behind(grad_x.to(wide), grad_last, seq_idx, ctx.reverse), h
            else:  # a_t takes the state before into t
                entering = grad_x
                leaving = _before(h.to(wide), initial, seq_idx, ctx.reverse)
            grad_a = (entering * leaving.conj()).to(a.dtype)
        return grad_a, grad_x, grad_initial if initial is not None else None, None, None, None


def _before(h: Tensor, initial: Tensor | None, seq_idx: Tensor | None, reverse: bool) -> Tensor:
    """Of each step, the state that it starts from."""
    first = torch.zeros_like(h[..., :1]) if initial is None else initial[..., None]
    if h.shape[-1] == 0:
        return h
    parts = [h[..., 1:], first] if reverse else [first, h[..., :-1]]
    return _without_restarts(torch.cat(parts, -1), seq_idx, reverse)


def _behind(g: Tensor, last: Tensor, seq_idx: Tensor | None, reverse: bool) -> Tensor:
    """Of each step, the gradient at the step behind it."""
    if g.shape[-1] == 0:
        return g
    parts = [last[..., None], g[..., :-1]] if reverse else [g[..., 1:], last[..., None]]
    return _without_restarts(torch.cat(parts, -1), seq_idx, not reverse)


def _without_restarts(neighbour: Tensor, seq_idx: Tensor | None, later: bool) -> Tensor:
    """0 where the neighbour (the later one, or the earlier) is of another sequence."""
    if seq_idx is None:
        return neighbour
    same = seq_idx[:, 1:] == seq_idx[:, :-1]
    end = torch.ones_like(same[:, :1])
    same = torch.cat([same, end] if later else [end, same], 1)
    return torch.where(same[:, None], neighbour, 0)


@torch.library.register_fake("suffuse::linear_scan")
def _fake(
    a: Tensor, x: Tensor, initial_state: Tensor | None, seq_idx: Tensor | None, reverse: bool,
    lagged: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch, channels, length = x.shape
    wide = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    last = x.new_empty(batch, channels, dtype=wide)
    if x.is_complex() or length <= 1 or x.stride(2) == 1:
        return x.new_empty(batch, channels, length), last
    return x.new_empty(batch, length, channels).transpose(1, 2), last
