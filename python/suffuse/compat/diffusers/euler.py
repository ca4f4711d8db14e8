"""Euler's method on noise levels, with churn or ancestral noise (Karras et al. 2022)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import KARRAS, Generator, drop_in, mixed
from suffuse.compat.diffusers._sigma import RESPACING, Exploding, up_and_down
from suffuse.compat.diffusers._update import F, Output, Step, Update, X, Z
from suffuse.compat.diffusers._vp import BETAS, make_tables, needed_steps


class EulerDiscreteSchedulerOutput(Output):
    """prev_sample, and pred_original_sample: the data estimate."""

    __slots__ = ()
    names = ("prev_sample", "pred_original_sample")


class EulerAncestralDiscreteSchedulerOutput(EulerDiscreteSchedulerOutput):
    """prev_sample, and pred_original_sample: the data estimate."""

    __slots__ = ()


class EDMEulerSchedulerOutput(EulerDiscreteSchedulerOutput):
    """prev_sample, and pred_original_sample: the data estimate."""

    __slots__ = ()


NO_CHURN = (0.0, 0.0, math.inf, 1.0)


class Churned(Exploding):
    """Karras et al. 2022, algorithm 2, of order 1. A plan's key is NO_CHURN or its four numbers."""

    _in_model_dtype = True

    def _churn(self, i: int, key: tuple[Any, ...]) -> tuple[float, float]:
        """The level after the added noise, and the weight of that noise."""
        s_churn, s_tmin, s_tmax, s_noise = key or NO_CHURN
        level = self._level(i)
        gamma = 0.0
        if s_tmin <= level <= s_tmax:
            gamma = min(s_churn / (len(self.sigmas) - 1), math.sqrt(2) - 1)
        raised = level * (gamma + 1)
        return raised, s_noise * math.sqrt(raised**2 - level**2) if gamma > 0 else 0.0

    def _check_scaled(self) -> None:
        if not self.is_scale_input_called:
            warnings.warn(
                f"{type(self).__name__}.step: scale_model_input was not called before",
                stacklevel=3,
            )

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        return [self._euler(i, key) for i in range(begin, len(self.timesteps))]

    def _euler(self, i: int, key: tuple[Any, ...]) -> Update:
        level = self._level(i)
        raised, weight = self._churn(i, key)
        noisy = X + weight * Z
        # diffusers' velocity prediction keeps the level from before the churn.
        data = self._data(level if self.config.prediction_type == "v_prediction" else raised)
        slope = (noisy - (data[0] * noisy + data[1] * F)) / raised
        if self.config.prediction_type == "epsilon":
            slope = F
        sample = noisy + (self._level(i + 1) - raised) * slope
        return Update(sample, data, churn=weight, draws=raised > level)

    def _finish(
        self, kind: type[Output], step: Step, x: Tensor, model_output: Tensor, noise: Tensor | None
    ) -> Any:
        out = self._advance(step, x, model_output, noise)
        return kind((out, (self._second, step.update, x, model_output, noise)))


