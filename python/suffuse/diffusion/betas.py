"""Tables of betas, the noise variances of a discrete variance-preserving chain, float64 [n]."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def linear_betas(n: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Betas [n], float64, linear from start to end (Ho et al. 2020, section 4)."""
    return torch.linspace(start, end, n, dtype=torch.float64)


def scaled_linear_betas(n: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Betas [n], float64, whose square root is linear (latent diffusion; Rombach et al. 2022)."""
    return torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64) ** 2


def sigmoid_betas(
    n: int = 1000, start: float = 1e-4, end: float = 0.02, *, span: float = 6.0
) -> Tensor:
    """Betas [n], float64, start + (end - start) sigmoid(u), u even on [-span, span] (GeoDiff)."""
    u = torch.linspace(-span, span, n, dtype=torch.float64)
    return start + (end - start) * torch.sigmoid(u)


def cosine_betas(n: int = 1000, *, offset: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Betas [n], float64, of the cosine schedule (Nichol & Dhariwal 2021, eq. 17)."""
    return betas_of_alpha_bar(
        lambda u: torch.cos((u + offset) / (1 + offset) * (math.pi / 2)) ** 2, n, max_beta=max_beta
    )


def exponential_betas(n: int = 1000, *, rate: float = 12.0, max_beta: float = 0.999) -> Tensor:
    """Betas [n], float64, of alpha^2 = exp(-rate u), u in [0, 1]: all betas are equal."""
    return betas_of_alpha_bar(lambda u: torch.exp(-rate * u), n, max_beta=max_beta)


def laplace_betas(n: int = 1000, *, max_beta: float = 0.999) -> Tensor:
    """Betas [n], float64, with log(SNR) Laplace-distributed (Hang et al. 2024, table 1).

    alpha^2 = sqrt(r / (1 + r)) with log r = -sign(1/2 - u) / 2 log(1 - |1 - 2 u|), as the peer
    library tabulates it; 1e-6 keeps the logarithm finite.
    """

    def alpha_bar(u: Tensor) -> Tensor:
        centred = 0.5 - u
        # The sign of +0 is +1 here: at u = 1/2 the logarithm is not quite 0.
        sign = torch.where(centred < 0, -1.0, 1.0)
        log_ratio = -0.5 * sign * torch.log(1 - 2 * centred.abs() + 1e-6)
        return torch.sigmoid(log_ratio).sqrt()

    return betas_of_alpha_bar(alpha_bar, n, max_beta=max_beta)


def betas_of_alpha_bar(
    alpha_bar: Callable[[Tensor], Tensor], n: int, *, max_beta: float = 0.999
) -> Tensor:
    """Betas [n], float64, of a chain whose alpha^2 at u = i / n is alpha_bar(u), i = 0..n.

    alpha_bar: maps float64 [n + 1] in [0, 1] to positive falling values; only their ratios count.
    max_beta: upper bound of the betas (Nichol & Dhariwal 2021, section 3.2).
    """
    values = alpha_bar(torch.arange(n + 1, dtype=torch.float64) / n)
    return torch.clamp(1 - values[1:] / values[:-1], max=max_beta)


def _betas(alphas_cumprod: Tensor) -> Tensor:
    whole = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod])
    return 1 - whole[1:] / whole[:-1]


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas [n], float64, rescaled so that alpha is exactly 0 at the last time.

    alpha is shifted and stretched, its first value kept (Lin et al. 2024, "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", algorithm 1).
    """
    alpha = torch.cumprod(1 - betas.double(), 0).sqrt()
    alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    return _betas(alpha**2)


def snr_shifted_betas(betas: Tensor, scale: float) -> Tensor:
    """Betas [n], float64, of the chain with every SNR = alpha^2 / sigma^2 divided by `scale`.

    alpha^2 / (scale + (1 - scale) alpha^2): more noise for larger pictures and videos (Yang et al.
    2024, "CogVideoX", with scale 3; Hoogeboom et al. 2023, section 3.1).
    """
    if not scale > 0:
        raise ValueError(f"snr_shifted_betas: scale is {scale}, expected more than 0")
    alpha_bar = torch.cumprod(1 - betas.double(), 0)
    return _betas(alpha_bar / (scale + (1 - scale) * alpha_bar))
