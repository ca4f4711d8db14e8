"""DDPM of unCLIP (Ramesh et al. 2022) and of Wuerstchen (Pernias et al. 2023)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers._base import (
    NO_HISTORY,
    Generator,
    Scheduler,
    drop_in,
    mixed,
    randn,
)
from suffuse.compat.diffusers._update import Output, Update, Z
from suffuse.compat.diffusers._vp import make_tables
from suffuse.compat.diffusers.ddpm import DDPMSchedulerOutput, Posterior


class UnCLIPSchedulerOutput(DDPMSchedulerOutput):
    """prev_sample, and pred_original_sample: the (bounded) data estimate."""

    __slots__ = ()


class DDPMWuerstchenSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


@drop_in
class UnCLIPScheduler(Posterior):
    """Drop-in for diffusers.UnCLIPScheduler."""

    _config: ClassVar[dict[str, Any]] = {
        "num_train_timesteps": 1000,
        "variance_type": "fixed_small_log",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "prediction_type": "epsilon",
        "beta_schedule": "squaredcos_cap_v2",
    }

    def _setup(self) -> None:
        if self.config.beta_schedule != "squaredcos_cap_v2":
            raise ValueError(
                f"UnCLIPScheduler: beta_schedule is {self.config.beta_schedule!r}, expected "
                "'squaredcos_cap_v2'"
            )
        make_tables(self)
        self.one = torch.tensor(1.0, dtype=self._precision)
        self.variance_type = self.config.variance_type
        n = self.config.num_train_timesteps
        self.timesteps = torch.from_numpy(np.arange(n)[::-1].copy())
        self.num_inference_steps = None
        self._tables, self._values = {}, {}

    def _ready(self) -> None:
        """Sampling without set_timesteps visits every training timestep."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Timesteps with equal distances from num_train_timesteps - 1 to 0."""
        self.num_inference_steps = num_inference_steps
        ratio = (self.config.num_train_timesteps - 1) / (num_inference_steps - 1)
        grid = (np.arange(num_inference_steps) * ratio).round()[::-1].astype(np.int64)
        self.timesteps = torch.from_numpy(grid).to(device)
        self._retabulate((None,))

    def _before(self, timestep: int, key: tuple[Any, ...]) -> int:
        return timestep - 1 if key[0] is None else key[0]

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        mean, data, variance, _ = self._mean(timestep, self._before(timestep, key))
        draws = timestep > 0
        learned = self.variance_type == "learned_range"
        if draws and not learned and self.variance_type != "fixed_small_log":
            raise ValueError(
                f"UnCLIPScheduler: variance_type is {self.variance_type!r}, expected "
                "'fixed_small_log' or 'learned_range'"
            )
        scale = 1.0 if learned else math.sqrt(max(variance, 1e-20))
        return Update(mean + (scale if draws else 0.0) * Z, data, self._bound(), draws=draws)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        prev_timestep: Any = None,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """As `DDPMScheduler.step`; prev_timestep: where it leads to, by default one less."""
        before = None if prev_timestep is None else self._value(prev_timestep)
        return self._make(
            (before,), model_output, timestep, sample, generator, UnCLIPSchedulerOutput
        )


@drop_in
class DDPMWuerstchenScheduler(Scheduler):
    """Drop-in for diffusers.DDPMWuerstchenScheduler: DDPM over continuous times in [0, 1]."""

    _config: ClassVar[dict[str, Any]] = {"scaler": 1.0, "s": 0.008}

    def _setup(self) -> None:
        self.scaler = self.config.scaler
        self.s = torch.tensor([self.config.s], dtype=self._precision)
        self._init_alpha_cumprod = self._cosine(torch.zeros_like(self.s))

    def _cosine(self, t: Tensor) -> Tensor:
        s = self.s.to(t)
        return torch.cos((t + s) / (1 + s) * (torch.pi * 0.5)) ** 2

    def _alpha_cumprod(self, t: Tensor, device: Any) -> Tensor:
        """alpha_bar at times t in [0, 1], kept in [0.0001, 0.9999]."""
        t = t.to(device)
        if self.scaler > 1:
            t = 1 - (1 - t) ** self.scaler
        elif self.scaler < 1:
            t = t**self.scaler
        return (self._cosine(t) / self._init_alpha_cumprod.to(t)).clamp(0.0001, 0.9999)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        timesteps: Any = None,
        device: Any = None,
    ) -> None:
        """Times from 1 to 0, [num_inference_steps + 1], or the given ones."""
        if timesteps is None:
            if num_inference_steps is None:
                raise ValueError(
                    f"{type(self).__name__}.set_timesteps: expected num_inference_steps or timesteps"
                )
            timesteps = torch.linspace(
                1.0,
                0.0,
                num_inference_steps + 1,
                device=device,
                dtype=self._precision,  # type: ignore[operator]
            )
        elif not isinstance(timesteps, Tensor):
            timesteps = torch.tensor(timesteps, dtype=self._precision, device=device)
        self.timesteps = timesteps

    def previous_timestep(self, timestep: Tensor) -> Tensor:
        """The time after the one nearest to timestep[0], [B]."""
        index = (self.timesteps - timestep[0]).abs().argmin()
        return self.timesteps[index + 1].expand(len(timestep))

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the time before; timestep: times [B]. Coefficients stay on the device.

        Returns:
            `DDPMWuerstchenSchedulerOutput(prev_sample)`.
        """
        before = self.previous_timestep(timestep)
        s = self._alpha_cumprod(timestep, sample.device).double()
        t = self._alpha_cumprod(before, sample.device).double()
        alpha = s / t
        table = s.new_zeros(len(s), 21)
        table[:, 0] = alpha.rsqrt()
        table[:, 1] = -(1 - alpha) * (alpha * (1 - s)).rsqrt()
        table[:, 9] = ((1 - alpha) * (1 - t) / (1 - s)).sqrt() * (before.to(s) != 0)
        table[:, 17] = 1
        like = model_output
        noise = randn(sample.shape, generator, like.device, like.dtype)
        row = table if len(table) == sample.shape[0] else table[0]
        out = self._run_any(row, 0, False, sample, model_output, NO_HISTORY, None, noise)[0]
        return DDPMWuerstchenSchedulerOutput((out.to(like.dtype),))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise at times [B]."""
        alpha_bar = self._alpha_cumprod(timesteps, original_samples.device).double()
        return mixed(alpha_bar.sqrt(), original_samples, (1 - alpha_bar).sqrt(), noise)
