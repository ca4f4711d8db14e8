"""State-space duality: Mamba-2's scan in chunks of matrix products (Dao and Gu 2024, section 6).

The plain PyTorch formula, differentiable any number of times; states go from chunk to chunk through
`suffuse.linear_scan`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse.ops import linear_scan

CPU_CHUNK = 64  # steps whose products stay in the caches


def ssd(
    x: Tensor,
    log_decay: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(log_decay_t) h_{t-1} + x_t B_t^T, y_t = h_t C_t, with one decay a head.

    Args:
        x: inputs [B, T, H, P], already times their step sizes; float32 or float64.
        log_decay: [B, T, H], usually negative, x's dtype as all below.
        B, C: [B, T, G, N], shared by the H / G heads of a group.
        chunk_size: at most so many steps are a chunk (on the CPU never more than 64, whose products
            stay in the caches). Results agree up to rounding for any.
        initial_state: the state before the first step [B, H, P, N]; None is 0.
        seq_idx: integers [B, T]; the state starts from 0 again wherever the index differs from that
            of the step before.

    Returns:
        (y [B, T, H, P], the state after the last step [B, H, P, N]).

    Raises:
        ValueError: a chunk_size below 1, or shapes that do not fit.
    """
    batch, steps, heads, places = x.shape
    groups, states = B.shape[2:]
    if chunk_size < 1:
        raise ValueError(f"ssd: chunk_size: expected 1 or more, got {chunk_size}")
    if heads % groups:
        raise ValueError(f"ssd: B: expected a divisor of {heads} heads as groups, got {groups}")
    if initial_state is None:
        initial_state = x.new_zeros(batch, heads, places, states)
    if steps == 0:
        return x, initial_state
    chunk_size = min(chunk_size, steps, CPU_CHUNK if x.is_cpu else steps)
    pad = -steps % chunk_size
    x, B, C = (_chunks(v, pad, chunk_size) for v in (x, B, C))  # [B, heads or groups, K, Q, ...]
    log_decay = _chunks(log_decay[..., None], pad, chunk_size)[..., 0]
    segment = None if seq_idx is None else _segments(seq_idx, pad, chunk_size)
    so_far = log_decay.cumsum(-1)  # [B, H, K, Q]
    y, own = _within(x, so_far, B, C, segment)
    before, last = _across(own, so_far[..., -1], initial_state, segment)
    read = so_far.exp()
    if segment is not None:
        read = read * (segment == _ends_before(segment)[..., None])[:, None]
    y = y + _by_group(C, before.mT, heads) * read[..., None]
    y = y.permute(0, 2, 3, 1, 4).reshape(batch, steps + pad, heads, places)
    return y[:, :steps], last


def scan_with_steps(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`ssd` with step sizes, skip connection and gate, in float32 (float64 for a float64 x).

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, y_t = (h_t C_t + D x_t) silu(z_t).

    Args:
        x, z: [B, T, H, P]; z may be None.
        dt: [B, T, H].
        A: [H], negative.
        D: [H] or [H, P], or None.
        dt_bias: [H], or None.
        dt_softplus: whether dt + dt_bias goes through softplus.
        dt_limit: bounds of dt behind that.
        B, C, chunk_size, initial_state, seq_idx: see `ssd`.

    Returns:
        (y [B, T, H, P] in x's dtype, the state after the last step [B, H, P, N]).
    """
    inputs, log_decay, wide = discretised(x, dt, A, dt_bias, dt_softplus, dt_limit)
    if initial_state is not None:
        initial_state = initial_state.to(wide)
    y, last = ssd(
        inputs, log_decay, B.to(wide), C.to(wide), chunk_size=chunk_size,
        initial_state=initial_state, seq_idx=seq_idx,
    )  # fmt: skip
    if D is not None:
        y = y + x.to(wide) * (D[:, None] if D.dim() == 1 else D).to(wide)
    if z is not None:
        y = y * F.silu(z.to(wide))
    return y.to(x.dtype), last


def discretised(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    bias: Tensor | None,
    softplus: bool,
    limit: tuple[float, float],
) -> tuple[Tensor, Tensor, torch.dtype]:
    """(dt x, dt A, their dtype), as `ssd` takes them, from the arguments of `scan_with_steps`."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    dt = dt.to(wide)
    if bias is not None:
        dt = dt + bias.to(wide)
    if softplus:
        dt = F.softplus(dt)
    if tuple(limit) != (0.0, float("inf")):
        dt = dt.clamp(*limit)
    return x.to(wide) * dt[..., None], dt * A.to(wide), wide


def _chunks(v: Tensor, pad: int, size: int) -> Tensor:
    """[B, T, H, ...] -> [B, H, K, Q, ...], padded with zeros, which change nothing."""
    v = F.pad(v, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, size))
    return v.permute(0, 3, 1, 2, 4)


def _segments(seq_idx: Tensor, pad: int, size: int) -> Tensor:
    """[B, T] -> [B, K, Q]: how many sequences ended before a step."""
    changes = (seq_idx[:, 1:] != seq_idx[:, :-1]).cumsum(1)
    return F.pad(F.pad(changes, (1, 0)), (0, pad), "replicate").unflatten(1, (-1, size))


def _ends_before(segment: Tensor) -> Tensor:
    """Of each chunk, the segment of the step before it [B, K]: for the first chunk the first one."""
    return F.pad(segment[:, :-1, -1], (1, 0))


def _by_group(left: Tensor, right: Tensor, heads: int) -> Tensor:
    """left [B, G, K, Q, M] @ right [B, H, K, M, P], the left one shared by a group's heads."""
    groups = left.shape[1]
    product = left[:, :, None] @ right.unflatten(1, (groups, heads // groups))
    return product.flatten(1, 2)


def _within(
    x: Tensor, so_far: Tensor, B: Tensor, C: Tensor, segment: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Each chunk as if alone: its outputs [B, H, K, Q, P] and the state that it leaves [.., P, N]."""
    heads, groups, size = x.shape[1], B.shape[1], x.shape[3]
    seen = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()
    if segment is not None:
        seen = seen & (segment[..., :, None] == segment[..., None, :])[:, None]
    decay = (so_far[..., :, None] - so_far[..., None, :]).masked_fill(~seen, -torch.inf).exp()
    scores = (C @ B.mT)[:, :, None] * decay.unflatten(1, (groups, heads // groups))
    left = (so_far[..., -1:] - so_far).exp()
    if segment is not None:
        left = left * (segment == segment[..., -1:])[:, None]
    own = _by_group(B.mT, x * left[..., None], heads)  # [B, H, K, N, P]
    return scores.flatten(1, 2) @ x, own.mT


def _across(
    own: Tensor, log_decay: Tensor, initial_state: Tensor, segment: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States before each chunk [B, H, K, P, N] and behind the last, from the chunks' own."""
    batch, heads, chunks, places, states = own.shape
    decay = log_decay.exp()
    if segment is not None:
        decay = decay * (segment[..., -1] == _ends_before(segment))[:, None]
    behind, last = linear_scan(
        decay.reshape(batch * heads, 1, chunks),
        own.reshape(batch * heads, chunks, places * states).mT,
        initial_state=initial_state.reshape(batch * heads, places * states),
        return_last_state=True,
    )
    behind = behind.mT.reshape(own.shape)
    before = torch.cat([initial_state[:, :, None], behind[:, :, :-1]], 2)
    return before, last.reshape(initial_state.shape)
