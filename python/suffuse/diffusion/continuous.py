"""The processes with continuous time and their closed forms: VP, sub-VP, VE, flow and EDM."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse.diffusion.process import Process, Time, as_time


def _check_betas(name: str, beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min <= beta_max:
        raise ValueError(
            f"{name}: beta_min, beta_max are {beta_min}, {beta_max}, "
            "expected 0 < beta_min <= beta_max"
        )


def _beta(t: Time, beta_min: float, beta_max: float) -> Tensor:
    """beta(t), linear on [0, 1]; the drift of x is -beta / 2."""
    return beta_min + as_time(t) * (beta_max - beta_min)


def _log_alpha(t: Time, beta_min: float, beta_max: float) -> Tensor:
    """-1/2 integral of beta from 0 to t."""
    t = as_time(t)
    return -t * (0.25 * t * (beta_max - beta_min) + 0.5 * beta_min)


def _time_of_log_alpha(minus_log_alpha: Tensor, beta_min: float, beta_max: float) -> Tensor:
    # a t^2 + b t = c; this root formula has no cancellation.
    a, b = 0.25 * (beta_max - beta_min), 0.5 * beta_min
    return 2 * minus_log_alpha / (b + torch.sqrt(b * b + 4 * a * minus_log_alpha))


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving, alpha^2 + sigma^2 = 1, with beta(t) linear in t on [0, 1].

    Song et al. 2021, "Score-Based Generative Modeling through SDEs", eq. 32-33. Training times are
    uniform on [t_min, 1].
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5

    t_max = 1.0
    t_clean = 0.0

    def __post_init__(self) -> None:
        _check_betas("VP", self.beta_min, self.beta_max)

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(_log_alpha(t, self.beta_min, self.beta_max))

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt(-torch.expm1(2 * _log_alpha(t, self.beta_min, self.beta_max)))

    def time_of(self, lam: Time) -> Tensor:
        # alpha^2 = sigmoid(2 lambda)
        minus_log_alpha = 0.5 * F.softplus(-2 * as_time(lam), threshold=1e9)
        return _time_of_log_alpha(minus_log_alpha, self.beta_min, self.beta_max)

    def drift(self, t: Time) -> Tensor:
        return -0.5 * _beta(t, self.beta_min, self.beta_max)

    def diffusion(self, t: Time) -> Tensor:
        return torch.sqrt(_beta(t, self.beta_min, self.beta_max))

    def training_time(self, u: Tensor) -> Tensor:
        return self.t_min + (1 - self.t_min) * u


@dataclass(frozen=True)
class SubVP(Process):
    """Sub-VP: alpha as in `VP` and sigma = 1 - alpha^2, so that the variance is never above 1.

    Song et al. 2021, eq. 28-29; the SDE has g^2 = beta (1 - alpha^4). Training times are uniform
    on [t_min, 1].
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5

    t_max = 1.0
    t_clean = 0.0

    def __post_init__(self) -> None:
        _check_betas("SubVP", self.beta_min, self.beta_max)

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(_log_alpha(t, self.beta_min, self.beta_max))

    def sigma(self, t: Time) -> Tensor:
        return -torch.expm1(2 * _log_alpha(t, self.beta_min, self.beta_max))

    def time_of(self, lam: Time) -> Tensor:
        # sigma / alpha = 1 / alpha - alpha = 2 sinh(-log(alpha)) = e^-lambda
        minus_log_alpha = torch.asinh(0.5 * torch.exp(-as_time(lam)))
        return _time_of_log_alpha(minus_log_alpha, self.beta_min, self.beta_max)

    def drift(self, t: Time) -> Tensor:
        return -0.5 * _beta(t, self.beta_min, self.beta_max)

    def diffusion(self, t: Time) -> Tensor:
        missing = -torch.expm1(4 * _log_alpha(t, self.beta_min, self.beta_max))
        return torch.sqrt(_beta(t, self.beta_min, self.beta_max) * missing)

    def training_time(self, u: Tensor) -> Tensor:
        return self.t_min + (1 - self.t_min) * u


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding, alpha = 1 and sigma = sigma_min (sigma_max / sigma_min)^t on [0, 1].

    Song et al. 2021, eq. 30-31. sigma is 0 only at t = -inf (`t_clean`), which a time grid may end
    with. Training times are uniform on [0, 1].
    """

    sigma_min: float = 0.01
    sigma_max: float = 1348.0

    t_max = 1.0
    t_clean = -math.inf

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"VE: sigma_min, sigma_max are {self.sigma_min}, {self.sigma_max}, "
                "expected 0 < sigma_min < sigma_max"
            )

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Time) -> Tensor:
        return torch.ones_like(as_time(t))

    def sigma(self, t: Time) -> Tensor:
        return self.sigma_min * torch.exp(self._log_ratio * as_time(t))

    def time_of(self, lam: Time) -> Tensor:
        return (-as_time(lam) - math.log(self.sigma_min)) / self._log_ratio

    def drift(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))

    def diffusion(self, t: Time) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self._log_ratio)

    def training_time(self, u: Tensor) -> Tensor:
        return u


@dataclass(frozen=True)
class Flow(Process):
    """Straight line from data (t = 0) to noise (t = 1): alpha = 1 - t, sigma = t.

    Rectified flow / flow matching: Lipman et al. 2023, "Flow Matching for Generative Modeling", eq.
    22 with sigma_min = 0; Liu et al. 2023, eq. 1 (both with time running the other way). Training
    times are uniform on [0, 1].
    """

    t_max = 1.0
    t_clean = 0.0
    straight = True

    def alpha(self, t: Time) -> Tensor:
        return 1 - as_time(t)

    def sigma(self, t: Time) -> Tensor:
        return as_time(t).clone()

    def time_of(self, lam: Time) -> Tensor:
        return torch.sigmoid(-as_time(lam))

    def drift(self, t: Time) -> Tensor:
        return -1 / (1 - as_time(t))

    def diffusion(self, t: Time) -> Tensor:
        t = as_time(t)
        return torch.sqrt(2 * t / (1 - t))

    def training_time(self, u: Tensor) -> Tensor:
        return u


@dataclass(frozen=True)
class EDM(Process):
    """Karras et al. 2022: alpha = 1, sigma = t.

    Training times are log-normal, ln t ~ N(log_mean, log_std^2) (their table 1). `t_max` is the
    noise level where sampling starts.
    """

    t_max: float = 80.0
    log_mean: float = -1.2
    log_std: float = 1.2

    t_clean = 0.0

    def __post_init__(self) -> None:
        if not (self.t_max > 0 and self.log_std >= 0):
            raise ValueError(
                f"EDM: t_max, log_std are {self.t_max}, {self.log_std}, "
                "expected t_max > 0 and log_std >= 0"
            )

    def alpha(self, t: Time) -> Tensor:
        return torch.ones_like(as_time(t))

    def sigma(self, t: Time) -> Tensor:
        return as_time(t).clone()

    def time_of(self, lam: Time) -> Tensor:
        return torch.exp(-as_time(lam))

    def drift(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))

    def diffusion(self, t: Time) -> Tensor:
        return torch.sqrt(2 * as_time(t))

    def training_time(self, u: Tensor) -> Tensor:
        tiny = torch.finfo(u.dtype).eps  # u = 0 would be t = 0
        return torch.exp(self.log_mean + self.log_std * torch.special.ndtri(u.clamp(min=tiny)))
