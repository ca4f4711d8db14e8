"""The stochastic sampler of Karras et al. 2022 on geometric noise levels."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers._base import (
    Generator,
    Scheduler,
    drop_in,
    randn,
)
from suffuse.compat.diffusers._update import (
    H1,
    F,
    Output,
    Update,
    X,
)
from suffuse.ops import sampler_step


class KarrasVeOutput(Output):
    """prev_sample, derivative and pred_original_sample."""

    __slots__ = ()
    names = ("prev_sample", "derivative", "pred_original_sample")


@drop_in
class KarrasVeScheduler(Scheduler):
    """Drop-in for diffusers.KarrasVeScheduler (Karras et al. 2022, algorithm 2, on VE levels)."""

    order = 2
    _config: ClassVar[dict[str, Any]] = {
        "sigma_min": 0.02,
        "sigma_max": 100,
        "s_noise": 1.007,
        "s_churn": 80,
        "s_min": 0.05,
        "s_max": 50,
    }

    def _setup(self) -> None:
        self.init_noise_sigma = self.config.sigma_max
        self.num_inference_steps = None
        self.timesteps = self.schedule = None  # type: ignore[assignment]

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Falling integers, and the noise levels that they stand for in `schedule`."""
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.arange(num_inference_steps - 1, -1, -1, device=device)
        low, high = self.config.sigma_min**2, self.config.sigma_max**2
        share = self.timesteps.cpu().to(self._precision) / (num_inference_steps - 1)
        self.schedule = (high * (low / high) ** share).to(device=device, dtype=self._precision)

    def add_noise_to_input(
        self, sample: Tensor, sigma: Any, generator: Generator = None
    ) -> tuple[Tensor, Any]:
        """The churned sample and its level."""
        config, gamma = self.config, 0.0
        if config.s_min <= sigma <= config.s_max:
            gamma = min(config.s_churn / self.num_inference_steps, math.sqrt(2) - 1)
        cpu = torch.device("cpu")
        noise = randn(sample.shape, generator, cpu, torch.get_default_dtype()).to(sample.device)
        raised = sigma + gamma * sigma
        weight = config.s_noise * (raised**2 - sigma**2) ** 0.5
        return torch.add(sample, noise.to(sample.dtype), alpha=float(weight)), raised

    def step(
        self,
        model_output: Tensor,
        sigma_hat: Any,
        sigma_prev: Any,
        sample_hat: Tensor,
        return_dict: bool = True,
    ) -> Any:
        """An Euler step from sigma_hat to sigma_prev; the model's output is (x0 - x) / sigma_hat.

        Returns:
            `KarrasVeOutput(prev_sample, derivative, pred_original_sample)`; without return_dict the
            first two.
        """
        change = float(sigma_prev) - float(sigma_hat)
        out = torch.add(sample_hat, model_output, alpha=-change)
        return self._output(out, -model_output, sample_hat, model_output, sigma_hat, return_dict)

    def step_correct(
        self,
        model_output: Tensor,
        sigma_hat: Any,
        sigma_prev: Any,
        sample_hat: Tensor,
        sample_prev: Tensor,
        derivative: Tensor,
        return_dict: bool = True,
    ) -> Any:
        """The same step with the mean of both ends' slopes; returns what `step` does."""
        change = float(sigma_prev) - float(sigma_hat)
        update = Update(X + 0.5 * change * (H1 - F))
        row = torch.tensor(update.row(), dtype=torch.float64, device=sample_hat.device)
        history = [derivative]
        out = sampler_step(sample_hat, (model_output,), row, history=history, converted=False)
        return self._output(
            out.sample, derivative, sample_prev, model_output, sigma_prev, return_dict
        )

    def _output(
        self, out: Tensor, slope: Tensor, x: Tensor, output: Tensor, level: Any, whole: bool
    ) -> Any:
        if not whole:
            return out, slope
        return KarrasVeOutput((out, slope, torch.add(x, output, alpha=float(level))))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Is not there in diffusers either."""
        raise NotImplementedError("KarrasVeScheduler.add_noise")

    def __len__(self) -> int:
        return self.num_inference_steps or 0
