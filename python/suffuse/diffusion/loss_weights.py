"""Weights of training losses: functions of alpha and sigma [B], for `weight=` of the losses.

An error e of a model's output is an error k e of its data or noise estimate, where k follows from
the kind of prediction. A weight that is meant for one of these errors is turned here into a weight
of the output's error, so that the loss is the same whatever the model predicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from suffuse.diffusion.prediction import Prediction, as_prediction

Weight = Callable[[Tensor, Tensor], Tensor]


def data_error_weight(prediction: Prediction | str) -> Weight:
    """Counts the squared error of the data estimate (x0), whatever the model predicts."""
    kind = as_prediction(prediction)
    return lambda alpha, sigma: kind.data(alpha, sigma)[1] ** 2


def noise_error_weight(prediction: Prediction | str) -> Weight:
    """Counts the squared error of the noise estimate (eps), whatever the model predicts."""
    kind = as_prediction(prediction)
    return lambda alpha, sigma: kind.noise(alpha, sigma)[1] ** 2


def min_snr_weight(prediction: Prediction | str, gamma: float = 5.0) -> Weight:
    """Weight min(SNR, gamma) of the squared error of x0, whatever the model predicts.

    SNR = (alpha / sigma)^2; Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting".
    Pass it as `weight` of `denoising_loss` with the same prediction.
    """
    if not gamma > 0:
        raise ValueError(f"min_snr_weight: gamma is {gamma}, expected more than 0")
    error = data_error_weight(prediction)

    def weight(alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.clamp((alpha / sigma) ** 2, max=gamma) * error(alpha, sigma)

    return weight


def p2_weight(prediction: Prediction | str, *, gamma: float = 1.0, k: float = 1.0) -> Weight:
    """Weight 1 / (k + SNR)^gamma of the squared error of eps, whatever the model predicts.

    Choi et al. 2022, "Perception Prioritized Training of Diffusion Models": less weight where only
    imperceptible detail is left.
    """
    if not (k > 0 and gamma >= 0):
        raise ValueError(f"p2_weight: k, gamma are {k}, {gamma}, expected k > 0 and gamma >= 0")
    error = noise_error_weight(prediction)

    def weight(alpha: Tensor, sigma: Tensor) -> Tensor:
        return (k + (alpha / sigma) ** 2) ** -gamma * error(alpha, sigma)

    return weight


def edm_weight(prediction: Prediction | str, sigma_data: float = 0.5) -> Weight:
    """Weight (s^2 + d^2) / (s d)^2 of the squared error of x0, s = sigma / alpha, d = sigma_data.

    Karras et al. 2022, table 1: 1 / c_out^2, so that at the start of training all noise levels
    count the same. For `edm_preconditioned(sigma_data)` it is 1.
    """
    if not sigma_data > 0:
        raise ValueError(f"edm_weight: sigma_data is {sigma_data}, expected more than 0")
    error = data_error_weight(prediction)

    def weight(alpha: Tensor, sigma: Tensor) -> Tensor:
        return ((alpha / sigma) ** 2 + sigma_data**-2) * error(alpha, sigma)

    return weight


def cosmap_weight(alpha: Tensor, sigma: Tensor) -> Tensor:
    """2 / (pi (alpha^2 + sigma^2)): of uniform flow times it makes those of `cosmap_times`.

    A weight itself, for the squared error of "flow" (Esser et al. 2024, section 3.1).
    """
    return 2 / (math.pi * (alpha**2 + sigma**2))


def inverse_variance_weight(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1 / sigma^2, a weight itself (diffusers' "sigma_sqrt" of its SD3 training)."""
    return sigma**-2
