"""Schedulers in the variance-exploding form x = x0 + sigma noise, on a list of sigmas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import mixed
from suffuse.compat.diffusers._by_index import ByIndex
from suffuse.compat.diffusers._update import F, Pair, Weights, X

RESPACING: dict[str, Any] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}


class OnSigmas(ByIndex):
    """Attributes: sigmas, on the CPU, one more than timesteps."""

    sigmas: Tensor

    @property
    def _float(self) -> Any:
        """numpy's name for the storage type."""
        return np.float32 if self._precision == torch.float32 else np.float64

    def _set(self, timesteps: Any, sigmas: Any, device: Any, plan: bool = True) -> None:
        """New timesteps and noise levels, arrays or tensors."""
        self.timesteps = torch.as_tensor(timesteps).to(device)
        self.sigmas = torch.as_tensor(sigmas).cpu()
        self._levels: list[float] = self.sigmas.tolist()
        self._restart(plan)

    def _level(self, i: int) -> float:
        """The noise level of step i as a float64 number."""
        return self._levels[i]

    def _refuse_integer(self, timestep: Any) -> None:
        tensor = isinstance(timestep, Tensor)
        if not timestep.is_floating_point() if tensor else isinstance(timestep, int):
            name = type(self).__name__
            raise ValueError(
                f"{name}.step: timestep is an integer, expected one of the scheduler's timesteps"
            )

    def _indices(self, like: Tensor, timesteps: Tensor) -> list[int]:
        """The steps that belong to timesteps [B], as `add_noise` looks them up."""
        if self._begin_index is None:
            known = self.timesteps.to(like.device)
            return [self.index_for_timestep(t, known) for t in timesteps.to(like.device)]
        start = self._begin_index if self._step_index is None else self._step_index
        return [start] * len(timesteps)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x0 + sigma noise at timesteps [B], elements of `timesteps`."""
        levels = [self._level(i) for i in self._indices(original_samples, timesteps)]
        sigma = torch.tensor(levels, dtype=torch.float64).to(original_samples.device)
        return mixed(torch.ones_like(sigma), original_samples, sigma, noise)


class Exploding(OnSigmas):
    """x = x0 + sigma noise with a model of VP inputs x / sqrt(sigma^2 + 1)."""

    is_scale_input_called = False

    @property
    def init_noise_sigma(self) -> Any:  # type: ignore[override]
        """Standard deviation of the starting noise."""
        highest = self.sigmas.max()
        if self.config.timestep_spacing in ("linspace", "trailing"):
            return highest
        return (highest**2 + 1) ** 0.5

    def _input_level(self, i: int) -> float:
        """The noise level at which step i calls the model."""
        return self._level(i)

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:  # type: ignore[override]
        """The model's input x / sqrt(sigma^2 + 1)."""
        if self._step_index is None:
            self._init_step_index(timestep)
        self.is_scale_input_called = True
        return sample / math.sqrt(self._input_level(self._step_index) ** 2 + 1)  # type: ignore[arg-type]

    def _data(self, level: float) -> Pair:
        """Weights of (x, F) in D at a noise level."""
        kind = self.config.prediction_type
        if kind == "epsilon":
            return 1.0, -level
        if kind == "v_prediction":
            return 1 / (level**2 + 1), -level / math.sqrt(level**2 + 1)
        if kind in self._data_predictions:
            return 0.0, 1.0
        names = ", ".join(["'epsilon'", "'v_prediction'", *map(repr, self._data_predictions)])
        error = NotImplementedError if kind == "sample" else ValueError
        raise error(f"{type(self).__name__}: prediction_type is {kind!r}, expected one of {names}")

    _data_predictions: tuple[str, ...] = ()

    def _slope(self, level: float, at: Weights = X) -> Weights:
        """dx / dsigma = (x - D) / sigma over the operands; `at` is the sample it is taken at."""
        if self.config.prediction_type == "epsilon":
            return F
        data = self._data(level)
        return (at - (data[0] * at + data[1] * F)) / level

    def _spaced(self, steps: int) -> tuple[Any, Any]:
        """Timesteps and levels [steps] of the configured spacing, before the last level 0."""
        name, config = type(self).__name__, self.config
        grid = _tables.spaced(name, config, steps, self._grid_type)
        return self._at(grid, steps)

    @property
    def _grid_type(self) -> Any:
        return self._float

    def _at(self, grid: Any, steps: int) -> tuple[Any, Any]:
        table = _tables.sigma_table(self.alphas_cumprod)
        levels = np.interp(grid, np.arange(len(table)), table)
        return self._respaced(grid, levels, steps, np.log(table))

    def _respaced(self, grid: Any, levels: Any, steps: int, log_table: Any) -> tuple[Any, Any]:
        """Timesteps and levels after the `use_*_sigmas` option, if one is set."""
        new = _tables.respaced(type(self).__name__, self.config, levels, steps)
        return (grid, levels) if new is None else (_tables.times_of(new, log_table), new)


def up_and_down(start: float, end: float) -> tuple[float, float]:
    """Ancestral split of a step: the noise to add, and the level to go down to before it."""
    up = math.sqrt(max(end**2 * (start**2 - end**2) / start**2, 0.0))
    return up, math.sqrt(max(end**2 - up**2, 0.0))
