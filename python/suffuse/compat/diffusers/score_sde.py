"""Samplers of the score SDEs (Song et al. 2021)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers._base import (
    Generator,
    Scheduler,
    deferred,
    drop_in,
    mixed,
    randn,
)
from suffuse.compat.diffusers._update import (
    Output,
    SchedulerOutput,
)
from suffuse.ops import sampler_step


class SdeVeOutput(Output):
    """prev_sample, and prev_sample_mean: the same without the noise."""

    __slots__ = ()
    names = ("prev_sample", "prev_sample_mean")


def _apply(x: Tensor, model_output: Tensor, noise: Tensor, weights: tuple[Any, Any, Any]) -> Tensor:
    """weights[0] x + weights[1] F + weights[2] z with weights [B] or [], on the device."""
    size = max(w.numel() if isinstance(w, Tensor) else 1 for w in weights)
    table = torch.zeros(size, 21, dtype=torch.float64, device=x.device)
    table[:, 0], table[:, 1], table[:, 9] = weights
    table[:, 17] = 1
    row = table if size == x.shape[0] else table[0]
    out = sampler_step(x, (model_output.to(x.dtype),), row, noise=noise.to(x), converted=False)
    return out.sample


@drop_in
class ScoreSdeVeScheduler(Scheduler):
    """Drop-in for diffusers.ScoreSdeVeScheduler: predictor and corrector of the VE SDE."""

    _config: ClassVar[dict[str, Any]] = {
        "num_train_timesteps": 2000,
        "snr": 0.15,
        "sigma_min": 0.01,
        "sigma_max": 1348.0,
        "sampling_eps": 1e-5,
        "correct_steps": 1,
    }

    def _setup(self) -> None:
        config = self.config
        self.init_noise_sigma = config.sigma_max
        self.timesteps = None  # type: ignore[assignment]
        self.set_sigmas(config.num_train_timesteps)

    def set_timesteps(
        self, num_inference_steps: int, sampling_eps: float | None = None, device: Any = None
    ) -> None:
        """Times from 1 to sampling_eps, default the configured one."""
        end = self.config.sampling_eps if sampling_eps is None else sampling_eps
        self.timesteps = torch.linspace(
            1, end, num_inference_steps, device=device, dtype=self._precision
        )

    def set_sigmas(
        self,
        num_inference_steps: int,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sampling_eps: float | None = None,
    ) -> None:
        """Noise levels at the times (Song et al. 2021, eq. 30), and rising ones for the steps."""
        low = self.config.sigma_min if sigma_min is None else sigma_min
        high = self.config.sigma_max if sigma_max is None else sigma_max
        if self.timesteps is None:
            self.set_timesteps(num_inference_steps, sampling_eps)
        grid = torch.linspace(
            math.log(low), math.log(high), num_inference_steps, dtype=self._precision
        )
        self.discrete_sigmas = grid.exp()
        self.sigmas = (low * (high / low) ** self.timesteps.double()).to(self._precision)

    def get_adjacent_sigma(self, timesteps: Tensor, t: Tensor) -> Tensor:
        """The level before each of the integer timesteps [B], 0 before the first."""
        levels = self.discrete_sigmas.to(timesteps.device)
        return torch.where(timesteps == 0, torch.zeros_like(t), levels[timesteps - 1].to(t))

    def step_pred(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """One step of the reverse SDE (Song et al. 2021, algorithm 2, predictor).

        Args:
            model_output: the score, [B, ...].
            timestep: a time, or times [B].
            sample: [B, ...].

        Returns:
            `SdeVeOutput(prev_sample, prev_sample_mean)`.
        """
        self._have_times("step_pred")
        device = sample.device
        times = torch.as_tensor(timestep, device=device).to(self._precision).expand(len(sample))
        index = (times * (len(self.timesteps) - 1)).long()
        level = self.discrete_sigmas.to(device)[index].double()
        added = level**2 - self.get_adjacent_sigma(index, times).double() ** 2
        noise = randn(sample.shape, generator, device, sample.dtype)
        out = _apply(sample, model_output, noise, (1.0, added, added.sqrt()))
        one = torch.ones_like(added)
        return deferred(SdeVeOutput, out, mixed, one, sample, added, model_output)

    def step_correct(
        self,
        model_output: Tensor,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """One Langevin step whose length the norms decide, which stay on the device (algorithm 4).

        Returns:
            `SchedulerOutput(prev_sample)`.
        """
        self._have_times("step_correct")
        cpu = torch.device("cpu")
        noise = randn(sample.shape, generator, cpu, torch.get_default_dtype()).to(sample.device)
        gradient, strength = (
            t.flatten(1).norm(dim=-1).mean().double() for t in (model_output, noise)
        )
        length = 2 * (self.config.snr * strength / gradient) ** 2
        out = _apply(sample, model_output, noise, (1.0, length, (2 * length).sqrt()))
        return SchedulerOutput((out,))

    def _have_times(self, method: str) -> None:
        if self.timesteps is None:
            name = type(self).__name__
            raise ValueError(f"{name}.{method}: there are no timesteps, call set_timesteps first")

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x0 + sigma noise at integer timesteps [B]; noise None draws it."""
        device = original_samples.device
        sigma = self.discrete_sigmas.to(device)[timesteps.to(device)].double()
        noise = torch.randn_like(original_samples) if noise is None else noise
        return mixed(torch.ones_like(sigma), original_samples, sigma, noise)


@drop_in
class ScoreSdeVpScheduler(Scheduler):
    """Drop-in for diffusers.ScoreSdeVpScheduler: the reverse VP SDE."""

    _config: ClassVar[dict[str, Any]] = {
        "num_train_timesteps": 2000,
        "beta_min": 0.1,
        "beta_max": 20,
        "sampling_eps": 1e-3,
    }

    def _setup(self) -> None:
        self.timesteps = None  # type: ignore[assignment]
        self.sigmas = self.discrete_sigmas = None

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Times from 1 to sampling_eps."""
        self.timesteps = torch.linspace(
            1, self.config.sampling_eps, num_inference_steps, device=device, dtype=self._precision
        )

    def step_pred(
        self, score: Tensor, x: Tensor, t: Tensor, generator: Generator = None
    ) -> tuple[Tensor, Tensor]:
        """One Euler-Maruyama step of the reverse SDE (Song et al. 2021, eq. 32).

        score: the noise estimate that the model gives, [B, ...]; t: times [B] or [].

        Returns:
            The new sample, and the same without its noise.
        """
        if self.timesteps is None:
            raise ValueError(
                "ScoreSdeVpScheduler.step_pred: there are no timesteps, call set_timesteps first"
            )
        config, t = self.config, torch.as_tensor(t, device=x.device).double()
        spread = config.beta_max - config.beta_min
        std = (-torch.expm1(-0.5 * t**2 * spread - t * config.beta_min)).sqrt()
        rate = (config.beta_min + t * spread) / len(self.timesteps)
        keep, drift = (1 + 0.5 * rate).flatten(), (-rate / std).flatten()
        noise = randn(x.shape, generator, x.device, x.dtype)
        out = _apply(x, score, noise, (keep, drift, rate.sqrt().flatten()))
        return out, mixed(keep, x, drift, score)
