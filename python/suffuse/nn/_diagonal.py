"""Complex diagonal recurrences between dense matrices, as LRU and S5 have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


class DiagonalLayer(nn.Module):
    """y = Re(C x) + D u around the recurrence: [B, T, H] -> [B, T, H], all at once or step by step.

    Attributes:
        D: [H], a parameter.
        complex_states: of the recurrence, N.
    """

    D: nn.Parameter
    complex_states: int

    def _system(self) -> tuple[Tensor, Tensor, Tensor]:
        """decay [N], B [N, H], C [H, N]."""
        raise NotImplementedError

    def forward(self, x: Tensor, cache: Tensor | None = None) -> Tensor:
        """All steps at once.

        Args:
            x: [B, T, H].
            cache: goes on from it and leaves the last state in it (which is data: no gradient);
                None: from 0.
        """
        u = x.to(wide_of(self.D))
        state = None if cache is None else cache.clone()
        y, last = scan(u, *self._system(), state)
        if cache is not None:
            cache.copy_(last.detach())
        return (y + self.D * u).to(x.dtype)

    def step(self, x: Tensor, cache: Tensor) -> Tensor:
        """One step [B, H] -> [B, H]; the cache moves on in place. The states are data: no gradient."""
        u = x.to(wide_of(self.D))
        y, state = step(u, *self._system(), cache.clone())
        cache.copy_(state.detach())
        return (y + self.D * u).to(x.dtype)

    def allocate_cache(self, batch_size: int) -> Tensor:
        """The state before the first step: zeros, complex [B, N]."""
        dtype = torch.complex128 if self.D.dtype == torch.float64 else torch.complex64
        return self.D.new_zeros(batch_size, self.complex_states, dtype=dtype)
