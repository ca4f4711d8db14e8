"""Diffusion processes: how data x0 turn into noise, x_t = alpha(t) x0 + sigma(t) eps.

Everything a solver or a loss needs follows from alpha and sigma (Kingma et al. 2021, "Variational
Diffusion Models", section 3; Karras et al. 2022, "Elucidating the Design Space", appendix B):

    lambda(t) = log(alpha / sigma)                       half the log signal-to-noise ratio
    dx = f(t) x dt + g(t) dw,   f = d log(alpha) / dt,   g^2 = -2 sigma^2 d lambda / dt

Times `t` are floats or tensors of any shape. A float is taken in float64, so that solver plans are
exact; a floating-point tensor gives results in its own dtype, an integer tensor in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

Time = float | Tensor


def as_time(t: Time) -> Tensor:
    """A time as a floating-point tensor: floats in float64, integer tensors in float32."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=torch.float64)
    return t if t.is_floating_point() else t.float()


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Values [B] or [] as a view that broadcasts against x [B, ...]."""
    return (
        values.reshape(values.shape + (1,) * (x.dim() - values.dim())) if values.dim() else values
    )


class Process(ABC):
    """A diffusion process. Final subclasses: `VP`, `SubVP`, `VE`, `Flow`, `EDM`, `Cosine`,
    `DiscreteVP`, `DiscreteVE`.

    Attributes:
        t_max: the time of (nearly) pure noise, where sampling starts.
        t_clean: the time of clean data, where sigma is 0.
        straight: True where alpha + sigma = 1, so that dx/dt is the flow prediction. Solvers with
            several model calls a step then take slopes of x itself, otherwise of x / alpha.
    """

    t_max: float
    t_clean: float
    straight: bool = False

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        """Weight of the data at t, shaped like t."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        """Standard deviation of the noise at t, shaped like t."""

    @abstractmethod
    def time_of(self, lam: Time) -> Tensor:
        """The time at which lambda has the given value: the inverse of `lam`."""

    @abstractmethod
    def drift(self, t: Time) -> Tensor:
        """f(t) of the forward SDE dx = f x dt + g dw."""

    @abstractmethod
    def diffusion(self, t: Time) -> Tensor:
        """g(t) of the forward SDE dx = f x dt + g dw."""

    @abstractmethod
    def training_time(self, u: Tensor) -> Tensor:
        """The training time at quantile u in [0, 1): uniform u give times as usually trained."""

    def lam(self, t: Time) -> Tensor:
        """lambda(t) = log(alpha / sigma); +inf at clean data, -inf where alpha is 0."""
        t = as_time(t)
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def random_times(
        self,
        batch: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Training times [batch], fp32, drawn on the generator's device and moved to `device`."""
        source = device if generator is None else generator.device
        u = torch.rand(batch, generator=generator, device=source, dtype=torch.float32)
        return self.training_time(u).to(device)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """alpha(t) x0 + sigma(t) noise.

        x0, noise: [B, ...]; t: [B] or []. The sum is formed in fp32 (fp64 for fp64 data) and
        returned in x0's dtype.
        """
        if noise.shape != x0.shape:
            got, expected = tuple(noise.shape), tuple(x0.shape)
            raise ValueError(f"add_noise: noise has shape {got}, expected {expected} like x0")
        dtype = torch.promote_types(x0.dtype, torch.float32)
        alpha, sigma = (per_sample(c.to(dtype), x0) for c in (self.alpha(t), self.sigma(t)))
        return (alpha * x0 + sigma * noise).to(x0.dtype)


def starting_noise(
    process: Process,
    shape: tuple[int, ...],
    t: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """sigma(t) z with standard normal z: where sampling from time `t` starts.

    The numbers are drawn on the generator's device (`device` without a generator).
    """
    source = device if generator is None else generator.device
    z = torch.randn(shape, generator=generator, device=source, dtype=dtype).to(device)
    return z * float(process.sigma(t))
