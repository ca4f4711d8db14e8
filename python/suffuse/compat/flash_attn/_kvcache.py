"""flash_attn_with_kvcache: append to a cache of keys and values, rotate, attend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse.ops import attention_append, attention_decode, rotary


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    cache_seqlens: int | Tensor | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    block_table: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> Any:
    """Attention of a few queries over a cache, which k and v are first written to.

    Args:
        q: [B, T, H, D].
        k_cache, v_cache: [B_cache, S, G, D], or pages [P, page, G, D] with block_table; written in place if k is given.
        k, v: [B, T_new, G, D], written at places cache_seqlens[b] + i.
        rotary_cos, rotary_sin: [S, R / 2]: k is rotated at the places it is written to, q at cache_seqlens + i where
            causal or with a window, else at cache_seqlens.
        cache_seqlens: keys of each sequence before k joins, int or int32 [B]; all of the cache if None.
        cache_batch_idx: int32 [B], the cache entry of each sequence.
        cache_leftpad: int32 [B], the first key that counts.
        block_table: int32 [B, pages].
        num_splits: into how many pieces the keys are cut; 0 chooses.
        return_softmax_lse: also return lse [B, H, T].

    Returns:
        out [B, T, H, D], or (out, lse). No gradient.
    """
    B = q.shape[0]
    lengths = _lengths(cache_seqlens, k_cache, block_table, B, q.device)
    if (k is None) != (v is None):
        missing = "k" if k is None else "v"
        raise ValueError(f"flash_attn_with_kvcache: {missing}: expected k and v together, got None")
    if (rotary_cos is None) != (rotary_sin is None):
        missing = "rotary_cos" if rotary_cos is None else "rotary_sin"
        raise ValueError(
            f"flash_attn_with_kvcache: {missing}: expected cos and sin together, got None"
        )
    if k is not None and v is not None:
        if rotary_cos is not None and rotary_sin is not None:
            k = rotary(k, rotary_cos, rotary_sin, interleaved=rotary_interleaved, offsets=lengths)
            q = _rotate_queries(
                q, rotary_cos, rotary_sin, rotary_interleaved, lengths,
                causal or any(side >= 0 for side in window_size),
            )  # fmt: skip
        attention_append(
            k_cache, v_cache, k, v,
            cache_seqlens=lengths, cache_index=cache_batch_idx, block_table=block_table,
        )  # fmt: skip
        lengths = lengths + k.shape[1]
    elif rotary_cos is not None:
        raise ValueError(
            "flash_attn_with_kvcache: rotary_cos: expected None where no k is given, got a tensor"
        )
    left, right = window_size
    return attention_decode(
        q, k_cache, v_cache,
        cache_seqlens=lengths, cache_index=cache_batch_idx, left_pad=cache_leftpad,
        block_table=block_table, scale=softmax_scale, causal=causal,
        window=None if left < 0 and right < 0 else (max(left, -1), max(right, -1)),
        softcap=softcap, alibi_slopes=alibi_slopes, splits=num_splits,
        return_lse=return_softmax_lse,
    )  # fmt: skip


def _lengths(
    cache_seqlens: int | Tensor | None,
    k_cache: Tensor,
    block_table: Tensor | None,
    B: int,
    device: torch.device,
) -> Tensor:
    if isinstance(cache_seqlens, Tensor):
        return cache_seqlens.to(torch.int32)
    if cache_seqlens is None:
        pages = 1 if block_table is None else block_table.shape[1]
        cache_seqlens = k_cache.shape[1] * pages
    return torch.full((B,), cache_seqlens, dtype=torch.int32, device=device)


def _rotate_queries(
    q: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, lengths: Tensor, by_row: bool
) -> Tensor:
    if by_row:
        return rotary(q, cos, sin, interleaved=interleaved, offsets=lengths)
    # Without an order between the queries all of them stand where the first one does.
    B, T, H, D = q.shape
    rows = q.reshape(B, 1, T * H, D)
    return rotary(rows, cos, sin, interleaved=interleaved, offsets=lengths).reshape(B, T, H, D)
