"""The Gaussian step q(x_t | x_s, x0) to less noise, and variances that a model learns."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from suffuse.diffusion.process import Process, Time, as_time


class Posterior(NamedTuple):
    """q(x_t | x_s, x0) = N(x x_s + data x0, small); every entry is shaped like the times.

    Attributes:
        x, data: weights of x_s and x0 in the mean.
        small: variance given x0, the "beta tilde" of DDPM; 0 at clean data.
        large: variance that the noise between t and s adds, the "beta" of DDPM.
    """

    x: Tensor
    data: Tensor
    small: Tensor
    large: Tensor


def posterior(process: Process, s: Time, t: Time) -> Posterior:
    """The posterior step from time `s` to the less noisy time `t`, for any process.

    Ho et al. 2020, eq. 6-7 and Kingma et al. 2021, appendix A. With r = alpha_s / alpha_t, the
    variance added between is sigma_s^2 - r^2 sigma_t^2. Floats are taken in float64.
    """
    s, t = as_time(s), as_time(t)
    alpha_t, sigma_t = process.alpha(t), process.sigma(t)
    variance_s = process.sigma(s) ** 2
    ratio = process.alpha(s) / alpha_t
    large = variance_s - (ratio * sigma_t) ** 2
    share = large / variance_s
    return Posterior(ratio * sigma_t**2 / variance_s, alpha_t * share, share * sigma_t**2, large)


def learned_range_std(values: Tensor, small: Tensor | float, large: Tensor | float) -> Tensor:
    """Standard deviation per element of a step whose model predicts where its variance lies.

    exp(1/2 (f log(large) + (1 - f) log(small))) with f = (values + 1) / 2 (Nichol & Dhariwal 2021,
    eq. 15). Multiply the noise of the step by it.

    Args:
        values: second half of the model's channels, [B, ...]; -1 means `small`, 1 means `large`.
        small, large: variances as in `posterior`, > 0: numbers or tensors that broadcast against
            values. Computed in values' dtype, at least fp32.

    Returns:
        Like values, in fp32 or fp64.
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    low, high = _log(small, wide), _log(large, wide)
    fraction = 0.5 * (wide + 1)
    return torch.exp(0.5 * (fraction * high + (1 - fraction) * low))


def _log(variance: Tensor | float, like: Tensor) -> Tensor | float:
    # A number stays one: a tensor made of it would have to be copied to the device.
    return variance.to(like).log() if isinstance(variance, Tensor) else math.log(variance)


def split_learned(output: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of the channels of `output` [B, 2 C, ...]: prediction and variance values.

    x: the model's input [B, C, ...].

    Raises:
        ValueError: output has another shape.
    """
    expected = (x.shape[0], 2 * x.shape[1], *x.shape[2:])
    if output.shape != expected:
        got = tuple(output.shape)
        raise ValueError(f"split_learned: output has shape {got}, expected {expected}")
    prediction, values = output.chunk(2, dim=1)
    return prediction, values
