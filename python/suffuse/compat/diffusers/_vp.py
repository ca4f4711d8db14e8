"""Schedulers on a table of alphas_cumprod: what their forward process needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import Scheduler, mixed


def make_tables(scheduler: Any, *, avoid_zero: bool = False, wide: bool = False) -> None:
    """Sets betas, alphas and alphas_cumprod [num_train_timesteps] from the configuration.

    avoid_zero: with zero terminal SNR the last alpha_cumprod is 2^-24, so that sigma is finite.
    """
    config = scheduler.config
    rescale = config.get("rescale_betas_zero_snr")
    betas = _tables.betas(type(scheduler).__name__, config, scheduler._precision, wide)
    scheduler.betas = _tables.zero_terminal_betas(betas) if rescale and not wide else betas
    scheduler.alphas = 1.0 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, dim=0)
    if rescale and avoid_zero:
        scheduler.alphas_cumprod[-1] = 2**-24


def table_roots(scheduler: Any, like: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of x_t = alpha x0 + sigma noise at integer timesteps, on like's device."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(like.device)
    alpha_bar = scheduler.alphas_cumprod[timesteps.to(like.device).flatten()].double()
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


class Discrete(Scheduler):
    """A scheduler whose forward process is sqrt(alphas_cumprod[t]) x0 + sqrt(1 - ...) noise."""

    alphas_cumprod: Tensor

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of the forward process (Ho et al. 2020, eq. 4).

        original_samples, noise: [B, ...]; timesteps: integers [B] or [1].
        """
        alpha, sigma = table_roots(self, original_samples, timesteps)
        return mixed(alpha, original_samples, sigma, noise)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target v = alpha noise - sigma x0 (Salimans & Ho 2022, section 4), as `add_noise`."""
        alpha, sigma = table_roots(self, sample, timesteps)
        return mixed(-sigma, sample, alpha, noise)

    def _alpha_bar(self, timestep: int, before: float = 1.0) -> float:
        """alphas_cumprod at a timestep, `before` the first one."""
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else before


def check_steps(scheduler: Any, steps: int) -> None:
    """Refuses more steps than there are training timesteps."""
    most = scheduler.config.num_train_timesteps
    if steps > most:
        name = type(scheduler).__name__
        raise ValueError(
            f"{name}.set_timesteps: num_inference_steps is {steps}, expected at most "
            f"num_train_timesteps = {most}"
        )


def check_either(
    scheduler: Any, steps: int | None, timesteps: Any, options: Iterable[str] = ()
) -> None:
    """Refuses anything but a number of steps, or timesteps that no option of these replaces."""
    name = type(scheduler).__name__
    if (steps is None) == (timesteps is None):
        raise ValueError(f"{name}.set_timesteps: expected either num_inference_steps or timesteps")
    used = [option for option in options if scheduler.config.get(option)]
    if timesteps is not None and used:
        raise ValueError(f"{name}.set_timesteps: timesteps cannot be given with {used[0]}")


def needed_steps(scheduler: Any, steps: int | None) -> int:
    """A number of steps whose default None means nothing."""
    if steps is None:
        name = type(scheduler).__name__
        raise ValueError(f"{name}.set_timesteps: num_inference_steps is None, expected a number")
    return steps


# Arguments that many classes have, in diffusers' order.
BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
}
THRESHOLDING: dict[str, Any] = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
}
