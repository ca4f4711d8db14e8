"""The discrete variance-preserving chain of DDPM and its beta tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suffuse.diffusion.process import Process, Time, as_time


def linear_betas(n: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Betas [n], float64, linear from start to end (Ho et al. 2020, section 4)."""
    return torch.linspace(start, end, n, dtype=torch.float64)


def scaled_linear_betas(n: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Betas [n], float64, whose square root is linear (latent diffusion; Rombach et al. 2022)."""
    return torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64) ** 2


def cosine_betas(n: int = 1000, *, offset: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Betas [n], float64, of the cosine schedule (Nichol & Dhariwal 2021, eq. 17)."""
    u = torch.arange(n + 1, dtype=torch.float64) / n
    alpha_bar = torch.cos((u + offset) / (1 + offset) * (math.pi / 2)) ** 2
    return torch.clamp(1 - alpha_bar[1:] / alpha_bar[:-1], max=max_beta)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas [n], float64, rescaled so that alpha is exactly 0 at the last time.

    alpha is shifted and stretched, its first value kept (Lin et al. 2024, "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", algorithm 1).
    """
    alpha = torch.cumprod(1 - betas.double(), 0).sqrt()
    alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    alpha_bar = torch.cat([alpha.new_ones(1), alpha**2])
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


class DiscreteVP(Process):
    """The chain of DDPM: x at time i = 0..N-1 has alpha^2 = alphas_cumprod[i] (Ho et al. 2020).

    The model's times are the integers 0..N-1; t = -1 is clean data (alpha = 1). Between integers
    lambda is linear; on an interval where one end is infinite (next to clean data, and the last one
    of a chain with zero terminal SNR) the angle arctan(sigma / alpha) is linear instead. Times
    outside [-1, N-1] count as the nearest end. Training times are uniform integers.

    Args:
        alphas_cumprod: [N], decreasing, in [0, 1); any dtype, taken in float64. Pass a checkpoint's
            own table to reproduce its rounding; `from_betas` computes it.
    """

    t_clean = -1.0

    def __init__(self, alphas_cumprod: Tensor) -> None:
        table = torch.as_tensor(alphas_cumprod, dtype=torch.float64, device="cpu")
        if table.dim() != 1 or len(table) == 0:
            shape = tuple(table.shape)
            raise ValueError(f"DiscreteVP: alphas_cumprod has shape {shape}, expected [N], N >= 1")
        full = torch.cat([table.new_ones(1), table])
        if not ((full[1:] < full[:-1]).all() and full[-1] >= 0):
            raise ValueError("DiscreteVP: alphas_cumprod must decrease from below 1 to 0 or more")
        # One entry more than the table: entry i belongs to time i - 1, entry 0 to clean data.
        self._lam = 0.5 * (torch.log(full) - torch.log1p(-full))
        self._angle = torch.atan2(torch.sqrt(1 - full), torch.sqrt(full))
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.t_max = float(len(table) - 1)

    @classmethod
    def from_betas(cls, betas: Tensor) -> DiscreteVP:
        """The chain with noise variances `betas` [N], each in (0, 1] (1 only as the last)."""
        return cls(torch.cumprod(1 - torch.as_tensor(betas, dtype=torch.float64), 0))

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._on_device:
            self._on_device[device] = (self._lam.to(device), self._angle.to(device))
        return self._on_device[device]

    def _lam64(self, t: Tensor) -> Tensor:
        lam, angle = self._tables(t.device)
        s = (t.double() + 1).clamp(0, len(lam) - 1)
        i = s.floor().long().clamp(max=len(lam) - 2)
        w = s - i
        low, high = lam[i], lam[i + 1]
        linear = low + w * (high - low)
        curved = -torch.log(torch.tan(angle[i] + w * (angle[i + 1] - angle[i])))
        between = torch.where(torch.isfinite(high - low), linear, curved)
        return torch.where(w == 0, low, torch.where(w == 1, high, between))

    def alpha(self, t: Time) -> Tensor:
        t = as_time(t)
        return torch.sigmoid(2 * self._lam64(t)).sqrt().to(t.dtype)

    def sigma(self, t: Time) -> Tensor:
        t = as_time(t)
        return torch.sigmoid(-2 * self._lam64(t)).sqrt().to(t.dtype)

    def time_of(self, lam: Time) -> Tensor:
        lam = as_time(lam)
        table, angle = self._tables(lam.device)
        value = lam.double()
        i = torch.searchsorted(-table, -value).clamp(1, len(table) - 1) - 1
        low, high = table[i], table[i + 1]
        linear = (value - low) / (high - low)
        curved = (torch.atan(torch.exp(-value)) - angle[i]) / (angle[i + 1] - angle[i])
        w = torch.where(torch.isfinite(high - low), linear, curved)
        return (i + w.clamp(0, 1) - 1).to(lam.dtype)

    def _drift64(self, t: Tensor) -> Tensor:
        # d log(alpha)/dt = sigma^2 dlambda/dt, with lambda = -log tan(angle) on a curved interval.
        lam, angle = self._tables(t.device)
        i = (t.double() + 1).floor().long().clamp(0, len(lam) - 2)
        now = self._lam64(t)
        linear = torch.sigmoid(-2 * now) * (lam[i + 1] - lam[i])
        curved = -torch.exp(-now) * (angle[i + 1] - angle[i])
        return torch.where(torch.isfinite(lam[i + 1] - lam[i]), linear, curved)

    def drift(self, t: Time) -> Tensor:
        t = as_time(t)
        return self._drift64(t).to(t.dtype)

    def diffusion(self, t: Time) -> Tensor:
        t = as_time(t)
        return torch.sqrt(-2 * self._drift64(t)).to(t.dtype)

    def training_time(self, u: Tensor) -> Tensor:
        return torch.floor(u * (self.t_max + 1)).clamp(max=self.t_max)
