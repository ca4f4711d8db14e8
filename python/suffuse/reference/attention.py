"""Softmax attention, written as the formula: softmax(softcap(scale * q k^T) + biases) v.

Vaswani et al. 2017, equation 1. Every score is held in memory. Half-precision inputs are computed in float32, as the
kernels do. Differentiable as often as one likes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse.reference._philox import MASK32, philox_bits

CAUSAL_CODES = {False: 0, "top_left": 1, "bottom_right": 2}


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool | str = False,
    scale: float | None = None,
    window: tuple[int | None, int | None] | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The slow, obvious form of `suffuse.ops.attention`, with the same arguments and results."""
    if causal is True:
        if q.shape[1] != k.shape[1]:
            raise ValueError("attention: causal=True needs T == S; name the alignment")
        causal = "top_left"
    left, right = (-1 if side is None else side for side in window or (None, None))
    words = None if seed is None else torch.tensor([seed], device=q.device)
    out, lse = attention_general_fwd(
        q, k, v, q.shape[-1] ** -0.5 if scale is None else scale, left,
        0 if causal else right, causal == "top_left", softcap, bias, alibi_slopes, sinks,
        dropout, words, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k,
    )  # fmt: skip
    return (out, lse) if return_lse else out


def attention_fwd(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: int
) -> tuple[Tensor, Tensor]:
    """Returns out [B, T, H, Dv] and lse [B, H, T]."""
    return attention_general_fwd(q, k, v, scale, -1, 0 if causal else -1, causal == 1)


def attention_general_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    left: int,
    right: int,
    top_left: bool,
    softcap: float = 0.0,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns out like q with Dv columns, and lse [B, H, T] ([1, H, total] where q is packed)."""
    total = None
    if cu_seqlens_q is not None:
        total, places, used = q.shape[1], *_places(cu_seqlens_q)
        q = _padded(q, places)
        seqused_q = used if seqused_q is None else seqused_q
    if cu_seqlens_k is not None:
        key_places, used = _places(cu_seqlens_k)
        k, v = _padded(k, key_places), _padded(v, key_places)
        seqused_k = used if seqused_k is None else seqused_k
    B, T, S = q.shape[0], q.shape[1], k.shape[1]
    lengths_q = _lengths(seqused_q, B, T, q.device)
    lengths_k = _lengths(seqused_k, B, S, q.device)
    shift = torch.zeros_like(lengths_q) if top_left else lengths_k - lengths_q
    visible = _visible(lengths_q, lengths_k, shift, left, right, T, S)
    scores = _scores(q, k, scale, softcap)
    if alibi_slopes is not None:
        slopes = alibi_slopes.to(scores.dtype).reshape(-1, q.shape[2], 1, 1)
        scores = scores - slopes * _distance(shift, T, S).to(scores.dtype)
    if bias is not None and bias.dtype == torch.bool:
        visible = visible & bias
    elif bias is not None:
        scores = scores + bias.to(scores.dtype)
        visible = visible & (bias != -torch.inf)
    out, lse = _weighted_sum(scores, visible, v.to(scores.dtype), sinks, dropout, seed)
    # Rows past a sequence's end have no lse, whether or not there is a sink.
    lse = lse.masked_fill(~_inside(lengths_q, T).unsqueeze(1), -torch.inf)
    if total is not None:
        out, lse = _packed(out, lse, places, lengths_q, total)
    return out.to(q.dtype), lse


def attention_general_bwd(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    *,
    differentiate_bias: bool = False,
    differentiate_sinks: bool = False,
    **options: Any,
) -> tuple[Tensor, ...]:
    """The gradients for q, k, v and, if asked, the bias and the sinks; themselves differentiable."""
    variables = [
        q,
        k,
        v,
        *([bias] if differentiate_bias else []),
        *([sinks] if differentiate_sinks else []),
    ]

    def forward(*values: Any) -> tuple[Tensor, Tensor]:
        rest = list(values[3:])
        given = dict(options)
        given["bias"] = rest.pop(0) if differentiate_bias else bias
        given["sinks"] = rest.pop(0) if differentiate_sinks else sinks
        return attention_general_fwd(*values[:3], **given)

    (_, lse), pull = torch.func.vjp(forward, *variables)  # type: ignore[misc]
    return pull((grad_out, torch.zeros_like(lse) if grad_lse is None else grad_lse))


def visible_keys(T: int, S: int, causal: int, device: torch.device | None = None) -> Tensor:
    """[T, S], True where query i may see key j: j <= i (top-left) or j <= i + S - T (bottom-right)."""
    shift = S - T if causal == 2 else 0
    queries = torch.arange(T, device=device).unsqueeze(1) + shift
    return torch.arange(S, device=device) <= queries


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _lengths(used: Tensor | None, B: int, whole: int, device: torch.device) -> Tensor:
    return torch.full((B,), whole, device=device) if used is None else used.to(torch.int64)


def _places(starts: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the packed tensor [B, longest], and the lengths [B]; rows past a sequence's end are its last."""
    lengths = starts.diff().to(torch.int64)
    longest = int(lengths.max()) if lengths.numel() else 0
    inside = torch.arange(longest, device=starts.device).minimum(
        (lengths - 1).clamp(min=0).unsqueeze(1)
    )
    return starts[:-1].unsqueeze(1) + inside, lengths


