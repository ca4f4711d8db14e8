"""SA-Solver: stochastic Adams predictor and corrector (Xue et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import Generator, drop_in, mixed
from suffuse.compat.diffusers._corrected import Corrected
from suffuse.compat.diffusers._sigma import RESPACING
from suffuse.compat.diffusers._update import (
    SchedulerOutput,
)
from suffuse.compat.diffusers._vp import BETAS, THRESHOLDING, needed_steps, table_roots


def _usual_tau(timestep: float) -> float:
    return 1.0 if 200 <= timestep <= 800 else 0.0


@drop_in
class SASolverScheduler(Corrected):
    """Drop-in for diffusers.SASolverScheduler (Xue et al. 2023)."""

    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "predictor_order": 2,
        "corrector_order": 2,
        "prediction_type": "epsilon",
        "tau_func": None,
        **THRESHOLDING,
        "sample_max_value": 1.0,
        "algorithm_type": "data_prediction",
        "lower_order_final": True,
        **RESPACING,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }
    _draws = True

    def _setup(self) -> None:
        config, name = self.config, type(self).__name__
        self._replace_option("algorithm_type", ("data_prediction", "noise_prediction"), {})
        orders = (config.predictor_order, config.corrector_order)
        if not all(1 <= order <= 4 for order in orders):
            raise ValueError(
                f"{name}: predictor_order, corrector_order are {orders}, expected 1 to 4"
            )
        self.tau_func: Callable[[float], float] = config.tau_func or _usual_tau
        self.predict_x0 = config.algorithm_type == "data_prediction"
        self._setup_tables()

    @property
    def _form(self) -> Any:  # type: ignore[override]
        return "data" if self.predict_x0 else "noise"

    @property
    def _rule(self) -> Any:  # type: ignore[override]
        return "half_step" if self.predict_x0 else "exact"

    def _eta(self, i: int) -> float:
        return float(self.tau_func(self._times[i])) ** 2

    def _orders(self, i: int, behind: int) -> tuple[int, int]:
        config, left = self.config, len(self.timesteps) - i
        predictor, corrector = config.predictor_order, config.corrector_order
        if config.lower_order_final:
            predictor, corrector = min(predictor, left), min(corrector, left + 1)
        known = min(behind, max(config.predictor_order, config.corrector_order - 1))
        return min(predictor, known + 1), min(corrector, known + 2)

    def _capacity(self) -> int:
        return max(self.config.predictor_order, self.config.corrector_order - 1)

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Timesteps, noise levels and coefficients for sampling; spacing: `timestep_spacing`."""
        config, name = self.config, type(self).__name__
        steps = needed_steps(self, num_inference_steps)
        known = _tables.unclipped(config, self.lambda_t)
        grid = _tables.spaced_multistep(name, config, steps, known)
        self._set_repeating(self._levels_at(grid, steps), device)

    def _set_repeating(self, laid_out: tuple[Any, Any, bool], device: Any) -> None:
        """The last step goes to the table's smallest level, or stands where the levels end."""
        times, levels, on_table = laid_out
        table = _tables.sigma_table(self.alphas_cumprod)
        # As integers, which is what tau is a function of.
        self._times = np.asarray(times).astype(np.int64).tolist()
        last = float(table[0] if on_table else levels[-1])
        self._set_levels(times, levels, last, device)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of the forward process at integer timesteps [B], whatever the current spacing."""
        alpha, sigma = table_roots(self, original_samples, timesteps)
        return mixed(alpha, original_samples, sigma, noise)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """As `UniPCMultistepScheduler.step`; generator: of the noise, which is drawn every time."""
        step = self._here(timestep)
        output = self._without_variance(model_output)
        noise = self._noise(step, output, generator)
        return SchedulerOutput((self._advance(step, sample, output, noise),))
