"""DPM-Solver++ for EDM models, and its SDE on Brownian paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers._base import Generator, drop_in
from suffuse.compat.diffusers._brownian import BrownianTree, seeds_of
from suffuse.compat.diffusers._lambda import Estimate
from suffuse.compat.diffusers._sigma import OnSigmas
from suffuse.compat.diffusers._update import (
    D,
    F,
    Pair,
    SchedulerOutput,
    X,
)
from suffuse.compat.diffusers._vp import needed_steps
from suffuse.compat.diffusers.dpm import DPM
from suffuse.compat.diffusers.edm import SCHEDULE, Preconditioned
from suffuse.compat.diffusers.euler import last_level


class _EDMDPM(Preconditioned, DPM):
    """DPM-Solver++ where alpha = 1."""

    def _lay_out(self, steps: int, device: Any, plan: bool = True) -> None:
        levels = self._edm_levels(self._ramp(steps)).to(self._precision)
        last = last_level(self, self.config.sigma_min) if plan else 0.0
        self._set(
            self.precondition_noise(levels),
            torch.cat([levels, levels.new_tensor([last])]),
            device,
            plan,
        )

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """The model's times, noise levels and coefficients for sampling."""
        self.num_inference_steps = needed_steps(self, num_inference_steps)
        self._lay_out(self.num_inference_steps, device)

    def _alpha_sigma(self, level: float) -> Pair:
        return 1.0, level

    def _estimate(self, i: int) -> Estimate:
        data = self._edm_data(self._level(i))
        bounded = self.config.get("thresholding", False)
        return Estimate(data, D if bounded else data[0] * X + data[1] * F, (0.0, 0.0, 1.0), 1)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x0 + sigma noise at timesteps [B], elements of `timesteps`."""
        return OnSigmas.add_noise(self, original_samples, noise, timesteps)


@drop_in
class EDMDPMSolverMultistepScheduler(_EDMDPM):
    """Drop-in for diffusers.EDMDPMSolverMultistepScheduler."""

    _config: ClassVar[dict[str, Any]] = {
        **SCHEDULE,
        "solver_order": 2,
        "thresholding": False,
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "final_sigmas_type": "zero",
    }

    def _setup(self) -> None:
        self._check_algorithm(("dpmsolver++", "sde-dpmsolver++"))
        self.num_inference_steps = None
        self._lay_out(self.config.num_train_timesteps, None, plan=False)

    def _weights(self, part: Any, nodes: Sequence[Any]) -> list[float]:
        if len(nodes) == 3 and self._stochastic:
            raise NotImplementedError(
                f"{type(self).__name__}: solver_order is 3 with algorithm_type 'sde-dpmsolver++', "
                "expected 1 or 2"
            )
        return super()._weights(part, nodes)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next noise level; as `DPMSolverMultistepScheduler.step`."""
        return self._solve(model_output, timestep, sample, generator, None, model_output.dtype)


@drop_in
class CosineDPMSolverMultistepScheduler(_EDMDPM):
    """Drop-in for diffusers.CosineDPMSolverMultistepScheduler: an SDE solver for audio models.

    Its noise are increments of a Brownian path made by torchsde, which has to be installed.
    """

    _config: ClassVar[dict[str, Any]] = {
        "sigma_min": 0.3,
        "sigma_max": 500,
        "sigma_data": 1.0,
        "sigma_schedule": "exponential",
        "num_train_timesteps": 1000,
        "solver_order": 2,
        "prediction_type": "v_prediction",
        "rho": 7.0,
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "final_sigmas_type": "zero",
    }
    _algorithm = "sde-dpmsolver++"

    def _setup(self) -> None:
        self._replace_option(
            "solver_type",
            ("midpoint", "heun"),
            {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
        )
        if self.config.solver_order not in (1, 2):
            raise ValueError(
                f"{type(self).__name__}: solver_order is {self.config.solver_order}, expected 1 or 2"
            )
        self.num_inference_steps = None
        self._lay_out(self.config.num_train_timesteps, None, plan=False)

    def precondition_noise(self, sigma: Any) -> Tensor:
        """The model's time 2 / pi arctan(sigma)."""
        return torch.as_tensor(sigma).atan() / math.pi * 2

    def _restart(self, plan: bool = True) -> None:
        super()._restart(plan)
        self.noise_sampler: BrownianTree | None = None

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next noise level.

        generator: its initial seed is that of the Brownian path (a list: one path a sample); the
            generator itself is not used, as in diffusers. Otherwise as
            `DPMSolverMultistepScheduler.step`.
        """
        step = self._here(timestep)
        if self.noise_sampler is None:
            config = self.config
            self.noise_sampler = BrownianTree(
                model_output, config.sigma_min, config.sigma_max, seeds_of(generator)
            )
        noise = None
        if step.noise:
            i: int = self._step_index  # type: ignore[assignment]
            noise = self.noise_sampler(self.sigmas[i], self.sigmas[i + 1])
        return SchedulerOutput((self._advance(step, sample, model_output, noise),))
