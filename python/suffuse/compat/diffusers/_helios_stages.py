"""The pyramid of Helios: one flow schedule cut into stages of growing resolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._by_index import ByIndex


class Stages(ByIndex):
    """Attributes, by stage: start_sigmas, end_sigmas and ori_start_sigmas (before the correction for
    the noise of upsampling), timestep_ratios, timesteps_per_stage and sigmas_per_stage.
    """

    _in_model_dtype = True
    sigmas: Tensor

    def _setup_stages(self) -> None:
        self.gamma = self.config.gamma
        self.init_sigmas_for_each_stage()
        self.sigma_min, self.sigma_max = self.sigmas[-1].item(), self.sigmas[0].item()
        self._restart(plan=False)

    def init_sigmas(self) -> None:
        """Timesteps and sigmas of training."""
        n = self.config.num_train_timesteps
        levels = 1.0 - np.linspace(1, 1 / n, n + 1)
        levels = np.flip(_tables.flow_shifted(levels, self.config.shift))[:-1].copy()
        self.sigmas = torch.from_numpy(levels)
        self.timesteps = self.sigmas * n

    def init_sigmas_for_each_stage(self) -> None:
        """Where every stage starts and ends."""
        self.init_sigmas()
        config, n = self.config, self.config.num_train_timesteps
        bounds = [min(max(int(share * n), 0), n) for share in config.stage_range]
        levels = [*self.sigmas.tolist(), 0.0]
        self.ori_start_sigmas = {i: levels[bounds[i]] for i in range(config.stages)}
        self.end_sigmas = {i: levels[bounds[i + 1]] for i in range(config.stages)}
        self.start_sigmas = {
            i: level if i == 0 else self._after_upsampling(level)
            for i, level in self.ori_start_sigmas.items()
        }
        lengths = [self.start_sigmas[i] - self.end_sigmas[i] for i in range(config.stages)]
        ends = [sum(lengths[:i]) / sum(lengths) for i in range(config.stages)]
        # The last end is the largest number below 1.
        ends.append(1 - 2**-53)
        self.timestep_ratios = {i: (ends[i], ends[i + 1]) for i in range(config.stages)}
        self.timesteps_per_stage, self.sigmas_per_stage = {}, {}
        for i, (first, last) in self.timestep_ratios.items():
            high = min(float(self.timesteps[int(first * n)]), 999)
            low = float(self.timesteps[min(int(last * n), n - 1)])
            self.timesteps_per_stage[i] = torch.from_numpy(np.linspace(high, low, n + 1)[:-1])
            self.sigmas_per_stage[i] = torch.from_numpy(np.linspace(0.999, 0, n + 1)[:-1])

    def _after_upsampling(self, level: float) -> float:
        """The level that makes up for the correlation of upsampled noise (Jin et al. 2024)."""
        signal = 1 - level
        return 1 - signal / (math.sqrt(1 + 1 / self.config.gamma) * (1 - signal) + signal)

    def time_shift(self, mu: float, sigma: float, t: Any) -> Any:
        """Dynamically shifted levels, e^mu / (e^mu + (1 / t - 1)^sigma) or linear in mu."""
        scale = math.exp(mu) if self.config.time_shift_type == "exponential" else mu
        return scale / (scale + (1 / t - 1) ** sigma)

    def _lay_out(
        self, steps: int, stage: int | None, sigmas: Any, mu: float | None, distilled: bool
    ) -> None:
        """Sets sigmas and timesteps; distilled: without the last step but one."""
        config, name = self.config, type(self).__name__
        if (config.stages > 1) != (stage is not None):
            raise ValueError(
                f"{name}.set_timesteps: stage_index is {stage}, expected "
                f"{'a number' if config.stages > 1 else 'None'} with stages = {config.stages}"
            )
        if config.use_dynamic_shifting and (mu is None or config.shift != 1.0):
            raise ValueError(
                f"{name}.set_timesteps: mu, shift are {mu}, {config.shift}, expected a number and 1 "
                "with use_dynamic_shifting"
            )
        self.num_inference_steps = steps
        self.init_sigmas()
        times, levels = self._whole(steps, sigmas) if stage is None else self._stage(steps, stage)
        levels = torch.cat([levels, levels.new_zeros(1)])
        if distilled:
            times, levels = times[:-1], torch.cat([levels[:-2], levels[-1:]])
        if config.use_dynamic_shifting:
            levels = self.time_shift(mu, 1.0, levels)  # type: ignore[arg-type]
            times = levels[:-1] * config.num_train_timesteps
            if stage is not None:
                known = self.timesteps_per_stage[stage]
                times = known.min() + levels[:-1] * (known.max() - known.min())
        self.timesteps, self.sigmas = times, levels

    def _whole(self, steps: int, sigmas: Any) -> tuple[Tensor, Tensor]:
        n = self.config.num_train_timesteps
        if sigmas is None:
            storage = np.float32 if self._precision == torch.float32 else np.float64
            sigmas = np.linspace(1, 1 / n, steps + 1)[:-1].astype(storage)
            if self.config.shift != 1.0:
                sigmas = self.time_shift(self.config.shift, 1.0, sigmas)
        sigmas = np.asarray(sigmas)
        return torch.from_numpy(sigmas * n), torch.from_numpy(sigmas)

    def _stage(self, steps: int, stage: int) -> tuple[Tensor, Tensor]:
        times, levels = (
            torch.from_numpy(np.linspace(known[0].item(), known[-1].item(), steps))
            for known in (self.timesteps_per_stage[stage], self.sigmas_per_stage[stage])
        )
        return times, levels


STAGED: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "stages": 3,
    "stage_range": [0, 1 / 3, 2 / 3, 1],
    "gamma": 1 / 3,
}
