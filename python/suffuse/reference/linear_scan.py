"""The linear recurrence h_t = a_t h_{t-1} + x_t, written as its loop over time.

Half-precision inputs are computed in float32, as the kernels do.
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_scan(
    a: Tensor,
    x: Tensor,
    *,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The slow, obvious form of `suffuse.ops.linear_scan`, with the same arguments and results."""
    a = (a[:, None] if a.dim() == 1 else a).expand(x.shape)
    h, last = linear_scan_fwd(a, x, initial_state, seq_idx, reverse, False)
    return (h, last) if return_last_state else h


def linear_scan_fwd(
    a: Tensor,
    x: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
    lagged: bool,
) -> tuple[Tensor, Tensor]:
    """Returns h [B, C, T] and the last state [B, C].

    lagged: a_t takes the state from t to the step after it (its last one out of the scan), instead
    of into t.
    """
    half = x.dtype in (torch.bfloat16, torch.float16)
    wide = torch.float32 if half else x.dtype
    length = x.shape[2]
    state = x.new_zeros(x.shape[:2], dtype=wide) if initial_state is None else initial_state
    steps = list(reversed(range(length))) if reverse else list(range(length))
    states: list[Tensor] = []
    for i, t in enumerate(steps):
        if seq_idx is not None and i:
            same = seq_idx[:, t] == seq_idx[:, steps[i - 1]]
            state = torch.where(same[:, None], state, 0)
        if not lagged:
            state = a[:, :, t].to(wide) * state
        elif i:
            state = a[:, :, steps[i - 1]].to(wide) * state
        state = state + x[:, :, t].to(wide)
        states.append(state)
    if lagged and length:
        state = a[:, :, steps[-1]].to(wide) * state
    if reverse:
        states.reverse()
    h = torch.stack(states, -1) if states else torch.zeros_like(x)
    return h.to(x.dtype), state
