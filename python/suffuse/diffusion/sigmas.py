"""Lists of noise levels, float64 [points], falling from sigma_max to sigma_min, both included.

`levels` of `suffuse.diffusion` turns a list into the time grid of a process. Without clean data: no
list ends with 0. One point alone is sigma_max.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suffuse.diffusion._beta_quantile import beta_quantile


def check_sigmas(name: str, points: int, sigma_min: float, sigma_max: float) -> None:
    """Refuse a list without points, or levels that do not fall."""
    if points < 1:
        raise ValueError(f"{name}: points is {points}, expected at least 1")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"{name}: sigma_min, sigma_max are {sigma_min}, {sigma_max}, "
            "expected 0 < sigma_min < sigma_max"
        )


def _ramp(points: int) -> Tensor:
    """Even from 1 down to 0."""
    return torch.linspace(1, 0, points, dtype=torch.float64)


def karras_sigmas(points: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Even in sigma^(1 / rho) (Karras et al. 2022, eq. 5); rho = 1 is even in sigma."""
    check_sigmas("karras_sigmas", points, sigma_min, sigma_max)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.linspace(high, low, points, dtype=torch.float64) ** rho


def exponential_sigmas(points: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Even in log(sigma): a geometric series (Song & Ermon 2019, section 3)."""
    check_sigmas("exponential_sigmas", points, sigma_min, sigma_max)
    low, high = math.log(sigma_min), math.log(sigma_max)
    return torch.exp(torch.linspace(high, low, points, dtype=torch.float64))


def polyexponential_sigmas(
    points: int, sigma_min: float, sigma_max: float, rho: float = 1.0
) -> Tensor:
    """log(sigma) = log(sigma_min) + u^rho log(sigma_max / sigma_min), u even from 1 to 0.

    rho = 1 is `exponential_sigmas`; rho > 1 has more levels near sigma_min.
    """
    check_sigmas("polyexponential_sigmas", points, sigma_min, sigma_max)
    if not rho > 0:
        raise ValueError(f"polyexponential_sigmas: rho is {rho}, expected more than 0")
    return sigma_min * torch.exp(_ramp(points) ** rho * math.log(sigma_max / sigma_min))


def beta_sigmas(
    points: int, sigma_min: float, sigma_max: float, a: float = 0.6, b: float = 0.6
) -> Tensor:
    """At even quantiles of the beta(a, b) distribution on [sigma_min, sigma_max].

    Lee et al. 2024, "Beta Sampling is All You Need"; a = b < 1 has more levels at both ends.
    """
    check_sigmas("beta_sigmas", points, sigma_min, sigma_max)
    if not (a > 0 and b > 0):
        raise ValueError(f"beta_sigmas: a, b are {a}, {b}, expected more than 0")
    return sigma_min + beta_quantile(_ramp(points), a, b) * (sigma_max - sigma_min)


def kl_optimal_sigmas(points: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Even in arctan(sigma): least KL divergence for Gaussian data of unit variance.

    Sabour et al. 2024, "Align Your Steps", the closed form for Gaussian data.
    """
    check_sigmas("kl_optimal_sigmas", points, sigma_min, sigma_max)
    low, high = math.atan(sigma_min), math.atan(sigma_max)
    return torch.tan(torch.linspace(high, low, points, dtype=torch.float64))


# Levels found by Sabour et al. 2024 for ten steps, as published for each family of checkpoints.
ALIGN_YOUR_STEPS: dict[str, tuple[float, ...]] = {
    "stable_diffusion": (
        *(14.615, 6.475, 3.861, 2.697, 1.886, 1.396),
        *(0.963, 0.652, 0.399, 0.152, 0.029),
    ),
    "stable_diffusion_xl": (
        *(14.615, 6.315, 3.771, 2.181, 1.342, 0.862),
        *(0.555, 0.380, 0.234, 0.113, 0.029),
    ),
    "stable_video_diffusion": (
        *(700.0, 54.5, 15.886, 7.977, 4.248, 1.789),
        *(0.981, 0.403, 0.173, 0.034, 0.002),
    ),
}


def align_your_steps_sigmas(points: int, family: str) -> Tensor:
    """The optimised levels of Sabour et al. 2024 ("Align Your Steps"), 11 or interpolated.

    family: one of `ALIGN_YOUR_STEPS`. For other numbers of points log(sigma) is interpolated
    linearly over the index, as the authors recommend.
    """
    if family not in ALIGN_YOUR_STEPS:
        names = ", ".join(ALIGN_YOUR_STEPS)
        raise ValueError(f"align_your_steps_sigmas: family is {family!r}, expected one of {names}")
    return interpolated_sigmas(ALIGN_YOUR_STEPS[family], points)


def interpolated_sigmas(sigmas: Sequence[float] | Tensor, points: int) -> Tensor:
    """A list of another length: log(sigma) linear over the index of `sigmas` (positive)."""
    if points < 1:
        raise ValueError(f"interpolated_sigmas: points is {points}, expected at least 1")
    table = torch.as_tensor(sigmas, dtype=torch.float64)
    if table.dim() != 1 or len(table) < 2 or not bool((table > 0).all()):
        raise ValueError("interpolated_sigmas: expected at least 2 positive sigmas in one row")
    logs = table.log()
    place = torch.linspace(0, len(table) - 1, points, dtype=torch.float64)
    left = place.floor().long().clamp(max=len(table) - 2)
    return torch.exp(logs[left] + (place - left) * (logs[left + 1] - logs[left]))


def linear_quadratic_sigmas(
    points: int, *, sigma_max: float = 1.0, threshold: float = 0.025, linear: int | None = None
) -> Tensor:
    """1 - sigma / sigma_max is linear up to `threshold` over `linear` points, then quadratic.

    The schedule of Mochi and Movie Gen (Polyak et al. 2024) for few steps of a flow:
    it would reach sigma = 0 at the next point. The quadratic part continues value and slope.

    linear: number of linear points, default points // 2; 0 < linear < points. One point alone is
        sigma_max.
    """
    check_sigmas("linear_quadratic_sigmas", points, math.ulp(0.0), sigma_max)
    if points == 1:
        return torch.tensor([sigma_max], dtype=torch.float64)
    linear = points // 2 if linear is None else linear
    if not (0 < linear < points and 0 < threshold < 1):
        raise ValueError(
            f"linear_quadratic_sigmas: linear, threshold are {linear}, {threshold}, "
            f"expected 0 < linear < {points} and 0 < threshold < 1"
        )
    slope = threshold / linear
    i = torch.arange(points, dtype=torch.float64)
    beyond = (i - linear).clamp(min=0)
    rest = points - linear
    curvature = (1 - slope * points) / rest**2
    return sigma_max * (1 - (slope * i + curvature * beyond**2))
