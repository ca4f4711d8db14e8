"""Training losses: one random time and one noise a sample, squared error of the prediction.

A denoiser is any callable `denoiser(x_t, t, **condition)` that returns a tensor like x_t; it gets
x_t in x0's dtype and t as a tensor [B].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse.diffusion.continuous import Flow
from suffuse.diffusion.coupling import optimal_pairing
from suffuse.diffusion.loss_weights import Weight
from suffuse.diffusion.prediction import FLOW, Prediction, as_prediction, prediction_target
from suffuse.diffusion.process import Process, per_sample

Denoiser = Callable[..., Tensor]


class Noised(NamedTuple):
    """A noised batch: data x0, noise and x_t are [B, ...]; t, alpha and sigma are [B]."""

    x0: Tensor
    noise: Tensor
    x_t: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor


def noised_batch(
    loss: str,
    process: Process,
    x0: Tensor,
    t: Tensor | None,
    noise: Tensor | None,
    generator: torch.Generator | None,
) -> Noised:
    """x0 with noise at the given or random times; `loss` is named in errors. t is drawn first."""
    batch = x0.shape[0]
    if t is None:
        t = process.random_times(batch, generator=generator, device=x0.device)
    if t.shape != (batch,):
        raise ValueError(f"{loss}: t has shape {tuple(t.shape)}, expected ({batch},)")
    if noise is None:
        noise = standard_normal(x0, generator)
    x_t = process.add_noise(x0, noise, t)
    return Noised(x0, noise, x_t, t, process.alpha(t), process.sigma(t))


def standard_normal(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers like x, drawn on the generator's device."""
    source = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=source, dtype=x.dtype).to(x.device)


def call_denoiser(
    denoiser: Denoiser, kind: Prediction, batch: Noised, condition: dict[str, Any]
) -> Tensor:
    """The raw output at x_t, with the input scale and the model's time that `kind` asks for."""
    x_t, alpha, sigma = batch.x_t, batch.alpha, batch.sigma
    if kind.input_scale is not None:
        x_t = (x_t * per_sample(kind.input_scale(alpha, sigma), x_t)).to(batch.x0.dtype)
    model_time = batch.t if kind.model_time is None else kind.model_time(alpha, sigma)
    return denoiser(x_t, model_time, **condition)


def _error(
    loss: str,
    denoiser: Denoiser,
    kind: Prediction,
    process: Process,
    batch: Noised,
    condition: dict[str, Any],
) -> Tensor:
    """Output minus target [B, ...], in fp32 or fp64."""
    target = prediction_target(kind, process, batch.x0, batch.noise, batch.t)
    output = call_denoiser(denoiser, kind, batch, condition)
    if output.shape != target.shape:
        got, expected = tuple(output.shape), tuple(target.shape)
        raise ValueError(f"{loss}: the denoiser returned shape {got}, expected {expected}")
    return output.to(target.dtype) - target


def _mean_square(error: Tensor, batch: Noised, weight: Weight | None) -> Tensor:
    square = error**2
    if weight is not None:
        square = square * per_sample(weight(batch.alpha, batch.sigma).to(square.dtype), square)
    return square.mean()


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
    batch = noised_batch("denoising_loss", process, x0, t, noise, generator)
    error = _error("denoising_loss", denoiser, kind, process, batch, condition)
    return _mean_square(error, batch, weight)


def multiscale_loss(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    process: Process,
    prediction: Prediction | str,
    smallest: int = 32,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    weight: Weight | None = None,
    **condition: Any,
) -> Tensor:
    """Sum over sides s of 1 / s times `denoising_loss` of the error averaged down to side s.

    Hoogeboom et al. 2023, "simple diffusion", section 3.2: s runs over the side d of the pictures,
    d / 2, d / 4 ... down to `smallest`, so that the coarse structure of large pictures counts. The
    paper takes the error of eps: pass `weight=noise_error_weight(prediction)`.

    Args:
        x0: pictures [..., H, W] with a batch first; d is the smaller of H and W.
        smallest: smallest side; sides that cannot be halved evenly end the sum as well.
        Others: as in `denoising_loss`.

    Raises:
        ValueError: as in `denoising_loss`; x0 is no batch of pictures, or smaller than `smallest`.
    """
    if x0.dim() < 3 or not 0 < smallest <= min(x0.shape[-2:]):
        raise ValueError(
            f"multiscale_loss: x0 has shape {tuple(x0.shape)}, expected [B, ..., H, W] with sides "
            f"of smallest = {smallest} or more"
        )
    kind = as_prediction(prediction)
    batch = noised_batch("multiscale_loss", process, x0, t, noise, generator)
    error = _error("multiscale_loss", denoiser, kind, process, batch, condition)
    side = min(x0.shape[-2:])
    total = _mean_square(error, batch, weight) / side
    while side // 2 >= smallest and all(length % 2 == 0 for length in error.shape[-2:]):
        halved = F.avg_pool2d(error.reshape(-1, 1, *error.shape[-2:]), 2)
        error = halved.reshape(*error.shape[:-2], *halved.shape[-2:])
        side //= 2
        total = total + _mean_square(error, batch, weight) / side
    return total


def flow_matching_loss(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    weight: Weight | None = None,
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
        weight: as in `denoising_loss`.
        condition: passed to the denoiser.
    """
    batch = noised_batch("flow_matching_loss", Flow(), x0, t, noise, generator)
    error = _error("flow_matching_loss", denoiser, FLOW, Flow(), batch, condition)
    return _mean_square(error, batch, weight)


def ot_flow_matching_loss(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    weight: Weight | None = None,
    **condition: Any,
) -> Tensor:
    """`flow_matching_loss` with the noises of the batch paired to the data by optimal transport.

    Tong et al. 2024, "Improving and Generalizing Flow-Based Generative Models with Minibatch
    Optimal Transport" (OT-CFM with sigma = 0); Pooladian et al. 2023. Straighter paths, so that few
    steps suffice. The data keep their order and so their conditions; `optimal_pairing` waits for
    the device. Arguments as in `flow_matching_loss`; t is drawn before the noise.
    """
    if t is None:
        t = Flow().random_times(x0.shape[0], generator=generator, device=x0.device)
    if noise is None:
        noise = standard_normal(x0, generator)
    noise = noise[optimal_pairing(x0, noise)]
    return flow_matching_loss(denoiser, x0, t=t, noise=noise, weight=weight, **condition)
