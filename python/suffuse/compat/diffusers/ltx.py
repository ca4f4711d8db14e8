"""Flow Euler with ancestral noise, as LTX-Video samples."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers._base import Generator, drop_in
from suffuse.compat.diffusers._sigma import OnSigmas
from suffuse.compat.diffusers._update import (
    F,
    Output,
    Update,
    X,
    Z,
)
from suffuse.compat.diffusers.flow import FlowMatchEulerDiscreteScheduler


class LTXEulerAncestralRFSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


@drop_in
class LTXEulerAncestralRFScheduler(OnSigmas):
    """Drop-in for diffusers.LTXEulerAncestralRFScheduler: Euler with noise that keeps the scale."""

    _compatibles: ClassVar[list[str]] = ["FlowMatchEulerDiscreteScheduler"]
    _config: ClassVar[dict[str, Any]] = {"num_train_timesteps": 1000, "eta": 1.0, "s_noise": 1.0}

    def _setup(self) -> None:
        self.num_inference_steps = None
        self.sigmas = self.timesteps = None  # type: ignore[assignment]
        self._step_index = self._begin_index = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        timesteps: Any = None,
        mu: float | None = None,
    ) -> None:
        """Timesteps, noise levels and coefficients for sampling.

        sigmas, or timesteps as another name of it: levels with the last one, which should be 0.
        Without them they are those of `FlowMatchEulerDiscreteScheduler`, for which mu is.

        Raises:
            ValueError: no argument says which levels; TypeError: neither a list nor a tensor.
        """
        name, config = type(self).__name__, self.config
        given = timesteps if sigmas is None else sigmas
        if given is None:
            if num_inference_steps is None:
                raise ValueError(
                    f"{name}.set_timesteps: expected num_inference_steps, sigmas or timesteps"
                )
            base = FlowMatchEulerDiscreteScheduler.from_config(dict(config))
            base.set_timesteps(num_inference_steps, mu=mu)
            self.num_inference_steps = num_inference_steps
            return self._set(base.timesteps, base.sigmas, device)
        if not isinstance(given, (list, Tensor)):
            kind = type(given).__name__
            raise TypeError(f"{name}.set_timesteps: sigmas is a {kind}, expected a list or Tensor")
        levels = torch.as_tensor(given, dtype=self._precision)
        if levels.dim() != 1:
            raise ValueError(
                f"{name}.set_timesteps: sigmas has {levels.dim()} dimensions, expected 1"
            )
        if abs(float(levels[-1])) > 1e-6:
            warnings.warn(f"{name}: the last of sigmas is {float(levels[-1])}, not 0", stacklevel=2)
        self.num_inference_steps = len(levels) - 1
        return self._set(levels * float(config.num_train_timesteps), levels, device)

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        return [self._update(i) for i in range(begin, len(self.sigmas) - 1)]

    def _update(self, i: int) -> Update:
        s, t = self._level(i), self._level(i + 1)
        data = X - s * F
        if abs(t) < 1e-8:
            return Update(data)
        eta, s_noise = self.config.eta, self.config.s_noise
        down = t * (1 + (t / s - 1) * eta)
        sample = down / s * X + (1 - down / s) * data
        if not (eta > 0 and s_noise > 0):
            return Update(sample)
        variance = t**2 - down**2 * (1 - t) ** 2 / ((1 - down) ** 2 + 1e-12)
        sample = (1 - t) / (1 - down + 1e-12) * sample
        return Update(sample + math.sqrt(max(variance, 0.0)) * s_noise * Z, draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next noise level; after the last one the sample stays what it is.

        Returns:
            `LTXEulerAncestralRFSchedulerOutput(prev_sample)`, in the sample's dtype.
        """
        self._refuse_integer(timestep)
        if self._step_index is None:
            self._ready()
            self._init_step_index(timestep)
        if self._step_index >= len(self.sigmas) - 1:  # type: ignore[operator]
            return LTXEulerAncestralRFSchedulerOutput((sample,))
        step = self._here(timestep)
        noise = self._noise(step, sample.to(self._precision), generator)
        out = self._advance(step, sample, model_output, noise).to(sample.dtype)
        return LTXEulerAncestralRFSchedulerOutput((out,))
