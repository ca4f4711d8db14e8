"""Softmax attention, forward and backward, with the scores never held in memory."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor
from typing_extensions import Unpack

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops import _attention_arguments as arguments
from suffuse.ops._attention_decode import attention_append, attention_decode
from suffuse.ops._attention_general import Call, run, run_reference
from suffuse.ops._dispatch import has_kernel, needs_gradient, refuse_forward_mode
from suffuse.reference import attention as reference

__all__ = ["attention", "attention_append", "attention_decode"]

_fwd = torch.ops.suffuse.attention_fwd.default
_bwd = torch.ops.suffuse.attention_bwd.default
_HALF = (torch.float32, torch.bfloat16, torch.float16)  # what autocast may convert


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    return_lse: Literal[False] = ...,
    **options: Unpack[arguments.Options],
) -> Tensor: ...


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    return_lse: bool,
    **options: Unpack[arguments.Options],
) -> Tensor | tuple[Tensor, Tensor]: ...


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool | str = False,
    scale: float | None = None,
    return_lse: bool = False,
    window: tuple[int | None, int | None] | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | torch.Generator | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention ``softmax(softcap(scale * q k^T) + biases) v`` (Vaswani et al. 2017, equation 1).

    Computed in tiles with an online softmax (Dao et al. 2022), so that memory grows with T + S. Sums are
    float32 (float64 for float64 inputs). Bitwise repeatable for any number of threads; differentiable twice.
    Products of float32 on CUDA are as exact as float32 unless PyTorch's own switch allows tf32 when the forward runs:
    torch.backends.cuda.matmul.fp32_precision = "tf32", or the older allow_tf32 and torch.set_float32_matmul_precision.
    The gradients then have tf32 too.

    Query i stands at position i + S - T, so that the last query is at the last key; with causal="top_left" it stands at
    i. The window and ALiBi count from there.

    Args:
        q: queries [B, T, H, D]; float64, float32, bfloat16 or float16. Any strides; a last dimension that is
            not contiguous is copied. Packed sequences: [1, total, H, D] with cu_seqlens_q.
        k: keys [B, S, G, D] with H a multiple of G (query head h uses key head h // (H / G)).
        v: values [B, S, G, Dv].
        causal: False; True (only where T == S, or packed alike); "top_left": query i sees keys j <= i;
            "bottom_right": query i sees keys j <= i + S - T.
        scale: factor on the scores; D ** -0.5 if None.
        return_lse: also return the log-sum-exp of each row of scores.
        window: (left, right): the query at position p sees the keys p - left .. p + right; None or -1 is unlimited.
        bias: [B, H, T, S] or broadcastable to it, added to the scores (dtype of q, or float32); bool: False hides a
            key. Not for packed sequences. A floating bias may need a gradient.
        alibi_slopes: [H] or [B, H] float32; adds -slope * |position - key| (Press et al. 2022). No gradient.
        softcap: scores become softcap * tanh(score / softcap) before anything is added; 0 is none (Gemma 2).
        sinks: [H], a learned logit that takes part in the softmax and has no value (gpt-oss); lse includes it.
        dropout: probability with which a weight is zeroed, in [0, 1); the others are divided by 1 - dropout.
        seed: of the dropout: an int, an int64 tensor [1] on q's device, a generator to draw it from, or None for the
            default generator. The same seed drops the same weights (Philox4x32-10 by batch, head, query and key).
        cu_seqlens_q, cu_seqlens_k: int32 [N + 1], where the packed sequences begin and end.
        seqused_q, seqused_k: int32 [N], how many rows of each sequence count (the rest has out 0, lse -inf).
        max_seqlen_q, max_seqlen_k: the longest sequence; taken from cu_seqlens if None (on CUDA a synchronisation).

    Returns:
        out [B, T, H, Dv] in q's dtype, or ``(out, lse)`` with lse [B, H, T] in natural-log units, float32 (float64
        for float64 inputs). A row that sees no key has out 0 and lse -inf. Gradients flow through both.

    Raises:
        TypeError: q, k or v is not a tensor, or another argument is of the wrong kind.
        ValueError: causal is not one of the above, or True with T != S; a window, dropout or softcap out of range.
        RuntimeError: shapes, dtypes or devices do not fit, or the scale is not finite.
        NotImplementedError: forward-mode differentiation; a gradient for alibi_slopes.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"attention: {name}: expected a tensor, got {type(x).__name__}")
    packed = cu_seqlens_q is not None
    code = 0 if causal is False else arguments.causal_code_of(causal, q, k, packed)
    if scale is None:
        scale = q.shape[-1] ** -0.5 if q.dim() == 4 and q.shape[-1] > 0 else 1.0
    device = q.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        q, k, v = (_autocast(x, device) for x in (q, k, v))
    tensors = (bias, alibi_slopes, sinks, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k)
    if window is None and not softcap and not dropout and all(x is None for x in tensors):
        out, lse = _plain(q, k, v, scale, code)
    else:
        left, right = arguments.window_of(window)
        right = 0 if code and right != 0 else right
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        call = Call(
            q, k, v, scale, left, right, code == 1, arguments.softcap_of(softcap), bias,
            arguments.slopes_of(alibi_slopes, wide), arguments.to_wide(sinks, "sinks", wide),
            dropout, arguments.seed_of(dropout, seed, q),
            arguments.to_int32("cu_seqlens_q", cu_seqlens_q),
            arguments.to_int32("cu_seqlens_k", cu_seqlens_k),
            arguments.to_int32("seqused_q", seqused_q),
            arguments.to_int32("seqused_k", seqused_k), max_seqlen_q, max_seqlen_k,
        )  # fmt: skip
        out, lse = _general(call)
    return (out, lse) if return_lse else out


def _plain(q: Tensor, k: Tensor, v: Tensor, scale: float, code: int) -> tuple[Tensor, Tensor]:
    fits, tf32 = arguments.on_cuda(q, v)
    if not has_kernel("attention", q, fits):
        return reference.attention_fwd(q, k, v, scale, code)
    # An argument costs time at every call, so it is given where it says something.
    call = (q, k, v, scale, code, True) if tf32 else (q, k, v, scale, code)
    if needs_gradient(q, k, v):
        function = _Attention if torch._C._are_functorch_transforms_active() else _EagerAttention
        return function.apply(*call)
    refuse_forward_mode("attention", q, k, v)
    return _fwd(*call)


def _general(call: Call) -> tuple[Tensor, Tensor]:
    refuse_forward_mode("attention", call.q, call.k, call.v, call.bias, call.sinks)
    fits, tf32 = arguments.on_cuda(call.q, call.v)
    if not has_kernel("attention", call.q, fits):
        return run_reference(call)
    return run(call._replace(tf32=True) if tf32 else call)


def _autocast(x: Tensor, device: str) -> Tensor:
    return x.to(torch.get_autocast_dtype(device)) if x.dtype in _HALF else x


class _Attention(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> tuple[Tensor, Tensor]:
        return _fwd(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.options = inputs[3:]  # scale, causal and perhaps tf32
        ctx.save_for_backward(*inputs[:3], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        none = (None,) * len(ctx.options)
        if grad_out is None:
            if grad_lse is None:
                return None, None, None, *none
            grad_out = torch.zeros_like(out)
        twice = torch.is_grad_enabled() and any(
            x is not None and x.requires_grad for x in (grad_out, grad_lse, q, k, v)
        )
        run = _AttentionBackward.apply if twice else _bwd
        return *run(grad_out, grad_lse, q, k, v, out, lse, *ctx.options), *none


class _EagerAttention(torch.autograd.Function):
    """The same outside of torch.func: the split form inspects its signature at every call, which costs 25 us."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _fwd(*inputs)
        _Attention.setup_context(ctx, inputs, output)
        return output

    backward = _Attention.backward


