"""DPM-Solver from data to noise."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import KARRAS, Generator, drop_in
from suffuse.compat.diffusers._sigma import RESPACING
from suffuse.compat.diffusers._vp import needed_steps
from suffuse.compat.diffusers.dpm import DPM, SHARED


@drop_in
class DPMSolverMultistepInverseScheduler(DPM):
    """Drop-in for diffusers.DPMSolverMultistepInverseScheduler: from data to noise."""

    _compatibles: ClassVar[list[str]] = KARRAS
    _config: ClassVar[dict[str, Any]] = {
        **SHARED,
        "lower_order_final": True,
        "euler_at_final": False,
        **RESPACING,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }

    def _setup(self) -> None:
        self._check_algorithm()
        self._setup_tables()
        self.timesteps = self.timesteps.flip(0)

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Rising timesteps, noise levels and coefficients; timesteps that round alike are one."""
        name, config = type(self).__name__, self.config
        steps = needed_steps(self, num_inference_steps)
        last = _tables.unclipped(config, self.lambda_t)
        self.noisiest_timestep = last - 1
        if config.timestep_spacing == "trailing":
            grid = _tables.spaced_multistep(name, config, steps, last)[::-1].copy()
        else:
            # The first ones of steps + 1, where sampling takes the last ones.
            grid = _inverted(name, config, steps, last)
        times, levels, on_table = self._levels_at(grid, steps)
        if not on_table and not config.use_flow_sigmas:
            levels = self._rising(levels, steps)
            times = _tables.times_of(levels, np.log(_tables.sigma_table(self.alphas_cumprod)))
            times = times.round() if config.use_karras_sigmas else times
        table = _tables.sigma_table(self.alphas_cumprod)
        end = float(table[self.noisiest_timestep]) if on_table else float(levels[-1])
        unique = np.sort(np.unique(times, return_index=True)[1])
        self._set_levels(np.asarray(times)[unique], levels, end, device)

    def _rising(self, levels: Any, steps: int) -> Any:
        table = _tables.sigma_table(self.alphas_cumprod)
        rising = _tables.respaced(type(self).__name__, self.config, table, steps)
        return levels if rising is None else rising

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next, noisier timestep; as `DPMSolverMultistepScheduler.step`."""
        output = self._without_variance(model_output)
        return self._solve(output, timestep, sample, generator, variance_noise, model_output.dtype)


def _inverted(name: str, config: Any, steps: int, last: int) -> Any:
    if config.timestep_spacing == "linspace":
        return np.linspace(0, last - 1, steps + 1).round()[:-1].astype(np.int64)
    if config.timestep_spacing == "leading":
        stride = last // (steps + 1)
        return (np.arange(steps + 1) * stride)[:-1].astype(np.int64) + config.steps_offset
    return _tables.spaced_multistep(name, config, steps, last)
