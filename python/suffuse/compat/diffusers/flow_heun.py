"""Flow schedulers with two calls a step, and for distilled models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import Generator, drop_in, mixed
from suffuse.compat.diffusers._update import (
    H1,
    HOLD_AFTER,
    KEEP_MODEL,
    A,
    F,
    Output,
    Update,
    X,
    Z,
)
from suffuse.compat.diffusers.euler import NO_CHURN
from suffuse.compat.diffusers.flow import SHIFTED, Flow, Shifted


class FlowMatchHeunDiscreteSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


class FlowMatchLCMSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


@drop_in
class FlowMatchHeunDiscreteScheduler(Flow):
    """Drop-in for diffusers.FlowMatchHeunDiscreteScheduler: two model calls a step but the last."""

    order = 2
    _config: ClassVar[dict[str, Any]] = {"num_train_timesteps": 1000, "shift": 1.0}

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Timesteps, noise levels and coefficients for sampling."""
        self.num_inference_steps = num_inference_steps
        levels = _tables.flow_shifted(self._even_levels(num_inference_steps), self.config.shift)
        levels = torch.from_numpy(levels).to(self._precision)
        times = levels * self.config.num_train_timesteps
        times = torch.cat([times[:1], times[1:].repeat_interleave(2)])
        inner = levels[1:].repeat_interleave(2)
        self._set(times, torch.cat([levels[:1], inner, levels.new_zeros(1)]), device)

    @property
    def state_in_first_order(self) -> bool:
        """True if the next call is the first one of a step."""
        return self._step_index is None or (self._step_index - self._first) % 2 == 0

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        calls = range(begin, len(self.timesteps))
        return [self._call(i, (i - begin) % 2 == 0, key) for i in calls]

    def _call(self, i: int, first: bool, key: tuple[Any, ...]) -> Update:
        start = i if first else i - 1
        s, t = self._level(start), self._level(start + 1)
        s_churn, s_tmin, s_tmax, s_noise = key or NO_CHURN
        gamma = 0.0
        if s_tmin <= s <= s_tmax:
            gamma = min(s_churn / (len(self.sigmas) - 1), math.sqrt(2) - 1)
        raised = s * (gamma + 1)
        # diffusers' slope from a churned level is scaled by the level before.
        slope = 1 / (1 + gamma)
        if first:
            weight = s_noise * math.sqrt(raised**2 - s**2) if gamma > 0 else 0.0
            sample = X + (t - raised) * slope * F + weight * Z
            return Update(sample, keep=KEEP_MODEL, hold=HOLD_AFTER, draws=gamma > 0)
        # Half of the first slope in the anchor is replaced by the second one.
        return Update(A + 0.5 * (t - raised) * (F - slope * H1), draws=gamma > 0)

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
        """What the next call of the model takes: an Euler step, then its correction in turn.

        s_churn, s_tmin, s_tmax, s_noise: noise before a step between the two levels; it is drawn
        at both of its calls, as in diffusers, and used at the first. Otherwise as
        `FlowMatchEulerDiscreteScheduler.step`.

        Returns:
            `FlowMatchHeunDiscreteSchedulerOutput(prev_sample)`, in the model output's dtype.
        """
        self._refuse_integer(timestep)
        key = (s_churn, s_tmin, s_tmax, s_noise) if s_churn else ()
        step = self._here(timestep, key)
        noise = self._noise(step, model_output, generator)
        out = self._advance(step, sample, model_output, noise)
        return FlowMatchHeunDiscreteSchedulerOutput((out,))

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Tensor) -> Tensor:  # type: ignore[override]
        """sigma noise + (1 - sigma) sample at the current step."""
        if self._step_index is None:
            self._init_step_index(timestep)
        sigma = torch.tensor([self._level(self._step_index)], dtype=torch.float64)  # type: ignore[arg-type]
        sigma = sigma.to(sample.device)
        return mixed(1 - sigma, sample, sigma, noise)


@drop_in
class FlowMatchLCMScheduler(Shifted):
    """Drop-in for diffusers.FlowMatchLCMScheduler: the data estimate, noised again."""

    _config: ClassVar[dict[str, Any]] = {
        **SHIFTED,
        "scale_factors": None,
        "upscale_mode": "bicubic",
    }

    def _setup(self) -> None:
        super()._setup()
        self.set_scale_factors(self.config.scale_factors, self.config.upscale_mode)

    def set_scale_factors(self, scale_factors: Sequence[float] | None, upscale_mode: str) -> None:
        """Sizes of the samples after each step, relative to the first one's."""
        self._scale_factors, self._upscale_mode = scale_factors, upscale_mode

    def _update(self, i: int, key: tuple[Any, ...]) -> Update:
        s, t = self._level(i), self._level(i + 1)
        if key:
            return Update(X - s * F)
        return Update((1 - t) * (X - s * F) + t * Z, draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next noise level, of another size if there are scale factors.

        Returns:
            `FlowMatchLCMSchedulerOutput(prev_sample)`, in the model output's dtype.
        """
        self._refuse_integer(timestep)
        factors = self._scale_factors if self._upscale_mode else None
        if factors and len(self.timesteps) != len(factors) + 1:
            raise ValueError(
                f"{type(self).__name__}.step: there are {len(factors)} scale_factors, expected "
                f"{len(self.timesteps) - 1}"
            )
        step = self._here(timestep)
        i: int = self._step_index  # type: ignore[assignment]
        if i == self._first:
            self._init_size = model_output.shape[2:]
        if factors and i < len(factors):
            out = self._resized(i, factors[i], sample, model_output, generator)
        else:
            noise = self._noise(step, sample.to(self._precision), generator)
            out = self._advance(step, sample, model_output, noise)
        return FlowMatchLCMSchedulerOutput((out,))

    def _resized(
        self, i: int, factor: float, sample: Tensor, model_output: Tensor, generator: Generator
    ) -> Tensor:
        data = self._advance(self._here(None, ("data",)), sample.to(self._precision), model_output)
        size = [round(factor * length) for length in self._init_size]
        data = torch.nn.functional.interpolate(
            data.to(self._precision), size=size, mode=self._upscale_mode
        )
        noise = self._noise(self._steps[i], data, generator)  # type: ignore[arg-type]
        t = torch.tensor([self._level(i + 1)], dtype=torch.float64, device=data.device)
        return mixed(1 - t, data, t, noise).to(model_output.dtype)  # type: ignore[arg-type]
