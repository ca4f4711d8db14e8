"""The linear recurrent unit (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from suffuse.nn import _diagonal

__all__ = ["LRU"]


class LRU(nn.Module):
    """x_t = lambda x_{t-1} + gamma B u_t, y_t = Re(C x_t) + D u_t: [B, T, H] -> [B, T, H].

    lambda = exp(-exp(nu_log) + i exp(theta_log)) stays within the unit circle.

    Args:
        d_model: H.
        d_state: complex states, N.
        r_min, r_max: |lambda| starts uniformly in the ring between them.
        max_phase: and its phase uniformly in [0, max_phase].

    Raises:
        ValueError: radii that are not 0 <= r_min < r_max < 1.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        r_min: float = 0.0,
        r_max: float = 0.99,
        max_phase: float = 2 * math.pi,
    ) -> None:
        super().__init__()
        if not 0 <= r_min < r_max < 1:
            raise ValueError(
                f"LRU: r_min, r_max: expected 0 <= r_min < r_max < 1, got {r_min}, {r_max}"
            )
        self.d_model, self.d_state = d_model, d_state
        square = torch.rand(d_state) * (r_max**2 - r_min**2) + r_min**2
        nu = (-0.5 * square.clamp(min=1e-12).log()).log()
        self.nu_log = nn.Parameter(nu)
        self.theta_log = nn.Parameter((max_phase * torch.rand(d_state)).clamp(min=1e-12).log())
        self.gamma_log = nn.Parameter(0.5 * (-torch.expm1(-2 * nu.exp())).log())
        self.B_re, self.B_im = (
            nn.Parameter(torch.randn(d_state, d_model) / math.sqrt(2 * d_model)) for _ in range(2)
        )
        self.C_re, self.C_im = (
            nn.Parameter(torch.randn(d_model, d_state) / math.sqrt(d_state)) for _ in range(2)
        )
        self.D = nn.Parameter(torch.randn(d_model))

    def forward(self, x: Tensor, cache: Tensor | None = None) -> Tensor:
        """All steps at once.

        Args:
            x: [B, T, H].
            cache: goes on from it and leaves the last state in it (which is data: no gradient);
                None: from 0.
        """
        u = x.to(_diagonal.wide_of(self.D))
        state = None if cache is None else cache.clone()
        y, last = _diagonal.scan(u, *self._system(), state)
        if cache is not None:
            cache.copy_(last.detach())
        return (y + self.D * u).to(x.dtype)

    def step(self, x: Tensor, cache: Tensor) -> Tensor:
        """One step [B, H] -> [B, H]; the cache moves on in place. The states are data: no gradient."""
        u = x.to(_diagonal.wide_of(self.D))
        y, state = _diagonal.step(u, *self._system(), cache.clone())
        cache.copy_(state.detach())
        return (y + self.D * u).to(x.dtype)

    def allocate_cache(self, batch_size: int) -> Tensor:
        """The state before the first step: zeros, complex [B, N]."""
        dtype = torch.complex128 if self.D.dtype == torch.float64 else torch.complex64
        return self.D.new_zeros(batch_size, self.d_state, dtype=dtype)

    def _system(self) -> tuple[Tensor, Tensor, Tensor]:
        """lambda [N], gamma B [N, H], C [H, N]."""
        wide = _diagonal.wide_of(self.D)
        nu, theta = self.nu_log.to(wide).exp(), self.theta_log.to(wide).exp()
        decay = torch.polar((-nu).exp(), theta)
        gamma = self.gamma_log.to(wide).exp()[:, None]
        B = torch.complex(gamma * self.B_re.to(wide), gamma * self.B_im.to(wide))
        return decay, B, torch.complex(self.C_re.to(wide), self.C_im.to(wide))