class _AttentionBackward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad_out: Tensor,
        grad_lse: Tensor | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        *options: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _bwd(grad_out, grad_lse, q, k, v, out, lse, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        grad_out, grad_lse, q, k, v, _, _, *ctx.options = inputs
        ctx.has_lse = grad_lse is not None
        ctx.save_for_backward(grad_out, *((grad_lse,) if ctx.has_lse else ()), q, k, v)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        # out and lse are functions of q, k and v here, so all of the derivative arrives at those.
        scale, causal = ctx.options[:2]

        def gradients(grad_out: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            grad_lse = rest[0] if ctx.has_lse else None
            q, k, v = rest[-3:]
            return reference.attention_general_bwd(
                grad_out, grad_lse, q, k, v, None, None, scale=scale,
                left=-1, right=0 if causal else -1, top_left=causal == 1,
            )  # fmt: skip

        _, pull = torch.func.vjp(gradients, *ctx.saved_tensors)  # type: ignore[misc]
        first, *rest = pull(cotangents)
        second = rest.pop(0) if ctx.has_lse else None
        return first, second, *rest, None, None, *(None for _ in ctx.options)


@torch.library.register_fake("suffuse::attention_fwd")
def _fwd_fake(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: int, tf32: bool = False
) -> tuple[Tensor, Tensor]:
    B, T, H, _ = q.shape
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(B, T, H, v.shape[3]), q.new_empty(B, H, T, dtype=wide)


@torch.library.register_fake("suffuse::attention_bwd")
def _bwd_fake(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    causal: int,
    tf32: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _vmap(op: Any, count: int, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """The mapped dimension joins the batch; the first `count` arguments are tensors or None."""
    size = info.batch_size
    merged = []
    for x, dim in zip(args[:count], in_dims[:count], strict=True):
        if x is not None:
            x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
            x = x.flatten(0, 1)
        merged.append(x)
    results = op(*merged, *args[count:])
    # B = 0 leaves unflatten no way to infer the sizes, so they are given.
    return tuple(x.unflatten(0, (size, x.shape[0] // size)) for x in results), (0,) * len(results)


@torch.library.register_vmap("suffuse::attention_fwd")
def _fwd_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    return _vmap(_fwd, 3, info, in_dims, *args)


@torch.library.register_vmap("suffuse::attention_bwd")
def _bwd_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    return _vmap(_bwd, 7, info, in_dims, *args)
