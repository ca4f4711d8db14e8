"""mamba_ssm.ops.triton.ssd_combined: the scan of Mamba-2, alone and with all around it.

In chunks of matrix products, as plain PyTorch around `suffuse.linear_scan` (see `suffuse.nn.ssd`).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse import ops
from suffuse.nn.gated_norm import gated_norm
from suffuse.nn.ssd import discretised, scan_with_steps

__all__ = ["mamba_chunk_scan", "mamba_chunk_scan_combined", "mamba_split_conv1d_scan_combined"]


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
    state_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, out_t = (h_t C_t + D x_t) silu(z_t).

    Args:
        x, z: [B, L, H, P]; z may be None.
        dt: [B, L, H].
        A: [H], negative.
        B, C: [B, L, G, N].
        chunk_size: the largest chunk, see `suffuse.nn.ssd.ssd`.
        D: [H] or [H, P], or None.
        dt_bias: [H], or None.
        initial_states: [B, H, P, N], or None for 0.
        seq_idx: int32 [B, L]: the state starts from 0 again where the index changes.
        cu_seqlens: where packed sequences begin, and L [S + 1], for B = 1; also keeps them apart where
            seq_idx is None.
        dt_softplus: whether dt + dt_bias goes through softplus.
        dt_limit: bounds of dt behind that.
        return_final_states: also return the state after the last step.
        return_varlen_states: also return the states after each sequence of cu_seqlens [S, H, P, N].
        state_dtype: of the returned states; None: float32 (float64 for a float64 x).

    Returns:
        out [B, L, H, P], or (out, final states, varlen states) without what is not asked for.

    Raises:
        ValueError: return_varlen_states without cu_seqlens, or cu_seqlens with a batch.
    """
    if return_varlen_states and cu_seqlens is None:
        raise ValueError("mamba_chunk_scan_combined: cu_seqlens: expected a tensor, got None")
    if cu_seqlens is not None and x.shape[0] != 1:
        raise ValueError(
            f"mamba_chunk_scan_combined: cu_seqlens: expected a batch of 1, got {x.shape[0]}"
        )
    if seq_idx is None and cu_seqlens is not None:
        seq_idx = _indices(cu_seqlens, x.shape[1])
    y, last = scan_with_steps(
        x, dt, A, B, C, D=D, z=z, dt_bias=dt_bias, dt_softplus=dt_softplus, dt_limit=dt_limit,
        chunk_size=chunk_size, initial_state=initial_states, seq_idx=seq_idx,
    )  # fmt: skip
    results = [y]
    if return_final_states:
        results.append(last.to(state_dtype or last.dtype))
    if return_varlen_states:
        assert cu_seqlens is not None  # checked above
        inputs, log_decay, wide = discretised(x, dt, A, dt_bias, dt_softplus, dt_limit)
        states = _states_of_sequences(inputs, log_decay, B.to(wide), initial_states, cu_seqlens)
        results.append(states.to(state_dtype or wide))
    return results[0] if len(results) == 1 else tuple(results)


def _indices(cu_seqlens: Tensor, length: int) -> Tensor:
    """[S + 1] -> seq_idx [1, L]."""
    steps = torch.arange(length, device=cu_seqlens.device)
    return torch.bucketize(steps, cu_seqlens[1:].contiguous(), right=True).int()[None]


