"""Training losses: one random time and one noise a sample, squared error of the prediction.

A denoiser is any callable `denoiser(x_t, t, **condition)` that returns a tensor like x_t; it gets
x_t in x0's dtype and t as a tensor [B].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suffuse.diffusion.continuous import Flow
from suffuse.diffusion.prediction import FLOW, Prediction, as_prediction, prediction_target
from suffuse.diffusion.process import Process, per_sample

Denoiser = Callable[..., Tensor]
Weight = Callable[[Tensor, Tensor], Tensor]


def logit_normal_times(
    batch: int,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
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


def min_snr_weight(prediction: Prediction | str, gamma: float = 5.0) -> Weight:
    """Weight min(SNR, gamma) of the squared error of x0, whatever the model predicts.

    SNR = (alpha / sigma)^2; Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting".
    Pass it as `weight` of `denoising_loss` with the same prediction.
    """
    if not gamma > 0:
        raise ValueError(f"min_snr_weight: gamma is {gamma}, expected more than 0")
    kind = as_prediction(prediction)

    def weight(alpha: Tensor, sigma: Tensor) -> Tensor:
        # An error e of the output is an error k e of the data estimate.
        k = kind.data(alpha, sigma)[1]
        return torch.clamp((alpha / sigma) ** 2, max=gamma) * k * k

    return weight


def denoising_loss(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    process: Process,
    prediction: Prediction | str,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    weight: Weight | None = None,
    **condition: Any,
) -> Tensor:
    """Mean of weight * (denoiser(x_t, t) - target)^2, a scalar in fp32 (fp64 for fp64 data).

    x_t = alpha x0 + sigma noise, and the target is what `prediction` names: Ho et al. 2020, eq. 14
    for "eps"; Salimans & Ho 2022 for "v"; Karras et al. 2022, eq. 8 for `edm_preconditioned` (x_t
    is then scaled by c_in and the denoiser's time is c_noise). `t` is drawn before `noise`.

    Args:
        denoiser: called as denoiser(x_t, t, **condition).
        x0: data [B, ...].
        process, prediction: what is trained.
        t: times [B]; default: `process.random_times`.
        noise: like x0; default: standard normal.
        generator: for the default t and noise, which are drawn on its device.
        weight: maps alpha, sigma [B] to a weight [B]; default 1.
        condition: passed to the denoiser.

    Raises:
        ValueError: t, noise or the denoiser's output has the wrong shape; unknown prediction.
    """
    kind = as_prediction(prediction)
    batch = x0.shape[0]
    if t is None:
        t = process.random_times(batch, generator=generator, device=x0.device)
    if t.shape != (batch,):
        raise ValueError(f"denoising_loss: t has shape {tuple(t.shape)}, expected ({batch},)")
    if noise is None:
        source = x0.device if generator is None else generator.device
        noise = torch.randn(x0.shape, generator=generator, device=source, dtype=x0.dtype)
        noise = noise.to(x0.device)
    x_t = process.add_noise(x0, noise, t)
    target = prediction_target(kind, process, x0, noise, t)
    alpha, sigma = process.alpha(t), process.sigma(t)
    if kind.input_scale is not None:
        x_t = (x_t * per_sample(kind.input_scale(alpha, sigma), x_t)).to(x0.dtype)
    model_time = t if kind.model_time is None else kind.model_time(alpha, sigma)
    output = denoiser(x_t, model_time, **condition)
    if output.shape != x0.shape:
        got, expected = tuple(output.shape), tuple(x0.shape)
        raise ValueError(f"denoising_loss: the denoiser returned shape {got}, expected {expected}")
    error = (output.to(target.dtype) - target) ** 2
    if weight is not None:
        error = error * per_sample(weight(alpha, sigma).to(error.dtype), error)
    return error.mean()


def flow_matching_loss(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    **condition: Any,
) -> Tensor:
    """Mean of (denoiser(x_t, t) - (noise - x0))^2 at x_t = (1 - t) x0 + t noise, a scalar.

    Conditional flow matching (Lipman et al. 2023, eq. 23) and rectified flow (Liu et al. 2023, eq.
    1), here with t = 1 at the noise. It is `denoising_loss` for `Flow()` and "flow".

    Args:
        denoiser: called as denoiser(x_t, t, **condition), t fp32 [B].
        x0: data [B, ...].
        t: times [B] in [0, 1]; default: uniform. `logit_normal_times` gives another usual law.
        noise: like x0; default: standard normal.
        generator: for the default t and noise (t is drawn first).
        condition: passed to the denoiser.
    """
    return denoising_loss(
        denoiser,
        x0,
        process=Flow(),
        prediction=FLOW,
        t=t,
        noise=noise,
        generator=generator,
        **condition,
    )
