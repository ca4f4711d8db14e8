"""Softmax attention, written as the formula: softmax(scale * q k^T + mask) v.

Vaswani et al. 2017, equation 1; the backward pass is equation 4 of Dao et al. 2022 (FlashAttention).
Every score is held in memory. Half-precision inputs are computed in float32, as the kernels do.
"""

from __future__ import annotations

import torch
from torch import Tensor

CAUSAL_CODES = {False: 0, "top_left": 1, "bottom_right": 2}


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool | str = False,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The slow, obvious form of `suffuse.ops.attention`, with the same arguments and results."""
    if causal is True:
        if q.shape[1] != k.shape[1]:
            raise ValueError("attention: causal=True needs T == S; name the alignment")
        causal = "top_left"
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = attention_fwd(q, k, v, scale, CAUSAL_CODES[causal])
    return (out, lse) if return_lse else out


def attention_fwd(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: int
) -> tuple[Tensor, Tensor]:
    """Returns out [B, T, H, Dv] and lse [B, H, T]; differentiable as often as one likes."""
    wide = _wide(q.dtype)
    p, total, top = _unnormalised(q.to(wide), k.to(wide), scale, causal)
    empty = total == 0
    safe = total.masked_fill(
        empty, 1
    )  # a row without keys: out 0, lse -inf, and gradients 0 instead of 0 / 0
    out = _values(p / safe, v.to(wide))
    lse = (top + safe.log()).masked_fill(empty, -torch.inf).squeeze(-1).flatten(1, 2)
    return out.to(q.dtype), lse


def attention_bwd(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    causal: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `attention_fwd` for q, k and v in closed form; itself differentiable."""
    wide = _wide(q.dtype)
    qw, kw, vw = q.to(wide), k.to(wide), v.to(wide)
    p, total, _ = _unnormalised(qw, kw, scale, causal)
    p = p / total.masked_fill(total == 0, 1)
    groups = k.shape[2]
    gw = _grouped(grad_out.to(wide), groups)
    grad_p = gw @ vw.permute(0, 2, 3, 1).unsqueeze(2)
    delta = (p * grad_p).sum(-1, keepdim=True)
    if grad_lse is not None:
        delta = delta - grad_lse.to(wide).unflatten(1, (groups, -1)).unsqueeze(-1)
    grad_s = p * (grad_p - delta) * scale
    grad_q = _values(grad_s, kw)
    grad_k = (grad_s.transpose(-1, -2) @ _grouped(qw, groups)).sum(2).transpose(1, 2)
    grad_v = (p.transpose(-1, -2) @ gw).sum(2).transpose(1, 2)
    return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)


def visible_keys(T: int, S: int, causal: int, device: torch.device | None = None) -> Tensor:
    """[T, S], True where query i may see key j: j <= i (top-left) or j <= i + S - T (bottom-right)."""
    shift = S - T if causal == 2 else 0
    queries = torch.arange(T, device=device).unsqueeze(1) + shift
    return torch.arange(S, device=device) <= queries


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[B, T, H, D] -> [B, G, H / G, T, D]."""
    return x.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4)


def _values(weights: Tensor, v: Tensor) -> Tensor:
    """weights [B, G, H / G, T, S] times v [B, S, G, Dv] -> [B, T, H, Dv]."""
    return (weights @ v.transpose(1, 2).unsqueeze(2)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _unnormalised(q: Tensor, k: Tensor, scale: float, causal: int) -> tuple[Tensor, Tensor, Tensor]:
    """exp(scores - top) [B, G, H / G, T, S], its row sums and top, the row maxima (0 where a row is empty)."""
    scores = _grouped(q, k.shape[2]) @ k.permute(0, 2, 3, 1).unsqueeze(2) * scale
    if causal:
        hidden = ~visible_keys(q.shape[1], k.shape[1], causal, q.device)
        scores = scores.masked_fill(hidden, -torch.inf)
    if k.shape[1] == 0:
        top = scores.new_zeros(*scores.shape[:-1], 1)
    else:
        top = scores.detach().amax(-1, keepdim=True)
        top = top.masked_fill(top == -torch.inf, 0)
    p = (scores - top).exp()
    return p, p.sum(-1, keepdim=True), top
