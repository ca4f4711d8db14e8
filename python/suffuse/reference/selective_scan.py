"""The selective scan, written as its loop over time (Gu and Dao 2023, algorithm 2 and equation 2).

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t
    y_t = C_t h_t + D u_t                          (2 Re of C_t h_t where A is complex)

Half-precision inputs are computed in float32, as the kernels do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The slow, obvious form of `suffuse.ops.selective_scan`, with the same arguments and results."""
    out, last = selective_scan_fwd(
        u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx, delta_softplus, reverse
    )
    return (out, last) if return_last_state else out


def selective_scan_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Returns out [B, D, L] and the last state [B, D, N]; differentiable as often as one likes."""
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    batch, channels, length = u.shape
    x, step = u.to(wide), delta.to(wide)
    if delta_bias is not None:
        step = step + delta_bias.to(wide)[:, None]
    if delta_softplus:
        step = F.softplus(step)
    if initial_state is None:
        state = A.new_zeros(batch, channels, A.shape[1])
    else:
        state = initial_state.to(A.dtype)
    b, c = _per_channel(B, channels, A.dtype), _per_channel(C, channels, A.dtype)
    outputs: list[Tensor] = []
    for t in reversed(range(length)) if reverse else range(length):
        before = t + 1 if reverse else t - 1
        if seq_idx is not None and outputs:
            state = torch.where((seq_idx[:, t] == seq_idx[:, before])[:, None, None], state, 0)
        decay = torch.exp(step[:, :, t, None] * A)
        state = decay * state + (step[:, :, t] * x[:, :, t])[:, :, None] * b(t)
        y = (state * c(t)).sum(-1)
        outputs.append(2 * y.real if A.is_complex() else y)
    if reverse:
        outputs.reverse()
    out = torch.stack(outputs, -1) if outputs else torch.zeros_like(x)
    if D is not None:
        out = out + D.to(wide)[:, None] * x
    if z is not None:
        out = out * F.silu(z.to(wide))
    return out.to(u.dtype), state


def _per_channel(matrix: Tensor, channels: int, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    """t -> B_t or C_t [D, N] or [B, D, N]."""
    matrix = matrix.to(dtype)
    if matrix.dim() == 2:
        return lambda t: matrix
    if matrix.dim() == 3:
        matrix = matrix.unsqueeze(1)
    repeated = matrix.repeat_interleave(channels // matrix.shape[1], 1)
    return lambda t: repeated[..., t]


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """The slow, obvious form of `suffuse.ops.selective_state_update`: state [B, (H,) D, N] in place."""
    return selective_state_update_fwd(
        state, x, dt, A, B, C, D, z, dt_bias, dt_softplus, state_batch_indices
    )


def selective_state_update_fwd(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    state_batch_indices: Tensor | None,
) -> Tensor:
    """Returns out in x's shape; gradients reach all but the state, which is data."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    slots = torch.arange(x.shape[0], device=x.device)
    if state_batch_indices is not None:
        slots = state_batch_indices.long()
    there = slots >= 0
    slots = slots[there]
    step = dt[there].to(wide)
    if dt_bias is not None:
        step = step + dt_bias.to(wide)
    if dt_softplus:
        step = F.softplus(step)
    u = x[there].to(wide)

    def of_channels(matrix: Tensor) -> Tensor:  # [B, N] or [B, G, N] -> [B, D, N] or [B, H, 1, N]
        matrix = matrix[there].to(wide)
        matrix = matrix.unsqueeze(1) if matrix.dim() == 2 else matrix
        matrix = matrix.repeat_interleave(x.shape[1] // matrix.shape[1], 1)
        return matrix.unsqueeze(2) if x.dim() == 3 else matrix

    before = state.detach()[slots].to(wide)
    after = torch.exp(step[..., None] * A.to(wide)) * before
    after = after + (step * u)[..., None] * of_channels(B)
    state.detach()[slots] = after.detach().to(state.dtype)
    out = (after * of_channels(C)).sum(-1)
    if D is not None:
        out = out + D.to(wide) * u
    if z is not None:
        out = out * F.silu(z[there].to(wide))
    return x.new_zeros(x.shape).index_put((there,), out.to(x.dtype))