def _padded(x: Tensor, places: Tensor) -> Tensor:
    if x.shape[1] == 0:
        return x.new_zeros(*places.shape, *x.shape[2:])
    return x[0][places.clamp(max=x.shape[1] - 1)]


def _packed(
    out: Tensor, lse: Tensor, places: Tensor, lengths: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    inside = _inside(lengths, out.shape[1])
    rows = places[inside]
    packed = out.new_zeros(total, *out.shape[2:]).index_copy(0, rows, out[inside])
    packed_lse = lse.new_full((total, lse.shape[1]), -torch.inf)
    packed_lse = packed_lse.index_copy(0, rows, lse.transpose(1, 2)[inside])
    return packed.unsqueeze(0), packed_lse.t().unsqueeze(0)


def _inside(lengths: Tensor, T: int) -> Tensor:
    return torch.arange(T, device=lengths.device) < lengths.unsqueeze(1)


def _visible(
    lengths_q: Tensor, lengths_k: Tensor, shift: Tensor, left: int, right: int, T: int, S: int
) -> Tensor:
    """[B, 1, T, S]."""
    queries = torch.arange(T, device=shift.device).reshape(1, T, 1)
    keys = torch.arange(S, device=shift.device).reshape(1, 1, S)
    position = queries + shift.reshape(-1, 1, 1)
    seen = (queries < lengths_q.reshape(-1, 1, 1)) & (keys < lengths_k.reshape(-1, 1, 1))
    if left >= 0:
        seen = seen & (keys >= position - left)
    if right >= 0:
        seen = seen & (keys <= position + right)
    return seen.unsqueeze(1)


def _distance(shift: Tensor, T: int, S: int) -> Tensor:
    """|position of the query - key| [B, 1, T, S]."""
    queries = torch.arange(T, device=shift.device).reshape(1, 1, T, 1)
    keys = torch.arange(S, device=shift.device)
    return (queries + shift.reshape(-1, 1, 1, 1) - keys).abs()


def _scores(q: Tensor, k: Tensor, scale: float, softcap: float) -> Tensor:
    """[B, H, T, S]."""
    wide, groups = _wide(q.dtype), k.shape[2]
    grouped = q.to(wide).unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4)
    scores = (grouped @ k.to(wide).permute(0, 2, 3, 1).unsqueeze(2)).flatten(1, 2) * scale
    return torch.tanh(scores / softcap) * softcap if softcap else scores


