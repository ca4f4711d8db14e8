"""Samplers of consistency models (Song et al. 2023; Lu & Song 2024)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import (
    Generator,
    deferred,
    drop_in,
    randn,
)
from suffuse.compat.diffusers._by_index import ByIndex
from suffuse.compat.diffusers._sigma import OnSigmas
from suffuse.compat.diffusers._update import (
    F,
    Output,
    Update,
    X,
    Z,
    data_operand,
)
from suffuse.compat.diffusers._vp import check_either, check_steps, needed_steps
from suffuse.compat.diffusers.ddpm import check_falling


class SCMSchedulerOutput(Output):
    """prev_sample, and pred_original_sample: the data estimate."""

    __slots__ = ()
    names = ("prev_sample", "pred_original_sample")


class CMStochasticIterativeSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


@drop_in
class CMStochasticIterativeScheduler(OnSigmas):
    """Drop-in for diffusers.CMStochasticIterativeScheduler (Song et al. 2023, algorithm 1)."""

    is_scale_input_called = False
    _config: ClassVar[dict[str, Any]] = {
        "num_train_timesteps": 40,
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "sigma_data": 0.5,
        "s_noise": 1.0,
        "rho": 7.0,
        "clip_denoised": True,
    }

    def _setup(self) -> None:
        self.init_noise_sigma = self.config.sigma_max
        self.num_inference_steps = None
        self.custom_timesteps = False
        levels = self._levels_on(np.linspace(0, 1, self.config.num_train_timesteps))
        self._set(self.sigma_to_t(levels), levels, None, plan=False)

    def _levels_on(self, ramp: Any) -> Any:
        config = self.config
        return _tables.ramped(ramp, config.sigma_min, config.sigma_max, config.rho)

    def sigma_to_t(self, sigmas: Any) -> Any:
        """What the model takes for a noise level."""
        return 1000 * 0.25 * np.log(np.asarray(sigmas, dtype=np.float64) + 1e-44)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """The model's times, noise levels and coefficients.

        timesteps: falling indices of training levels instead of a number of steps.
        """
        name, n = type(self).__name__, self.config.num_train_timesteps
        check_either(self, num_inference_steps, timesteps)
        self.custom_timesteps = timesteps is not None
        if timesteps is not None:
            grid = check_falling(name, timesteps, n)
        else:
            steps = self.num_inference_steps = needed_steps(self, num_inference_steps)
            check_steps(self, steps)
            grid = (np.arange(steps) * (n // steps))[::-1]
        levels = self._levels_on(grid[::-1] / (n - 1))
        times = torch.from_numpy(self.sigma_to_t(levels))
        self._set(times, np.append(levels, self.config.sigma_min).astype(self._float), device)

    def _ready(self) -> None:
        """Custom timesteps leave num_inference_steps at None, as in diffusers."""

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:  # type: ignore[override]
        """The model's input x / sqrt(sigma^2 + sigma_data^2)."""
        if self._step_index is None:
            self._init_step_index(timestep)
        self.is_scale_input_called = True
        level = self._level(self._step_index)  # type: ignore[arg-type]
        return sample / math.sqrt(level**2 + self.config.sigma_data**2)

    def get_scalings_for_boundary_condition(self, sigma: Any) -> tuple[Any, Any]:
        """c_skip and c_out, which make the consistency function the identity at sigma_min."""
        low, data = self.config.sigma_min, self.config.sigma_data
        skip = data**2 / ((sigma - low) ** 2 + data**2)
        return skip, (sigma - low) * data / (sigma**2 + data**2) ** 0.5

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        return [self._update(i) for i in range(begin, len(self.timesteps))]

    def _update(self, i: int) -> Update:
        config = self.config
        data = self.get_scalings_for_boundary_condition(self._level(i))
        bound = 1.0 if config.clip_denoised else math.inf
        following = self._level(i + 1 if i + 1 < config.num_train_timesteps else -1)
        level = min(max(following, config.sigma_min), config.sigma_max)
        draws = len(self.timesteps) > 1
        noise = config.s_noise * math.sqrt(level**2 - config.sigma_min**2) if draws else 0.0
        estimate = data_operand(data, bound != math.inf)
        return Update(estimate + noise * Z, data, bound, draws=draws)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The consistency function's value, noised again to the next level.

        Returns:
            `CMStochasticIterativeSchedulerOutput(prev_sample)`.
        """
        self._refuse_integer(timestep)
        if not self.is_scale_input_called:
            warnings.warn(
                "CMStochasticIterativeScheduler.step: scale_model_input was not called before",
                stacklevel=2,
            )
        step = self._here(timestep)
        noise = self._noise(step, model_output, generator)
        out = self._advance(step, sample, model_output, noise)
        return CMStochasticIterativeSchedulerOutput((out,))


@drop_in
class SCMScheduler(ByIndex):
    """Drop-in for diffusers.SCMScheduler (Lu & Song 2024, "sCM"): angles from pi / 2 to 0."""

    _config: ClassVar[dict[str, Any]] = {
        "num_train_timesteps": 1000,
        "prediction_type": "trigflow",
        "sigma_data": 0.5,
    }

    def _setup(self) -> None:
        n = self.config.num_train_timesteps
        self.timesteps = torch.from_numpy(np.arange(n)[::-1].copy())
        self.num_inference_steps = None
        self._restart(plan=False)

    def set_timesteps(
        self,
        num_inference_steps: int,
        timesteps: Any = None,
        device: Any = None,
        max_timesteps: float | None = 1.57080,
        intermediate_timesteps: float | None = 1.3,
    ) -> None:
        """Angles [num_inference_steps + 1], the last one 0, and coefficients.

        timesteps: all of them, with max_timesteps None. intermediate_timesteps: the middle one of
        two steps, else None.

        Raises:
            ValueError: arguments that do not go together.
        """
        check_steps(self, num_inference_steps)
        name = type(self).__name__
        if timesteps is not None and len(timesteps) != num_inference_steps + 1:
            raise ValueError(
                f"{name}.set_timesteps: timesteps has {len(timesteps)} entries, expected "
                f"{num_inference_steps + 1}"
            )
        if (timesteps is None) == (max_timesteps is None):
            raise ValueError(f"{name}.set_timesteps: expected either timesteps or max_timesteps")
        if intermediate_timesteps is not None and num_inference_steps != 2:
            raise ValueError(
                f"{name}.set_timesteps: intermediate_timesteps is {intermediate_timesteps}, "
                f"expected None for {num_inference_steps} steps"
            )
        self.num_inference_steps = num_inference_steps
        if timesteps is None and intermediate_timesteps is not None:
            timesteps = [max_timesteps, intermediate_timesteps, 0.0]
        elif timesteps is None:
            timesteps = torch.linspace(max_timesteps, 0, num_inference_steps + 1)  # type: ignore[arg-type]
        self.timesteps = torch.as_tensor(timesteps, dtype=self._precision, device=device)
        self._restart()

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        kind = self.config.prediction_type
        if kind != "trigflow":
            raise ValueError(f"SCMScheduler: prediction_type is {kind!r}, expected 'trigflow'")
        angles = self.timesteps.double().tolist()
        return [self._update(angles[i], angles[i + 1]) for i in range(begin, len(angles) - 1)]

    def _update(self, s: float, t: float) -> Update:
        data = (math.cos(s), -math.sin(s))
        noise = math.sin(t) * self.config.sigma_data
        sample = math.cos(t) * (data[0] * X + data[1] * F) + noise * Z
        return Update(sample, data, draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The data estimate, noised again to the next angle; as `LCMScheduler.step`.

        Returns:
            `SCMSchedulerOutput(prev_sample, pred_original_sample)`.
        """
        step = self._here(timestep)
        # diffusers draws torch's default dtype here, whatever the sample's.
        dtype = torch.get_default_dtype()
        noise = randn(model_output.shape, generator, model_output.device, dtype)
        out = self._advance(step, sample, model_output, noise)
        return deferred(SCMSchedulerOutput, out, self._second, step.update, sample, model_output)
