"""flash_attn.layers.rotary: rotary position embedding of queries, keys and packed projections."""

from __future__ import annotations

from torch import Tensor

from suffuse.ops import rotary

__all__ = [
    "apply_rotary_emb",
    "apply_rotary_emb_func",
    "apply_rotary_emb_kv_",
    "apply_rotary_emb_qkv_",
]


def apply_rotary_emb(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool = False,
    inplace: bool = False,
    seqlen_offsets: int | Tensor = 0,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
) -> Tensor:
    """Rotates the first R columns of each head.

    Args:
        x: [B, T, H, D], or [total, H, D] with cu_seqlens.
        cos, sin: [S, R / 2].
        interleaved: pairs are columns (2 i, 2 i + 1) rather than (i, i + R / 2).
        inplace: write x and return it; a gradient then flows as it does through any in-place copy.
        seqlen_offsets: position of the first row, an int or int32 [B].
        cu_seqlens: int32 [N + 1], the packed sequences.
        max_seqlen: the longest of them; the kernel does not need it.

    Returns:
        x's shape and dtype.
    """
    packed = cu_seqlens is not None
    out = rotary(
        x.unsqueeze(0) if packed else x,
        cos,
        sin,
        interleaved=interleaved,
        offsets=seqlen_offsets,
        cu_seqlens=cu_seqlens,
    )
    out = out.squeeze(0) if packed else out
    return x.copy_(out) if inplace else out


apply_rotary_emb_func = apply_rotary_emb


def apply_rotary_emb_qkv_(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    cos_k: Tensor | None = None,
    sin_k: Tensor | None = None,
    interleaved: bool = False,
    seqlen_offsets: int | Tensor = 0,
    num_heads_q: int | None = None,
) -> Tensor:
    """Rotates queries and keys of qkv in place.

    Args:
        qkv: [B, T, 3, H, D], or [B, T, H + 2 G, D] with num_heads_q = H.
        cos, sin: [S, R / 2], for the keys too unless cos_k and sin_k are given.

    Returns:
        qkv.
    """
    if qkv.dim() == 5:
        q, k = qkv[:, :, 0], qkv[:, :, 1]
    elif num_heads_q is None:
        raise ValueError(
            f"apply_rotary_emb_qkv_: num_heads_q: expected the number of heads for qkv {list(qkv.shape)}, got None"
        )
    else:
        q = qkv[:, :, :num_heads_q]
        k = qkv[:, :, num_heads_q : (qkv.shape[2] + num_heads_q) // 2]
    k_tables = (cos if cos_k is None else cos_k, sin if sin_k is None else sin_k)
    apply_rotary_emb(q, cos, sin, interleaved, True, seqlen_offsets)
    apply_rotary_emb(k, *k_tables, interleaved, True, seqlen_offsets)
    return qkv


def apply_rotary_emb_kv_(
    kv: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool = False,
    seqlen_offsets: int | Tensor = 0,
) -> Tensor:
    """Rotates the keys of kv [B, S, 2, G, D] in place and returns kv."""
    apply_rotary_emb(kv[:, :, 0], cos, sin, interleaved, True, seqlen_offsets)
    return kv
