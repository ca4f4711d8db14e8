"""The variational bound of a discrete chain, in bits per dimension, and the hybrid loss.

Ho et al. 2020, eq. 5 and Nichol & Dhariwal 2021, section 3.1. With N times the bound on
-log2 p(x0) / dimensions is a prior term, N - 1 divergences of one Gaussian step from its posterior,
and the likelihood of data in 256 levels on [-1, 1] at the last step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from suffuse.diffusion.discrete import DiscreteVP
from suffuse.diffusion.losses import (
    Denoiser,
    Noised,
    call_denoiser,
    noised_batch,
    standard_normal,
)
from suffuse.diffusion.prediction import (
    Prediction,
    as_prediction,
    predicted_data,
    prediction_target,
)
from suffuse.diffusion.process import per_sample
from suffuse.diffusion.variance import learned_range_std, posterior, split_learned

_FAR = 1e4  # standard deviations: a probability of 0 with a finite logarithm


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(other_mean, other_std^2)) in nats, elementwise."""
    ratio = std / other_std
    shift = (mean - other_mean) / other_std
    return 0.5 * (ratio**2 + shift**2 - 1) - torch.log(ratio)


def _log_interval(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)) of the standard normal distribution, without cancellation."""
    right = low + high > 0  # the mirror image has its mass in the left tail
    low, high = torch.where(right, -high, low), torch.where(right, -low, high)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return log_high + torch.log(-torch.expm1(log_low - log_high))


def discretized_log_likelihood(
    x: Tensor, mean: Tensor, std: Tensor, *, levels: int = 256
) -> Tensor:
    """log of the mass that N(mean, std^2) gives to the level of x, in nats, elementwise.

    x is on [-1, 1] in steps of 2 / (levels - 1); the outer levels reach to infinity, so that the
    masses of all levels add up to 1 (Ho et al. 2020, eq. 13).
    """
    half = 1.0 / (levels - 1)
    low, high = (x - half - mean) / std, (x + half - mean) / std
    low = torch.where(x < -1 + half, -_FAR, low)
    high = torch.where(x > 1 - half, _FAR, high)
    return _log_interval(low, high)


def _check_chain(name: str, process: DiscreteVP) -> None:
    if not isinstance(process, DiscreteVP) or process.t_max < 1:
        kind = type(process).__name__
        raise TypeError(f"{name}: process is {kind}, expected DiscreteVP with 2 times or more")


def variational_term(
    process: DiscreteVP,
    prediction: Prediction | str,
    x0: Tensor,
    x_t: Tensor,
    t: Tensor,
    output: Tensor,
    *,
    values: Tensor | None = None,
    large: bool = False,
    clip: float = math.inf,
) -> Tensor:
    """The term of the bound for times t [B], in bits per dimension, [B].

    Args:
        process: the chain; t holds integers 0..N-1 as fp32.
        prediction: what `output` [B, ...] is.
        x0: data [B, ...] in 256 levels on [-1, 1]; x_t: the same with noise of time t.
        values: learned variance like x0 (see `learned_range_std`); None: a fixed variance,
            `large` chooses which one of `posterior`.
        clip: bound on the data estimate.
    """
    _check_chain("variational_term", process)
    step = posterior(process, t.double(), t.double() - 1)
    # At t = 0 the posterior has no variance: the one of the next time takes its place.
    first = t.double().clamp(min=1)
    small = posterior(process, first, first - 1).small
    wide = torch.promote_types(x0.dtype, torch.float32)
    shape = [per_sample(v.to(wide), x0) for v in (step.x, step.data, step.small, small, step.large)]
    on_x, on_data, true_variance, small, largest = shape
    data = predicted_data(prediction, process, x_t, output, t).clamp(-clip, clip)
    mean = on_x * x_t + on_data * data
    true_mean = on_x * x_t + on_data * x0
    last = per_sample(t == 0, x0)
    if values is not None:
        std = learned_range_std(values, small, largest)
    else:
        fixed = torch.where(last, small, largest) if large else small
        std = fixed.sqrt().expand_as(mean)
    true_std = torch.where(last, 1.0, true_variance).sqrt()
    divergence = gaussian_kl(true_mean, true_std, mean, std)
    decoder = -discretized_log_likelihood(x0.to(wide), mean, std)
    return torch.where(last, decoder, divergence).flatten(1).mean(1) / math.log(2)


def prior_bits(process: DiscreteVP, x0: Tensor) -> Tensor:
    """KL(q(x_N | x0) || N(0, 1)) in bits per dimension [B]: what noising leaves of the data."""
    _check_chain("prior_bits", process)
    wide = x0.to(torch.promote_types(x0.dtype, torch.float32))
    alpha, sigma = (f(process.t_max).to(wide) for f in (process.alpha, process.sigma))
    one = torch.ones_like(wide)
    divergence = gaussian_kl(alpha * wide, sigma * one, torch.zeros_like(wide), one)
    return divergence.flatten(1).mean(1) / math.log(2)


def hybrid_loss(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    process: DiscreteVP,
    prediction: Prediction | str,
    bound_weight: float = 1e-3,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    **condition: Any,
) -> Tensor:
    """Mean squared error plus bound_weight times the variational bound: trains a learned variance.

    Nichol & Dhariwal 2021, eq. 16. The bound is estimated from one time a sample, N times its term
    in bits per dimension; its gradient reaches the variance values only, not the prediction.

    Args:
        denoiser: returns twice the channels [B, 2 C, ...]: prediction and variance values.
        x0: data [B, C, ...] in 256 levels on [-1, 1].
        Others: as in `denoising_loss`.

    Raises:
        TypeError: process is no `DiscreteVP`. ValueError: as in `denoising_loss`.
    """
    _check_chain("hybrid_loss", process)
    kind = as_prediction(prediction)
    batch = noised_batch("hybrid_loss", process, x0, t, noise, generator)
    output, values = split_learned(call_denoiser(denoiser, kind, batch, condition), batch.x_t)
    target = prediction_target(kind, process, x0, batch.noise, batch.t)
    square = ((output.to(target.dtype) - target) ** 2).mean()
    term = variational_term(process, kind, x0, batch.x_t, batch.t, output.detach(), values=values)
    return square + bound_weight * (process.t_max + 1) * term.mean()


@torch.no_grad()
def bits_per_dimension(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    process: DiscreteVP,
    prediction: Prediction | str,
    learned: bool = False,
    large: bool = False,
    clip: float = math.inf,
    generator: torch.Generator | None = None,
    **condition: Any,
) -> Tensor:
    """The variational bound on -log2 p(x0), in bits per dimension [B], one noise for each time.

    N model calls. Arguments as in `variational_term` and `hybrid_loss`; learned: the denoiser
    returns variance values as well.
    """
    _check_chain("bits_per_dimension", process)
    kind = as_prediction(prediction)
    total = prior_bits(process, x0)
    for i in range(int(process.t_max), -1, -1):
        t = torch.full((len(x0),), float(i), dtype=torch.float32, device=x0.device)
        noise = standard_normal(x0, generator)
        batch: Noised = noised_batch("bits_per_dimension", process, x0, t, noise, generator)
        output, values = call_denoiser(denoiser, kind, batch, condition), None
        if learned:
            output, values = split_learned(output, batch.x_t)
        total = total + variational_term(
            process, kind, x0, batch.x_t, t, output, values=values, large=large, clip=clip
        )
    return total