def _states_of_sequences(
    x: Tensor, log_decay: Tensor, B: Tensor, initial: Tensor | None, cu_seqlens: Tensor
) -> Tensor:
    """The state after each sequence [S, H, P, N]; the initial one belongs to the first."""
    heads = x.shape[2]
    starts = cu_seqlens.tolist()
    states: list[Tensor] = []
    for start, end in pairwise(starts):
        decay = log_decay[0, start:end]
        left = (decay.flip(0).cumsum(0).flip(0) - decay).exp()  # of all later steps
        inputs = (x[0, start:end] * left[..., None]).permute(1, 2, 0)  # [H, P, T]
        keys = B[0, start:end].repeat_interleave(heads // B.shape[2], 1)
        state = inputs @ keys.transpose(0, 1)
        if initial is not None and not states:
            state = state + initial[0].to(state.dtype) * decay.sum(0).exp()[:, None, None]
        states.append(state)
    return torch.stack(states)


def mamba_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """`mamba_chunk_scan_combined` without states."""
    out = mamba_chunk_scan_combined(
        x, dt, A, B, C, chunk_size, D, z, dt_bias, dt_softplus=dt_softplus
    )
    assert isinstance(out, Tensor)
    return out


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    activation: str | None = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
    state_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """A Mamba-2 layer behind its first projection: convolution, scan, gate and norm, last projection.

    Args:
        zxbcdt: [B, L, 2 M + 2 H P + 2 G N + H]: M channels of a gated MLP (gate and value; M may be
            0), gate, x, B, C and dt.
        conv1d_weight, conv1d_bias: [H P + 2 G N, W] and [H P + 2 G N] (or None).
        dt_bias, A: [H].
        D: [H] or [H, P].
        chunk_size: the largest chunk, see `suffuse.nn.ssd.ssd`.
        initial_states: [B, H, P, N], or None for 0.
        seq_idx: int32 [B, L]: sequences packed into one row.
        dt_limit: bounds of softplus(dt + dt_bias).
        return_final_states: also return the state after the last step.
        activation: behind the convolution: None, "silu" or "swish".
        rmsnorm_weight: [H P]; None: the gate without a norm.
        rmsnorm_eps: its eps.
        outproj_weight, outproj_bias: [E, M + H P] and [E]; None: no projection, no bias.
        headdim: P, where D is [H].
        ngroups: G. The norm is over H P / G channels.
        norm_before_gate: norm(y) silu(z) instead of norm(y silu(z)).
        state_dtype: of the returned state.

    Returns:
        out [B, L, E or M + H P], or (out, final states).

    Raises:
        ValueError: a D of [H] without headdim; an outproj_bias without an outproj_weight.
    """
    op = "mamba_split_conv1d_scan_combined"
    if D.dim() == 1 and headdim is None:
        raise ValueError(f"{op}: headdim: expected a number with a D of one dimension, got None")
    if outproj_bias is not None and outproj_weight is None:
        raise ValueError(f"{op}: outproj_weight: expected a tensor with outproj_bias, got None")
    heads = D.shape[0]
    channels = heads * (D.shape[1] if headdim is None else headdim)
    mixed = conv1d_weight.shape[0]
    mlp = (zxbcdt.shape[-1] - channels - mixed - heads) // 2
    gated, z, xbc, dt = zxbcdt.split([2 * mlp, channels, mixed, heads], -1)
    xbc = ops.causal_conv1d(
        xbc.mT, conv1d_weight, conv1d_bias, activation=activation, seq_idx=seq_idx
    ).mT  # type: ignore[union-attr]
    keys = (mixed - channels) // 2
    x, B, C = xbc.split([channels, keys, keys], -1)
    result = mamba_chunk_scan_combined(
        x.unflatten(-1, (heads, -1)), dt, A, B.unflatten(-1, (ngroups, -1)),
        C.unflatten(-1, (ngroups, -1)), chunk_size, D,
        z.unflatten(-1, (heads, -1)) if rmsnorm_weight is None else None, dt_bias, initial_states,
        seq_idx, dt_softplus=True, dt_limit=dt_limit, return_final_states=True,
        state_dtype=state_dtype,
    )  # fmt: skip
    out, last = result[0].flatten(2), result[1]
    if rmsnorm_weight is not None:
        out = gated_norm(
            out, rmsnorm_weight, gate=z, eps=rmsnorm_eps, group_size=channels // ngroups,
            norm_before_gate=norm_before_gate,
        )  # fmt: skip
    if mlp:
        gate, value = gated.chunk(2, -1)
        out = torch.cat([F.silu(gate) * value, out], -1)
    if outproj_weight is not None:
        out = F.linear(out, outproj_weight, outproj_bias)
    return (out, last) if return_final_states else out
