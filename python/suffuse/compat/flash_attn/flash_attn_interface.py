"""The functions of flash-attn 2 (Dao 2023) on suffuse's kernels: the same signatures and semantics, on every device.

Tensors are [B, T, H, D], packed ones [total, H, D] with int32 cu_seqlens. Unlike the original they may be of any
floating type and head size. Causal masks, windows and ALiBi count from the bottom right: the last query is at the last
key. Rows that see no key are 0. All results are deterministic, so `deterministic` changes nothing.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from suffuse.compat.flash_attn._kvcache import flash_attn_with_kvcache
from suffuse.ops import attention

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]

Window = tuple[int, int]


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """Attention of q [B, T, H, D] over k, v [B, S, G, D]; H is a multiple of G.

    Args:
        dropout_p: drawn from the default generator of PyTorch.
        softmax_scale: D ** -0.5 if None.
        window_size: (left, right), -1 for unlimited.
        alibi_slopes: [H] or [B, H], float32.
        return_attn_probs: also return lse [B, H, T] and None in the place of the sampled probabilities.

    Returns:
        out [B, T, H, D], or (out, softmax_lse, None).

    Raises:
        NotImplementedError: return_attn_probs together with dropout, whose pattern is never in memory.
    """
    _refuse_probabilities("flash_attn_func", return_attn_probs, dropout_p)
    out, lse = attention(
        q,
        k,
        v,
        causal="bottom_right" if causal else False,
        scale=softmax_scale,
        window=_window(window_size),
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        dropout=dropout_p,
        return_lse=True,
    )
    return (out, lse, None) if return_attn_probs else out


def flash_attn_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """`flash_attn_func` with keys and values in one tensor [B, S, 2, G, D]."""
    k, v = kv.unbind(-3)
    return flash_attn_func(
        q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
        deterministic, return_attn_probs,
    )  # fmt: skip


def flash_attn_qkvpacked_func(
    qkv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """`flash_attn_func` with queries, keys and values in one tensor [B, T, 3, H, D]."""
    q, k, v = qkv.unbind(-3)
    return flash_attn_func(
        q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
        deterministic, return_attn_probs,
    )  # fmt: skip


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Any:
    """Attention over packed sequences: q [total_q, H, D], k, v [total_k, G, D], cu_seqlens int32 [N + 1].

    Returns:
        out [total_q, H, D], or (out, softmax_lse [H, total_q], None).

    Raises:
        NotImplementedError: block_table (paged keys: use `flash_attn_with_kvcache`); return_attn_probs with dropout.
    """
    _refuse_probabilities("flash_attn_varlen_func", return_attn_probs, dropout_p)
    if block_table is not None:
        raise NotImplementedError(
            "flash_attn_varlen_func: block_table: expected None, got a tensor; "
            "flash_attn_with_kvcache reads paged keys"
        )
    out, lse = attention(
        q.unsqueeze(0),
        k.unsqueeze(0),
        v.unsqueeze(0),
        causal="bottom_right" if causal else False,
        scale=softmax_scale,
        window=_window(window_size),
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        dropout=dropout_p,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        max_seqlen_q=int(max_seqlen_q),
        max_seqlen_k=int(max_seqlen_k),
        return_lse=True,
    )
    out, lse = out.squeeze(0), lse.squeeze(0)
    return (out, lse, None) if return_attn_probs else out


def flash_attn_varlen_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """`flash_attn_varlen_func` with keys and values in one tensor [total_k, 2, G, D]."""
    k, v = kv.unbind(-3)
    return flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale,
        causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs,
    )  # fmt: skip


def flash_attn_varlen_qkvpacked_func(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """`flash_attn_varlen_func` with queries, keys and values in one tensor [total, 3, H, D]."""
    q, k, v = qkv.unbind(-3)
    return flash_attn_varlen_func(
        q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p, softmax_scale,
        causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs,
    )  # fmt: skip


def _window(window_size: Window) -> Window | None:
    left, right = window_size
    return None if left < 0 and right < 0 else (max(left, -1), max(right, -1))


def _refuse_probabilities(name: str, wanted: bool, dropout_p: float) -> None:
    if wanted and dropout_p > 0:
        raise NotImplementedError(
            f"{name}: return_attn_probs: expected False where dropout_p > 0, got True; "
            "the dropped probabilities are never held in memory"
        )
