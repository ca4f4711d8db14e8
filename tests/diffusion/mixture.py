"""A Gaussian mixture whose exact denoiser is known, and an accurate solution of its ODE."""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse.diffusion import Process

MEANS = torch.tensor([[1.5, 0.0], [-1.0, 1.2], [-0.5, -1.4]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.5, 0.4], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def data_estimate(x: Tensor, sigma: Tensor | float) -> Tensor:
    """E[x0 | x0 + sigma eps = x] for x [B, 2]."""
    variance = STDS**2 + torch.as_tensor(sigma, dtype=x.dtype) ** 2
    offset = x[:, None, :] - MEANS
    log_p = WEIGHTS.log() - variance.log() - 0.5 * (offset**2).sum(-1) / variance
    responsibility = torch.softmax(log_p, dim=1)
    estimate = MEANS + (STDS**2 / variance)[:, None] * offset
    return (responsibility[..., None] * estimate).sum(1)


def exact_denoiser(process: Process, prediction):
    """denoiser(x, t) that returns the exact prediction for `process`."""

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.alpha(t[0]), process.sigma(t[0])
        data = data_estimate(x / alpha, sigma / alpha)
        weight_data, weight_noise = prediction.target(alpha, sigma)
        return weight_data * data + weight_noise * (x - alpha * data) / sigma

    return denoiser


def ode_solution(x: Tensor, high: float, low: float, steps: int = 1000) -> Tensor:
    """Fourth-order Runge-Kutta in log(sigma) of dx/d log(sigma) = x - D(x), from high to low."""

    def slope(x: Tensor, log_sigma: Tensor) -> Tensor:
        return x - data_estimate(x, log_sigma.exp())

    start = torch.tensor(high, dtype=torch.float64).log()
    h = (torch.tensor(low, dtype=torch.float64).log() - start) / steps
    for i in range(steps):
        s = start + i * h
        k1 = slope(x, s)
        k2 = slope(x + h / 2 * k1, s + h / 2)
        k3 = slope(x + h / 2 * k2, s + h / 2)
        k4 = slope(x + h * k3, s + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x
