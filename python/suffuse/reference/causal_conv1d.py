"""Causal depthwise convolution, written as its sum.

    out_t = act(bias + sum_k weight_k x_{t - W + 1 + k})

Half-precision inputs are computed in float32, as the kernels do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    seq_idx: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The slow, obvious form of `suffuse.ops.causal_conv1d`, with the same arguments and results."""
    out = causal_conv1d_fwd(x, weight, bias, initial_state, seq_idx, activation is not None)
    if not return_final_state:
        return out
    return out, final_state(x, weight.shape[1], initial_state, seq_idx)


def causal_conv1d_fwd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    silu: bool,
) -> Tensor:
    """Returns out [B, D, L]; differentiable as often as one likes."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    width, length = weight.shape[1], x.shape[2]
    window, index = extended(x, width, initial_state, seq_idx)
    window, weight = window.to(wide), weight.to(wide)
    out = torch.zeros(x.shape, dtype=wide, device=x.device)
    same = torch.ones_like(seq_idx, dtype=torch.bool) if seq_idx is not None else None
    for k in reversed(range(width)):
        term = weight[:, k, None] * window[..., k : k + length]
        if index is not None and same is not None:
            # What lies behind another sequence is of another one, whatever its index.
            same = same & (index[:, k : k + length] == seq_idx)
            term = torch.where(same[:, None], term, 0)
        out = out + term
    if bias is not None:
        out = out + bias.to(wide)[:, None]
    if silu:
        out = F.silu(out)
    if seq_idx is not None:
        out = torch.where((seq_idx >= 0)[:, None], out, 0)
    return out.to(x.dtype)


def extended(
    x: Tensor, width: int, initial_state: Tensor | None, seq_idx: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """x behind the W - 1 steps before it [B, D, W - 1 + L], and their sequence indices."""
    if initial_state is None:
        before = x.new_zeros(*x.shape[:2], width - 1)
    else:
        before = initial_state.to(x.dtype)
    index = None
    if seq_idx is not None and seq_idx.shape[1] > 0:
        index = torch.cat([seq_idx[:, :1].expand(-1, width - 1), seq_idx], 1)
    return torch.cat([before, x], 2), index


def final_state(
    x: Tensor, width: int, initial_state: Tensor | None, seq_idx: Tensor | None
) -> Tensor:
    """The last W - 1 inputs [B, D, W - 1], those of earlier sequences 0."""
    window, index = extended(x, width, initial_state, seq_idx)
    last = window[..., x.shape[2] :]
    if index is None or seq_idx is None:
        return last
    same = index[:, x.shape[2] :] == seq_idx[:, -1:]
    # An index that came back after another sequence is a new sequence.
    same = same.flip(1).int().cummin(1).values.flip(1).bool() if width > 1 else same
    return torch.where(same[:, None], last, 0)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """The slow, obvious form of `suffuse.ops.causal_conv1d_update`, with the same arguments."""
    steps = x.unsqueeze(2) if x.dim() == 2 else x
    silu = activation is not None
    out = causal_conv1d_update_fwd(
        steps, conv_state, weight, bias, cache_seqlens, conv_state_indices, silu
    )
    return out.squeeze(2) if x.dim() == 2 else out


def causal_conv1d_update_fwd(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache_seqlens: Tensor | None,
    conv_state_indices: Tensor | None,
    silu: bool,
) -> Tensor:
    """x [B, D, L]; returns out [B, D, L] and updates conv_state [N, D, S]."""
    batch, _, length = x.shape
    past, places = weight.shape[1] - 1, conv_state.shape[2]
    slots = torch.arange(batch, device=x.device)
    if conv_state_indices is not None:
        slots = conv_state_indices.long()
    there = slots >= 0
    state = conv_state.detach()[slots.clamp(min=0)]
    if cache_seqlens is None:
        before = state[..., places - past :]
        after = torch.cat([state, x.detach()], 2)[..., length:]
    else:
        start = cache_seqlens.long()[:, None]
        order = torch.arange(-past, length, device=x.device)
        ring = ((start + order) % max(places, 1))[:, None].expand(-1, x.shape[1], -1)
        before, after = state.gather(2, ring[..., :past]), state.clone()
        for t in range(length if places else 0):
            after.scatter_(2, ring[..., past + t, None], x.detach()[..., t, None])
    out = causal_conv1d_fwd(x, weight, bias, before, None, silu)
    with torch.no_grad():
        conv_state[slots[there]] = after[there]
    return torch.where(there[:, None, None], out, 0)


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """x [T, D], cu_seqlens [B + 1] -> [B, D, state_len]: the last inputs of each sequence."""
    first, last = cu_seqlens[:-1, None].long(), cu_seqlens[1:, None].long()
    index = last + torch.arange(-state_len, 0, device=x.device)
    if x.shape[0] == 0:
        return x.new_zeros(index.shape[0], state_len, x.shape[1]).transpose(1, 2)
    inputs = torch.where((index >= first)[..., None], x[index.clamp(min=0)], 0)
    return inputs.transpose(1, 2)
