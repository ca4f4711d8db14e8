"""The linear recurrent unit (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from suffuse.nn import _diagonal

__all__ = ["LRU"]


class LRU(_diagonal.DiagonalLayer):
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
        self.d_model, self.d_state, self.complex_states = d_model, d_state, d_state
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

    def _system(self) -> tuple[Tensor, Tensor, Tensor]:
        """lambda [N], gamma B [N, H], C [H, N]."""
        wide = _diagonal.wide_of(self.D)
        nu, theta = self.nu_log.to(wide).exp(), self.theta_log.to(wide).exp()
        decay = torch.polar((-nu).exp(), theta)
        gamma = self.gamma_log.to(wide).exp()[:, None]
        B = torch.complex(gamma * self.B_re.to(wide), gamma * self.B_im.to(wide))
        return decay, B, torch.complex(self.C_re.to(wide), self.C_im.to(wide))
