"""Training times [batch]: which noise levels a model is trained on, and how often.

All are fp32, drawn on the generator's device and moved to `device`. `Process.random_times` gives
the usual times of a process: uniform for VP, VE and flow, log-normal for EDM.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suffuse.diffusion.process import Process

Device = torch.device | str | None


def _uniform(batch: int, generator: torch.Generator | None, device: Device) -> Tensor:
    source = device if generator is None else generator.device
    return torch.rand(batch, generator=generator, device=source, dtype=torch.float32)


def logit_normal_times(
    batch: int,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    device: Device = None,
) -> Tensor:
    """Flow times [batch], fp32, with logit(t) ~ N(mean, std^2): more of the middle times.

    Esser et al. 2024, "Scaling Rectified Flow Transformers", eq. 19. Drawn on the generator's
    device and moved to `device`.
    """
    if not std > 0:
        raise ValueError(f"logit_normal_times: std is {std}, expected more than 0")
    source = device if generator is None else generator.device
    z = torch.randn(batch, generator=generator, device=source, dtype=torch.float32)
    return torch.sigmoid(mean + std * z).to(device)


def mode_times(
    batch: int,
    *,
    scale: float = 1.29,
    generator: torch.Generator | None = None,
    device: Device = None,
) -> Tensor:
    """Flow times [batch], fp32, 1 - u - scale (cos^2(pi u / 2) - 1 + u) for uniform u.

    Esser et al. 2024, eq. 20: scale > 0 favours the middle, scale < 0 the ends, 0 is uniform.
    -1 <= scale <= 2 / (pi - 2), where the map is monotone.
    """
    if not -1 <= scale <= 2 / (math.pi - 2):
        raise ValueError(f"mode_times: scale is {scale}, expected -1 <= scale <= 2 / (pi - 2)")
    u = _uniform(batch, generator, device)
    return (1 - u - scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)).to(device)


def cosmap_times(
    batch: int, *, generator: torch.Generator | None = None, device: Device = None
) -> Tensor:
    """Flow times [batch], fp32, 1 - 1 / (tan(pi u / 2) + 1): log(SNR) as of the cosine schedule.

    Esser et al. 2024, eq. 21: the density is 2 / (pi (1 - 2 t + 2 t^2)).
    """
    u = _uniform(batch, generator, device)
    # The same as the formula above, without the pole of tan at u = 1.
    sine, cosine = torch.sin(math.pi / 2 * u), torch.cos(math.pi / 2 * u)
    return (sine / (sine + cosine)).to(device)


def log_normal_times(
    batch: int,
    *,
    mean: float = -1.2,
    std: float = 1.2,
    generator: torch.Generator | None = None,
    device: Device = None,
) -> Tensor:
    """Noise levels [batch], fp32, with ln(sigma) ~ N(mean, std^2): times of `EDM`.

    Karras et al. 2022, table 1.
    """
    if not std > 0:
        raise ValueError(f"log_normal_times: std is {std}, expected more than 0")
    source = device if generator is None else generator.device
    z = torch.randn(batch, generator=generator, device=source, dtype=torch.float32)
    return torch.exp(mean + std * z).to(device)


def uniform_lambda_times(
    process: Process,
    batch: int,
    *,
    sigma_min: float,
    sigma_max: float,
    generator: torch.Generator | None = None,
    device: Device = None,
) -> Tensor:
    """Times [batch], fp32, with lambda = log(alpha / sigma) uniform between two noise levels.

    The times of the variational bound: with them the unweighted mean squared error of "eps", times
    log(sigma_max / sigma_min), is the diffusion term of the bound in nats for each dimension
    (Kingma et al. 2021, "Variational Diffusion Models", section 5.1).

    sigma_min, sigma_max: levels of sigma / alpha.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"uniform_lambda_times: sigma_min, sigma_max are {sigma_min}, {sigma_max}, "
            "expected 0 < sigma_min < sigma_max"
        )
    u = _uniform(batch, generator, device).double()
    lam = -math.log(sigma_max) + u * math.log(sigma_max / sigma_min)
    return process.time_of(lam).float().to(device)
