"""Processes given by a table of noise levels: the chain of DDPM, and its variance-exploding twin."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from suffuse.diffusion.process import Process, Time, as_time


class DiscreteProcess(Process):
    """A process with N tabulated levels. Final subclasses: `DiscreteVP`, `DiscreteVE`.

    The model's times are the integers 0..N-1; t = -1 is clean data (sigma = 0). Between integers
    lambda is linear; on an interval where one end is infinite (next to clean data, and the last one
    of a chain with zero terminal SNR) the angle arctan(sigma / alpha) is linear instead. Times
    outside [-1, N-1] count as the nearest end. Training times are uniform integers.
    """

    t_clean = -1.0

    def __init__(self, lam: Tensor, angle: Tensor) -> None:
        # One entry more than the table: entry i belongs to time i - 1, entry 0 to clean data.
        self._lam = lam
        self._angle = angle
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.t_max = float(len(lam) - 2)

    @abstractmethod
    def _levels(self, lam: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at float64 lambda."""

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
        return self._levels(self._lam64(t))[0].to(t.dtype)

    def sigma(self, t: Time) -> Tensor:
        t = as_time(t)
        return self._levels(self._lam64(t))[1].to(t.dtype)

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

    def _variance_rate(self, t: Tensor) -> Tensor:
        """-sigma^2 dlambda/dt, float64; lambda is -log tan(angle) on a curved interval."""
        lam, angle = self._tables(t.device)
        i = (t.double() + 1).floor().long().clamp(0, len(lam) - 2)
        now = self._lam64(t)
        alpha, sigma = self._levels(now)
        linear = -(sigma**2) * (lam[i + 1] - lam[i])
        # dlambda/dangle is -(sigma / alpha + alpha / sigma).
        curved = sigma * (alpha**2 + sigma**2) / alpha * (angle[i + 1] - angle[i])
        return torch.where(torch.isfinite(lam[i + 1] - lam[i]), linear, curved)

    def diffusion(self, t: Time) -> Tensor:
        t = as_time(t)
        return torch.sqrt(2 * self._variance_rate(t)).to(t.dtype)

    def training_time(self, u: Tensor) -> Tensor:
        return torch.floor(u * (self.t_max + 1)).clamp(max=self.t_max)


class DiscreteVP(DiscreteProcess):
    """The chain of DDPM: x at time i = 0..N-1 has alpha^2 = alphas_cumprod[i] (Ho et al. 2020).

    Args:
        alphas_cumprod: [N], decreasing, in [0, 1); any dtype, taken in float64. Pass a checkpoint's
            own table to reproduce its rounding; `from_betas` computes it.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        table = torch.as_tensor(alphas_cumprod, dtype=torch.float64, device="cpu")
        if table.dim() != 1 or len(table) == 0:
            shape = tuple(table.shape)
            raise ValueError(f"DiscreteVP: alphas_cumprod has shape {shape}, expected [N], N >= 1")
        full = torch.cat([table.new_ones(1), table])
        if not ((full[1:] < full[:-1]).all() and full[-1] >= 0):
            raise ValueError("DiscreteVP: alphas_cumprod must decrease from below 1 to 0 or more")
        super().__init__(
            lam=0.5 * (torch.log(full) - torch.log1p(-full)),
            angle=torch.atan2(torch.sqrt(1 - full), torch.sqrt(full)),
        )

    @classmethod
    def from_betas(cls, betas: Tensor) -> DiscreteVP:
        """The chain with noise variances `betas` [N], each in (0, 1] (1 only as the last)."""
        return cls(torch.cumprod(1 - torch.as_tensor(betas, dtype=torch.float64), 0))

    def _levels(self, lam: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()

    def drift(self, t: Time) -> Tensor:
        # alpha^2 + sigma^2 = 1 makes d log(alpha)/dt = sigma^2 dlambda/dt.
        t = as_time(t)
        return -self._variance_rate(t).to(t.dtype)


class DiscreteVE(DiscreteProcess):
    """Noise levels of a variance-exploding model: x at time i = 0..N-1 is x0 + sigmas[i] eps.

    Song & Ermon 2019 ("NCSN", where time runs the other way) and Song et al. 2021, eq. 9, whose
    levels are geometric: `exponential_sigmas(n, 0.01, 50.0).flip(0)`.

    Args:
        sigmas: [N], positive, increasing; any dtype, taken in float64.
    """

    def __init__(self, sigmas: Tensor) -> None:
        table = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
        if table.dim() != 1 or len(table) == 0:
            shape = tuple(table.shape)
            raise ValueError(f"DiscreteVE: sigmas has shape {shape}, expected [N], N >= 1")
        full = torch.cat([table.new_zeros(1), table])
        if not ((full[1:] > full[:-1]).all() and full[-1].isfinite()):
            raise ValueError("DiscreteVE: sigmas must increase from above 0 and be finite")
        super().__init__(lam=-torch.log(full), angle=torch.atan(full))

    def _levels(self, lam: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(lam), torch.exp(-lam)

    def drift(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))