def _weighted_sum(
    scores: Tensor,
    visible: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """out [B, T, H, Dv] and lse [B, H, T]. A row without keys and sink has out 0, lse -inf, gradients 0."""
    scores = scores.masked_fill(~visible, -torch.inf)
    sink = None if sinks is None else sinks.to(scores.dtype).reshape(1, -1, 1, 1)
    tops = [] if scores.shape[-1] == 0 else [scores.detach().amax(-1, keepdim=True)]
    if sink is not None:
        tops.append(sink.detach().expand(*scores.shape[:-1], 1))
    top = scores.new_full((*scores.shape[:-1], 1), -torch.inf)
    for other in tops:
        top = torch.maximum(top, other)
    top = top.masked_fill(top == -torch.inf, 0)
    p = (scores - top).exp()
    total = p.sum(-1, keepdim=True)
    if sink is not None:
        total = total + (sink - top).exp()
    empty = total == 0
    safe = total.masked_fill(empty, 1)
    lse = (top + safe.log()).masked_fill(empty, -torch.inf).squeeze(-1)
    weights = p / safe
    if dropout and seed is not None:
        weights = (
            weights * dropout_keep(weights.shape, dropout, seed).to(weights.dtype) / (1 - dropout)
        )
    groups = v.shape[2]
    values = v.transpose(1, 2).unsqueeze(2)  # [B, G, 1, S, Dv]
    out = weights.unflatten(1, (groups, -1)) @ values
    return out.permute(0, 3, 1, 2, 4).flatten(2, 3), lse


def dropout_keep(shape: tuple[int, ...], dropout: float, seed: Tensor) -> Tensor:
    """[B, H, T, S], True where a weight stays.

    The weight of query i and key j of sequence b and head h takes word j % 4 of the Philox block with the counter
    (j // 4, i, b H + h, 0) and the key (low, high word of seed). It stays where the word is at least dropout 2^32.
    """
    B, H, T, S = shape
    device = seed.device
    quads = torch.arange((S + 3) // 4, device=device).expand(B * H, T, -1)
    queries = torch.arange(T, device=device).reshape(1, T, 1).expand_as(quads)
    pairs = torch.arange(B * H, device=device).reshape(-1, 1, 1).expand_as(quads)
    counter = torch.stack((quads, queries, pairs, torch.zeros_like(quads)), dim=-1)
    words = philox_bits(counter, (seed & MASK32, (seed >> 32) & MASK32))
    return words.reshape(B, H, T, (S + 3) // 4 * 4)[..., :S] >= int(dropout * 2**32)


def attention_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cache_seqlens: Tensor | None = None,
    cache_index: Tensor | None = None,
    left_pad: Tensor | None = None,
    block_table: Tensor | None = None,
    scale: float = 1.0,
    left: int = -1,
    right: int = -1,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    splits: int = 0,
) -> tuple[Tensor, Tensor]:
    """Gathers the keys of each sequence from the cache, then attention as above; splits change nothing."""
    B = q.shape[0]
    places = cache_places(k_cache, B, cache_index, block_table)
    S = places.shape[1]
    lengths = _lengths(cache_seqlens, B, S, q.device)
    if left_pad is not None:
        lengths = (lengths - left_pad).clamp(min=0)
        shifted = torch.arange(S, device=q.device) + left_pad.unsqueeze(1)
        places = places.gather(1, shifted.clamp(max=S - 1))
    k, v = (cache.flatten(0, 1)[places] for cache in (k_cache, v_cache))
    unseen = ~_inside(lengths, S)[:, :, None, None]
    return attention_general_fwd(
        q, k.masked_fill(unseen, 0), v.masked_fill(unseen, 0), scale, left, right, False, softcap,
        None, alibi_slopes, sinks, seqused_k=lengths,
    )  # fmt: skip


def attention_append(
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor,
    v: Tensor,
    cache_seqlens: Tensor,
    cache_index: Tensor | None = None,
    block_table: Tensor | None = None,
) -> None:
    """Writes row i of sequence b to place cache_seqlens[b] + i of its part of the cache."""
    B, T = k.shape[:2]
    rows = cache_seqlens.to(torch.int64).unsqueeze(1) + torch.arange(T, device=k.device)
    places = cache_places(k_cache, B, cache_index, block_table).gather(1, rows)
    entry, row = places // k_cache.shape[1], places % k_cache.shape[1]
    k_cache[entry, row] = k
    v_cache[entry, row] = v


def cache_places(
    cache: Tensor, B: int, cache_index: Tensor | None, block_table: Tensor | None
) -> Tensor:
    """[B, S]: where key j of sequence b is in the flattened cache."""
    page = cache.shape[1]
    entries = torch.arange(B, device=cache.device) if cache_index is None else cache_index
    table = entries.unsqueeze(1) if block_table is None else block_table
    offsets = torch.arange(page, device=cache.device)
    return (table.to(torch.int64).unsqueeze(2) * page + offsets).flatten(1)
