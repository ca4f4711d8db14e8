"""RMSNorm of the heads of queries and keys in one pass, and their rotary position embedding with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops._dispatch import has_kernel, needs_gradient, refuse_forward_mode
from suffuse.ops.rotary import rotary
from suffuse.reference import qk_norm as formula

_fwd = torch.ops.suffuse.qk_norm_fwd.default
_bwd = torch.ops.suffuse.qk_norm_bwd.default


def qk_norm(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    *,
    eps: float = 1e-6,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    """RMSNorm over the head dimension of queries and keys, as Qwen3, SD3 and Flux have it.

    ::

        y = x / sqrt(mean(x^2) + eps) * weight

    (Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4), followed, where
    tables are given, by `rotary` of the result (Su et al. 2021) in the same pass. Everything between
    reading and writing is float32 (float64 for a float64 q). Bitwise repeatable for any number of
    threads; differentiable twice.

    Args:
        q: [B, T, H, D]; float64, float32, bfloat16 or float16; any strides with adjacent columns
            (others are copied).
        k: [B, T, G, D] in q's dtype.
        q_weight, k_weight: [D], any real dtype; None is 1.
        eps: added to the mean square.
        cos, sin: tables [S, R/2] that all share, or [B, S, R/2], with R <= D and S >= T; token t
            takes row t. Any real dtype. Both or none. Their gradients are `rotary`'s, which then
            runs behind the norm.
        interleaved: which columns are a pair, as in `rotary`.

    Returns:
        (q, k), normalised and rotated [B, T, H, D] and [B, T, G, D], in q's dtype, contiguous.

    Raises:
        TypeError: an argument is not a tensor; one of cos and sin alone.
        RuntimeError: shapes, dtypes or devices do not fit; tables shorter than T.
        NotImplementedError: forward-mode differentiation.
    """
    _check_tensors(q=q, k=k, q_weight=q_weight, k_weight=k_weight, cos=cos, sin=sin)
    if cos is not None and sin is not None and needs_gradient(cos, sin):
        q, k = qk_norm(q, k, q_weight, k_weight, eps=eps)
        own = cos.to(_table_type(q, cos)), sin.to(_table_type(q, sin))
        return rotary(q, *own, interleaved=interleaved), rotary(k, *own, interleaved=interleaved)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    q_weight, k_weight = (w if w is None else w.to(wide) for w in (q_weight, k_weight))
    cos, sin = (_rows(t, q, wide) for t in (cos, sin))
    operands = (q, k, q_weight, k_weight, cos, sin)
    if not has_kernel("qk_norm", q):
        return formula.qk_norm_fwd(*operands, eps, interleaved)
    if needs_gradient(*operands):
        return _QkNorm.apply(*operands, eps, interleaved)
    refuse_forward_mode("qk_norm", *operands)
    return _fwd(*operands, eps, interleaved)


def _check_tensors(**named: object) -> None:
    for name, value in named.items():
        if not isinstance(value, Tensor) and (value is not None or name in ("q", "k")):
            raise TypeError(f"qk_norm: {name}: expected a tensor, got {type(value).__name__}")
    for name, other in (("cos", "sin"), ("sin", "cos")):
        if named[name] is None and named[other] is not None:
            raise TypeError(f"qk_norm: {name}: expected a tensor with {other}, got None")


def _table_type(q: Tensor, table: Tensor) -> torch.dtype:
    """One that `rotary` takes."""
    return q.dtype if table.dtype == q.dtype or q.dtype == torch.float64 else torch.float32


def _rows(table: Tensor | None, q: Tensor, wide: torch.dtype) -> Tensor | None:
    """The rows that are needed, in the arithmetic's type."""
    if table is None or table.dtype == wide:
        return table
    if table.dim() >= 2 and q.dim() == 4:
        table = table[..., : q.shape[1], :]
    return table.to(wide)


class _QkNorm(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, q_weight: Tensor | None, k_weight: Tensor | None,
        cos: Tensor | None, sin: Tensor | None, eps: float, interleaved: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return _fwd(q, k, q_weight, k_weight, cos, sin, eps, interleaved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.eps, ctx.interleaved = inputs[6:]
        ctx.save_for_backward(*inputs[:6])

    @staticmethod
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> Any:
        operands = ctx.saved_tensors
        grads = _QkNormBackward.apply(grad_q, grad_k, *operands, ctx.eps, ctx.interleaved)
        wanted = [
            grad if x is not None and need else None
            for grad, x, need in zip(grads, operands[:4], ctx.needs_input_grad[:4], strict=True)
        ]
        return (*wanted, None, None, None, None)


class _QkNormBackward(torch.autograd.Function):
    """The gradients. Their own backward pass differentiates the reference formula."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad_q: Tensor, grad_k: Tensor, q: Tensor, k: Tensor, q_weight: Tensor | None,
        k_weight: Tensor | None, cos: Tensor | None, sin: Tensor | None, eps: float,
        interleaved: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        return _bwd(grad_q, grad_k, q, k, q_weight, k_weight, cos, sin, eps, interleaved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.eps, ctx.interleaved = inputs[8:]
        ctx.save_for_backward(*inputs[:8])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        grads, operands = ctx.saved_tensors[:2], ctx.saved_tensors[2:]
        there = [i for i in range(4) if operands[i] is not None]

        def gradients(grad_q: Tensor, grad_k: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
            def forward(*given: Tensor) -> tuple[Tensor, Tensor]:
                full = list(operands)
                for i, value in zip(there, given, strict=True):
                    full[i] = value
                return formula.qk_norm_fwd(*full, ctx.eps, ctx.interleaved)  # type: ignore[call-arg]

            return torch.func.vjp(forward, *variables)[1]((grad_q, grad_k))

        _, pull = torch.func.vjp(gradients, *grads, *(operands[i] for i in there))  # type: ignore[misc]
        results = pull(tuple(cotangents[i] for i in there))
        by_operand = dict(zip(there, results[2:], strict=True))
        return (*results[:2], *(by_operand.get(i) for i in range(4)), None, None, None, None)


@torch.library.register_fake("suffuse::qk_norm_fwd")
def _fwd_fake(
    q: Tensor, k: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor | None,
    sin: Tensor | None, eps: float, interleaved: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    for name, t in {
        "k": k,
        "q_weight": q_weight,
        "k_weight": k_weight,
        "cos": cos,
        "sin": sin,
    }.items():
        if t is not None and t.device != q.device:
            raise RuntimeError(
                f"qk_norm: {name}: expected device {q.device} like q, got {t.device}"
            )
    return q.new_empty(q.shape), k.new_empty(k.shape)


@torch.library.register_fake("suffuse::qk_norm_bwd")
def _bwd_fake(
    grad_q: Tensor, grad_k: Tensor, q: Tensor, k: Tensor, q_weight: Tensor | None,
    k_weight: Tensor | None, cos: Tensor | None, sin: Tensor | None, eps: float, interleaved: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    weights = (
        q.new_empty(0 if w is None else q.shape[3], dtype=wide) for w in (q_weight, k_weight)
    )
    return q.new_empty(q.shape), k.new_empty(k.shape), *weights
