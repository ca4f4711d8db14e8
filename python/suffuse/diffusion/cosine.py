"""The cosine process in continuous time, shifted and interpolated for the size of the pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from suffuse.diffusion.process import Process, Time, as_time

_HALVINGS = 60  # of the bracket of `time_of`: down to the spacing of float64 numbers


@dataclass(frozen=True)
class Cosine(Process):
    """Variance preserving with log(SNR) = -2 log tan(angle), the angle linear in t on [0, 1].

    Hoogeboom et al. 2023, "simple diffusion", section 3.1 (after Nichol & Dhariwal 2021): for
    pictures of side d, log(SNR) is shifted by 2 log(64 / d), because averaging neighbouring pixels
    takes noise away; the shift may differ at the two ends, linear in t between them.

    Attributes:
        clean_shift, noisy_shift: shift of log(SNR) at t = 0 and t = 1. `for_size` and
            `interpolated` compute them.
        logsnr_max, logsnr_min: log(SNR) before the shift at t = 0 and t = 1, both finite.
        t_clean: where the angle is 0, a little below 0.

    Training times are uniform on [0, 1].
    """

    clean_shift: float = 0.0
    noisy_shift: float = 0.0
    logsnr_max: float = 15.0
    logsnr_min: float = -15.0
    t_clean: float = field(init=False)

    t_max = 1.0

    def __post_init__(self) -> None:
        if not -math.inf < self.logsnr_min < self.logsnr_max < math.inf:
            raise ValueError(
                f"Cosine: logsnr_max, logsnr_min are {self.logsnr_max}, {self.logsnr_min}, "
                "expected finite numbers, logsnr_min < logsnr_max"
            )
        # log(SNR) without a shift falls at a rate of 4 speed or more.
        if not self.noisy_shift - self.clean_shift < 4 * self._speed:
            raise ValueError(
                f"Cosine: noisy_shift - clean_shift is {self.noisy_shift - self.clean_shift:g}, "
                f"expected less than {4 * self._speed:g}, as log(SNR) must fall"
            )
        object.__setattr__(self, "t_clean", -self._start / self._speed)

    @classmethod
    def for_size(cls, size: int, *, base: int = 64) -> Cosine:
        """Shifted by 2 log(base / size) for pictures of side `size`."""
        shift = 2 * math.log(base / size)
        return cls(shift, shift)

    @classmethod
    def interpolated(
        cls, size: int, *, noisy_base: int = 32, clean_base: int | None = None
    ) -> Cosine:
        """Shifted for `clean_base` (default `size`) at t = 0 and for `noisy_base` at t = 1.

        Keeps detail: little noise stays as for small pictures, much noise covers large structure.
        """
        clean_base = size if clean_base is None else clean_base
        return cls(2 * math.log(clean_base / size), 2 * math.log(noisy_base / size))

    @property
    def _start(self) -> float:
        return math.atan(math.exp(-0.5 * self.logsnr_max))

    @property
    def _speed(self) -> float:
        return math.atan(math.exp(-0.5 * self.logsnr_min)) - self._start

    def _angle(self, t: Tensor) -> Tensor:
        return self._start + self._speed * t

    def _half_logsnr(self, t: Tensor) -> Tensor:
        """lambda in float64: next to t = 1 the tangent of a float32 angle has lost its digits."""
        t = t.double()
        shift = self.clean_shift + t * (self.noisy_shift - self.clean_shift)
        return 0.5 * shift - torch.log(torch.tan(self._angle(t)))

    def _slope(self, t: Tensor) -> Tensor:
        """dlambda/dt, float64."""
        fall = 2 * self._speed / torch.sin(2 * self._angle(t.double()))
        return 0.5 * (self.noisy_shift - self.clean_shift) - fall

    def alpha(self, t: Time) -> Tensor:
        t = as_time(t)
        return torch.sigmoid(2 * self._half_logsnr(t)).sqrt().to(t.dtype)

    def sigma(self, t: Time) -> Tensor:
        t = as_time(t)
        return torch.sigmoid(-2 * self._half_logsnr(t)).sqrt().to(t.dtype)

    def time_of(self, lam: Time) -> Tensor:
        given = as_time(lam)
        value = given.double()
        if self.clean_shift == self.noisy_shift:
            angle = torch.atan(torch.exp(0.5 * self.clean_shift - value))
            return ((angle - self._start) / self._speed).to(given.dtype)
        # No closed form: halve the bracket of all angles between 0 and pi / 2.
        low = torch.full_like(value, self.t_clean)
        high = torch.full_like(value, (0.5 * math.pi - self._start) / self._speed)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            above = self._half_logsnr(middle) > value
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return (0.5 * (low + high)).to(given.dtype)

    def drift(self, t: Time) -> Tensor:
        # alpha^2 + sigma^2 = 1 makes d log(alpha)/dt = sigma^2 dlambda/dt.
        t = as_time(t)
        return (torch.sigmoid(-2 * self._half_logsnr(t)) * self._slope(t)).to(t.dtype)

    def diffusion(self, t: Time) -> Tensor:
        return torch.sqrt(-2 * self.drift(t))

    def training_time(self, u: Tensor) -> Tensor:
        return u
