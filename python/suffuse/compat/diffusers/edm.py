"""Euler's method for EDM models (Karras et al. 2022)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import Generator, drop_in
from suffuse.compat.diffusers._sigma import OnSigmas
from suffuse.compat.diffusers._update import (
    F,
    Pair,
    Update,
    X,
    Z,
)
from suffuse.compat.diffusers.euler import Churned, EDMEulerSchedulerOutput, last_level

SCHEDULE: dict[str, Any] = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
}


class Preconditioned(OnSigmas):
    """Noise levels and model inputs of Karras et al. 2022, table 1."""

    is_scale_input_called = False

    @property
    def init_noise_sigma(self) -> Any:  # type: ignore[override]
        """Standard deviation of the starting noise."""
        return (self.config.sigma_max**2 + 1) ** 0.5

    def _edm_levels(self, ramp: Tensor) -> Tensor:
        """Levels from sigma_max at ramp 0 to sigma_min at ramp 1."""
        config = self.config
        if config.sigma_schedule == "karras":
            return _tables.ramped(ramp, config.sigma_min, config.sigma_max, config.rho)
        if config.sigma_schedule == "exponential":
            low, high = math.log(config.sigma_min), math.log(config.sigma_max)
            return torch.linspace(low, high, len(ramp), dtype=self._precision).exp().flip(0)
        raise ValueError(
            f"{type(self).__name__}: sigma_schedule is {config.sigma_schedule!r}, expected 'karras' "
            "or 'exponential'"
        )

    def _ramp(self, steps: int) -> Tensor:
        return torch.linspace(0, 1, steps, dtype=self._precision)

    def _get_conditioning_c_in(self, sigma: Any) -> Any:
        return 1 / (sigma**2 + self.config.sigma_data**2) ** 0.5

    def precondition_inputs(self, sample: Tensor, sigma: Any) -> Tensor:
        """The model's input c_in x."""
        return sample * self._get_conditioning_c_in(sigma)

    def precondition_noise(self, sigma: Any) -> Tensor:
        """The model's time c_noise = log(sigma) / 4."""
        return 0.25 * torch.log(torch.as_tensor(sigma))

    def precondition_outputs(self, sample: Tensor, model_output: Tensor, sigma: Any) -> Tensor:
        """The data estimate c_skip x + c_out F."""
        skip, out = self._edm_data(float(sigma))
        return skip * sample + out * model_output

    def _edm_data(self, level: float) -> Pair:
        data, kind = self.config.sigma_data, self.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"{type(self).__name__}: prediction_type is {kind!r}, expected 'epsilon' or "
                "'v_prediction'"
            )
        variance = level**2 + data**2
        out = level * data / math.sqrt(variance)
        return data**2 / variance, out if kind == "epsilon" else -out

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:  # type: ignore[override]
        """The model's input c_in x."""
        if self._step_index is None:
            self._init_step_index(timestep)
        self.is_scale_input_called = True
        level = self._level(self._step_index)  # type: ignore[arg-type]
        return sample * self._get_conditioning_c_in(level)


@drop_in
class EDMEulerScheduler(Preconditioned, Churned):
    """Drop-in for diffusers.EDMEulerScheduler."""

    _config: ClassVar[dict[str, Any]] = {**SCHEDULE, "final_sigmas_type": "zero"}

    def _setup(self) -> None:
        n = self.config.num_train_timesteps
        self._from_ramp(torch.arange(n + 1, dtype=torch.float64) / n, None, plan=False)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
    ) -> None:
        """Times log(sigma) / 4, noise levels and coefficients for sampling.

        sigmas: positions in [0, 1] on the way from sigma_max to sigma_min instead of equal steps,
            which is what diffusers makes of its argument of that name.
        """
        if sigmas is None:
            ramp = torch.linspace(0, 1, num_inference_steps, dtype=torch.float64)  # type: ignore[arg-type]
        else:
            ramp = torch.as_tensor(sigmas, dtype=torch.float64)
        self.num_inference_steps = num_inference_steps
        self._from_ramp(ramp, device)

    def _from_ramp(self, ramp: Tensor, device: Any, plan: bool = True) -> None:
        levels = self._edm_levels(ramp).to(self._precision)
        last = last_level(self, float(levels[-1]))
        self._set(
            self.precondition_noise(levels),
            torch.cat([levels, levels.new_tensor([last])]),
            device,
            plan,
        )

    def _ready(self) -> None:
        """`set_timesteps` with sigmas alone leaves num_inference_steps at None, as in diffusers."""

    def _euler(self, i: int, key: tuple[Any, ...]) -> Update:
        level = self._level(i)
        raised, weight = self._churn(i, key)
        noisy = X + weight * Z
        data = (0.0, 1.0) if key and key[-1] == "data" else self._edm_data(raised)
        slope = (noisy - (data[0] * noisy + data[1] * F)) / raised
        sample = noisy + (self._level(i + 1) - raised) * slope
        return Update(sample, data, churn=weight, draws=raised > level)

    def _churn(self, i: int, key: tuple[Any, ...]) -> tuple[float, float]:
        return super()._churn(i, key[:4])

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        generator: Generator = None,
        return_dict: bool = True,
        pred_original_sample: Tensor | None = None,
    ) -> Any:
        """The sample at the next noise level; as `EulerDiscreteScheduler.step`.

        pred_original_sample: a data estimate to use instead of the model output's.
        """
        self._refuse_integer(timestep)
        self._check_scaled()
        key: tuple[Any, ...] = (s_churn, s_tmin, s_tmax, s_noise) if s_churn else ()
        if pred_original_sample is not None:
            key = (s_churn, s_tmin, s_tmax, s_noise, "data")
        step = self._here(timestep, key)
        noise = self._noise(step, model_output, generator)
        output = model_output if pred_original_sample is None else pred_original_sample
        return self._finish(EDMEulerSchedulerOutput, step, sample, output, noise)
