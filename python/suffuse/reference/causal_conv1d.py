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
    for k in range(width):
        term = weight[:, k, None] * window[..., k : k + length]
        if index is not None and seq_idx is not None:
            same = index[:, k : k + length] == seq_idx
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
    if seq_idx is not None:
        index = torch.cat([seq_idx[:, :1].expand(-1, width - 1), seq_idx], 1)
    return torch.cat([before, x], 2), index


def final_state(
    x: Tensor, width: int, initial_state: Tensor | None, seq_idx: Tensor | None
) -> Tensor:
    """The last W - 1 inputs [B, D, W - 1], those of earlier sequences 0."""
    window, index = extended(x, width, initial_state, seq_idx)
    last = window[..., x.shape[2] :]
    if index is None or seq_idx is None or x.shape[2] == 0:
        return last
    same = index[:, x.shape[2] :] == seq_idx[:, -1:]
    # An index that came back after another sequence is a new sequence.
    same = same.flip(1).int().cummin(1).values.flip(1).bool() if width > 1 else same
    return torch.where(same[:, None], last, 0)