class _Euler(Churned):
    _compatibles: ClassVar[list[str]] = KARRAS
    _data_predictions = ("sample", "original_sample")
    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "prediction_type": "epsilon",
        "interpolation_type": "linear",
        **RESPACING,
        "sigma_min": None,
        "sigma_max": None,
        "timestep_spacing": "linspace",
        "timestep_type": "discrete",
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
        "final_sigmas_type": "zero",
    }

    def _setup(self) -> None:
        make_tables(self, avoid_zero=True)
        levels = (((1 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5).flip(0)
        n = self.config.num_train_timesteps
        grid = torch.arange(n - 1, -1, -1, dtype=self._precision)
        timesteps = 0.25 * levels.log() if self._continuous else grid
        self._set(timesteps, torch.cat([levels, levels.new_zeros(1)]), None, plan=False)

    @property
    def _continuous(self) -> bool:
        """True for models that take log(sigma) / 4 instead of a timestep."""
        config = self.config
        return config.timestep_type == "continuous" and config.prediction_type == "v_prediction"

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Timesteps, noise levels and coefficients for sampling.

        timesteps or sigmas (with the last level): instead of a number of steps.

        Raises:
            ValueError: not exactly one of the three, timesteps with an option that makes its own
                levels, or an unknown spacing, interpolation or last level.
        """
        self._check_given(num_inference_steps, timesteps, sigmas)
        table = _tables.sigma_table(self.alphas_cumprod)
        if sigmas is not None:
            levels = np.asarray(sigmas, dtype=self._float)
            grid = _tables.times_of(levels[:-1], np.log(table))
            self.num_inference_steps = len(grid)
        else:
            count = len(timesteps) if timesteps is not None else num_inference_steps
            steps = self.num_inference_steps = needed_steps(self, count)
            if timesteps is not None:
                given = np.asarray(timesteps, dtype=self._float)
            else:
                given = _tables.spaced(type(self).__name__, self.config, steps, self._float)
            grid, levels = self._levels_at(given, table, steps)
            levels = np.concatenate([levels, [self._last_level()]])
        sigma = torch.from_numpy(levels.astype(self._float))
        times = torch.from_numpy(np.asarray(grid).astype(self._float))
        self._set(0.25 * sigma[:-1].log() if self._continuous else times, sigma, device)

    def _check_given(self, *given: Any) -> None:
        name, config = type(self).__name__, self.config
        if sum(g is not None for g in given) != 1:
            raise ValueError(
                f"{name}.set_timesteps: expected exactly one of num_inference_steps, timesteps and "
                "sigmas"
            )
        respacing = [option for option in RESPACING if config.get(option)]
        if given[1] is not None and (respacing or self._continuous):
            option = respacing[0] if respacing else "timestep_type"
            raise ValueError(f"{name}.set_timesteps: timesteps cannot be given with {option}")

    def _levels_at(self, grid: Any, table: Any, steps: int) -> tuple[Any, Any]:
        kind = self.config.interpolation_type
        if kind == "linear":
            levels = np.interp(grid, np.arange(len(table)), table)
        elif kind == "log_linear":
            low, high = float(np.log(table[0])), float(np.log(table[-1]))
            levels = torch.linspace(high, low, steps + 1, dtype=self._precision).exp().numpy()
        else:
            raise ValueError(
                f"{type(self).__name__}: interpolation_type is {kind!r}, expected 'linear' or "
                "'log_linear'"
            )
        return self._respaced(grid, levels, steps, np.log(table))

    def _last_level(self) -> float:
        return last_level(self, float(_tables.sigma_table(self.alphas_cumprod)[0]))

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
    ) -> Any:
        """The sample at the next noise level (Karras et al. 2022, algorithm 2 of order 1).

        Args:
            model_output: what the model predicts at the scaled sample, [B, ...].
            timestep: an element of `timesteps`, read at the first step only.
            sample: [B, ...], not scaled.
            s_churn, s_tmin, s_tmax, s_noise: noise added before steps between the two levels.
            generator: of that noise; nothing is drawn without churn.
            return_dict: is accepted; the result is a tuple with named entries in either case.

        Returns:
            `EulerDiscreteSchedulerOutput(prev_sample, pred_original_sample)`, the first in the
            model output's dtype.
        """
        self._refuse_integer(timestep)
        self._check_scaled()
        step = self._here(timestep, (s_churn, s_tmin, s_tmax, s_noise) if s_churn else ())
        noise = self._noise(step, model_output, generator) if step.draws else None
        return self._finish(EulerDiscreteSchedulerOutput, step, sample, model_output, noise)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha noise - sigma x0 with the tables' entries at the steps' indices, as in diffusers."""
        self._refuse_integer(timesteps)
        known = self.timesteps.to(sample.device)
        steps = [self.index_for_timestep(t, known) for t in timesteps.to(sample.device)]
        alpha_bar = self.alphas_cumprod.to(sample.device)[steps].double()
        return mixed(-(1 - alpha_bar).sqrt(), sample, alpha_bar.sqrt(), noise)


def last_level(scheduler: Any, smallest: float) -> float:
    """The level that the last step goes to: `final_sigmas_type`."""
    kind = scheduler.config.final_sigmas_type
    if kind not in ("zero", "sigma_min"):
        name = type(scheduler).__name__
        raise ValueError(f"{name}: final_sigmas_type is {kind!r}, expected 'zero' or 'sigma_min'")
    return 0.0 if kind == "zero" else smallest


@drop_in
class EulerDiscreteScheduler(_Euler):
    """Drop-in for diffusers.EulerDiscreteScheduler."""


@drop_in
class EulerAncestralDiscreteScheduler(Churned):
    """Drop-in for diffusers.EulerAncestralDiscreteScheduler."""

    _compatibles: ClassVar[list[str]] = KARRAS
    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "prediction_type": "epsilon",
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
    }

    def _setup(self) -> None:
        make_tables(self, avoid_zero=True)
        levels = np.concatenate([_tables.sigma_table(self.alphas_cumprod)[::-1], [0.0]])
        grid = np.arange(self.config.num_train_timesteps)[::-1].astype(float)
        self._set(torch.from_numpy(grid), levels.astype(self._float), None, plan=False)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Timesteps, noise levels and coefficients for sampling; spacing: `timestep_spacing`."""
        self.num_inference_steps = num_inference_steps
        grid, levels = self._spaced(num_inference_steps)
        levels = np.concatenate([levels, [0.0]]).astype(self._float)
        self._set(torch.from_numpy(grid), levels, device)

    def _euler(self, i: int, key: tuple[Any, ...]) -> Update:
        level = self._level(i)
        up, down = up_and_down(level, self._level(i + 1))
        sample = X + (down - level) * self._slope(level) + up * Z
        return Update(sample, self._data(level), draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next noise level: a step below it, and noise up to it.

        As `EulerDiscreteScheduler.step`; noise is drawn at every step.
        """
        self._refuse_integer(timestep)
        self._check_scaled()
        step = self._here(timestep)
        noise = self._noise(step, model_output, generator)
        return self._finish(
            EulerAncestralDiscreteSchedulerOutput, step, sample, model_output, noise
        )
