"""Complex diagonal recurrences between dense matrices, as LRU and S5 have them."""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse.ops import linear_scan


def wide_of(parameter: Tensor) -> torch.dtype:
    """The real dtype that a layer computes in: float32, or float64 for float64 parameters."""
    return torch.promote_types(parameter.dtype, torch.float32)


def scan(
    u: Tensor, decay: Tensor, B: Tensor, C: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """x_t = decay x_{t-1} + B u_t, y_t = Re(C x_t).

    Args:
        u: [B, T, H], real, of the precision of decay.
        decay: [N], complex as B [N, H] and C [H, N].
        state: before the first step [B, N]; None: 0.

    Returns:
        (y [B, T, H], the last state [B, N]).
    """
    inputs = torch.complex(B.real @ u.mT, B.imag @ u.mT)  # [B, N, T]
    x, last = linear_scan(decay, inputs, initial_state=state, return_last_state=True)
    return (C.real @ x.real - C.imag @ x.imag).mT, last


def step(u: Tensor, decay: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One step of `scan`: u [B, H], state [B, N] -> (y [B, H], the new state)."""
    state = decay * state + torch.complex(u @ B.real.mT, u @ B.imag.mT)
    return state.real @ C.real.mT - state.imag @ C.imag.mT, state
