"""The quantile function of the beta distribution, in float64 on tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TERMS = 30  # of the continued fraction: enough for a, b below 10
_ITERATIONS = 40  # Newton takes about 6; a halving instead where it would leave the bracket


def _fraction(x: Tensor, a: float, b: float) -> Tensor:
    """Continued fraction of the incomplete beta function (DLMF 8.17.22), Lentz' evaluation."""
    tiny = 1e-300
    c = torch.ones_like(x)
    d = 1 / (1 - (a + b) * x / (a + 1)).clamp(min=tiny)
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 + term * d
            d = 1 / torch.where(d.abs() < tiny, tiny, d)
            c = 1 + term / c
            c = torch.where(c.abs() < tiny, tiny, c)
            value = value * d * c
    return value


def _distribution(x: Tensor, a: float, b: float) -> Tensor:
    """The regularised incomplete beta function I_x(a, b) for 0 < x < 1."""
    log_norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = torch.exp(log_norm + a * torch.log(x) + b * torch.log1p(-x))
    # The fraction converges fast left of the mean; the symmetry covers the other side.
    left = x < (a + 1) / (a + b + 2)
    below = front * _fraction(torch.where(left, x, 0.5), a, b) / a
    above = 1 - front * _fraction(torch.where(left, 0.5, 1 - x), b, a) / b
    return torch.where(left, below, above)


def beta_quantile(p: Tensor, a: float, b: float) -> Tensor:
    """x with I_x(a, b) = p, for p in [0, 1] and a, b > 0: float64, shaped like p."""
    p = p.double()
    inner = p[(p > 0) & (p < 1)]
    x = torch.full_like(inner, 0.5)
    low, high = torch.zeros_like(inner), torch.ones_like(inner)
    log_norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(_ITERATIONS):
        error = _distribution(x, a, b) - inner
        if bool((error.abs() <= 1e-13 * inner).all()):
            break
        low, high = torch.where(error < 0, x, low), torch.where(error < 0, high, x)
        density = torch.exp(log_norm + (a - 1) * torch.log(x) + (b - 1) * torch.log1p(-x))
        newton = x - error / density
        inside = (newton >= low) & (newton <= high)
        x = torch.where(inside, newton, 0.5 * (low + high))
    quantiles = p.clamp(0, 1)
    quantiles[(p > 0) & (p < 1)] = x
    return quantiles
