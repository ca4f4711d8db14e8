"""Attention over a cache of keys and values, as in generation, and writing to such a cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops import _attention_arguments as arguments
from suffuse.ops._dispatch import has_kernel, needs_gradient
from suffuse.reference import attention as reference

_decode = torch.ops.suffuse.attention_decode.default
_append = torch.ops.suffuse.attention_append.default


def attention_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    cache_seqlens: Tensor | None = None,
    cache_index: Tensor | None = None,
    left_pad: Tensor | None = None,
    block_table: Tensor | None = None,
    causal: bool = True,
    scale: float | None = None,
    window: tuple[int | None, int | None] | None = None,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    splits: int = 0,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of the last T queries of each sequence over its keys in a cache; without gradients.

    The keys are cut into chunks that any thread can take, so that one query uses all cores; their results are merged
    in a fixed order ("flash decoding", Dao et al. 2023). Bitwise the same for any number of threads.
    Products of float32 on CUDA are as exact as float32 where at most 64 queries and heads share a key (memory takes
    longer there), else as in `attention`.

    Args:
        q: [B, T, H, D]; the last of the T queries is at the last key.
        k_cache: [B_cache, S, G, D], or pages [P, page, G, D] with block_table. Read in place.
        v_cache: [B_cache, S, G, Dv], or pages [P, page, G, Dv].
        cache_seqlens: int32 [B], the keys of each sequence, T new ones included; all S if None.
        cache_index: int32 [B], the cache entry of each sequence; 0 .. B - 1 if None.
        left_pad: int32 [B], the first key that counts.
        block_table: int32 [B, n], the pages of each sequence in their order.
        causal: query i sees the keys up to i + cache_seqlens - T; False: all keys.
        scale, window, softcap, alibi_slopes, sinks: as in `attention`.
        splits: into how many chunks the keys are cut (at most 2048 keys each); 0 chooses.
        return_lse: also return the log-sum-exp.

    Returns:
        out [B, T, H, Dv] in q's dtype, or ``(out, lse)`` with lse [B, H, T] float32 (float64 for float64).

    Raises:
        TypeError: an argument is not of the kind above.
        ValueError: a tensor needs a gradient; window or softcap out of range.
        RuntimeError: shapes, dtypes or devices do not fit; on the CPU also a length, entry or page outside of the
            cache (on CUDA nobody looks at them: it would wait for the device).
    """
    op = "attention_decode"
    _check(op, q=q, k_cache=k_cache, v_cache=v_cache)
    _refuse_gradients(op, q=q, k_cache=k_cache, v_cache=v_cache, sinks=sinks)
    left, right = arguments.window_of(window, op)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    if scale is None:
        scale = q.shape[-1] ** -0.5 if q.dim() == 4 and q.shape[-1] > 0 else 1.0
    call = (
        q, k_cache, v_cache, arguments.to_int32("cache_seqlens", cache_seqlens, op),
        arguments.to_int32("cache_index", cache_index, op), arguments.to_int32("left_pad", left_pad, op),
        arguments.to_int32("block_table", block_table, op), scale, left, 0 if causal else right,
        arguments.softcap_of(softcap, op), arguments.slopes_of(alibi_slopes, wide, op),
        arguments.to_wide(sinks, "sinks", wide, op), splits,
    )  # fmt: skip
    fits, tf32 = arguments.on_cuda(q, v_cache)
    if not has_kernel(op, q, fits):
        out, lse = reference.attention_decode(*call)
    else:
        out, lse = _decode(*call, True) if tf32 else _decode(*call)
    return (out, lse) if return_lse else out


def attention_append(
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cache_seqlens: Tensor,
    cache_index: Tensor | None = None,
    block_table: Tensor | None = None,
) -> None:
    """Writes new keys and values to a cache, in place.

    Args:
        k_cache, v_cache, cache_index, block_table: as in `attention_decode`.
        k: [B, T, G, D]; row i of sequence b goes to place cache_seqlens[b] + i.
        v: [B, T, G, Dv].
        cache_seqlens: int32 [B], the keys of each sequence so far.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a tensor needs a gradient.
        RuntimeError: shapes, dtypes or devices do not fit; on the CPU also a place outside of the cache. Nothing is
            written then. On CUDA, where looking at the places would wait for the device, a row without a place in the
            cache is left out and the others are written.
    """
    op = "attention_append"
    _check(op, k_cache=k_cache, v_cache=v_cache, k=k, v=v, cache_seqlens=cache_seqlens)
    _refuse_gradients(op, k_cache=k_cache, v_cache=v_cache, k=k, v=v)
    call: tuple[Any, ...] = (
        k_cache, v_cache, k, v, arguments.to_int32("cache_seqlens", cache_seqlens, op),
        arguments.to_int32("cache_index", cache_index, op),
        arguments.to_int32("block_table", block_table, op),
    )  # fmt: skip
    (_append if has_kernel(op, k) else reference.attention_append)(*call)


def _check(op: str, **tensors: Any) -> None:
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: {name}: expected a tensor, got {type(x).__name__}")


def _refuse_gradients(op: str, **tensors: Tensor | None) -> None:
    for name, x in tensors.items():
        if needs_gradient(x):
            raise ValueError(
                f"{op}: {name}: expected a tensor without gradient, got one that needs it; attention has gradients"
            )


@torch.library.register_fake("suffuse::attention_decode")
def _decode_fake(q: Tensor, k_cache: Tensor, v_cache: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    B, T, H, _ = q.shape
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(B, T, H, v_cache.shape[3]), q.new_empty(B, H, T, dtype=wide)


@torch.library.register_fake("suffuse::attention_append")
def _append_fake(*rest: Any) -> None:
    return None
