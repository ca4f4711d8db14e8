"""The two steps of the consistency decoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import (
    Generator,
    drop_in,
    randn,
)
from suffuse.compat.diffusers._by_timestep import ByTimestep
from suffuse.compat.diffusers._update import (
    F,
    Output,
    Update,
    X,
    Z,
)


class ConsistencyDecoderSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


@drop_in
class ConsistencyDecoderScheduler(ByTimestep):
    """Drop-in for diffusers.ConsistencyDecoderScheduler: two steps of the consistency decoder."""

    _config: ClassVar[dict[str, Any]] = {"num_train_timesteps": 1024, "sigma_data": 0.5}

    def _setup(self) -> None:
        config = {"beta_schedule": "squaredcos_cap_v2", **self.config}
        betas = _tables.betas(type(self).__name__, _Entries(config), self._precision)
        alpha_bar = torch.cumprod(1.0 - betas, dim=0)
        data, level = self.config.sigma_data, torch.sqrt(1.0 / alpha_bar - 1)
        self.sqrt_alphas_cumprod = alpha_bar.sqrt()
        self.sqrt_one_minus_alphas_cumprod = (1.0 - alpha_bar).sqrt()
        scale = (1.0 / alpha_bar).sqrt()
        self.c_skip = scale * data**2 / (level**2 + data**2)
        self.c_out = level * data / (level**2 + data**2) ** 0.5
        self.c_in = scale / (level**2 + data**2) ** 0.5

    @property
    def init_noise_sigma(self) -> Tensor:  # type: ignore[override]
        """Standard deviation of the starting noise."""
        return self.sqrt_one_minus_alphas_cumprod[self.timesteps[0]]

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """The two timesteps 1008 and 512, and their coefficients."""
        if num_inference_steps != 2:
            raise ValueError(
                f"{type(self).__name__}.set_timesteps: num_inference_steps is "
                f"{num_inference_steps}, expected 2"
            )
        self.num_inference_steps = 2
        self.timesteps = torch.tensor([1008, 512], dtype=torch.int64, device=device)
        self._retabulate()

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:  # type: ignore[override]
        """The model's input c_in x."""
        return sample * float(self.c_in[self._value(timestep)])

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        data = (float(self.c_skip[timestep]), float(self.c_out[timestep]))
        estimate = data[0] * X + data[1] * F
        if timestep != 1008:
            return Update(estimate, data)
        alpha = float(self.sqrt_alphas_cumprod[512])
        noise = float(self.sqrt_one_minus_alphas_cumprod[512])
        return Update(alpha * estimate + noise * Z, data, draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The data estimate, noised again to timestep 512 in the first step.

        Returns:
            `ConsistencyDecoderSchedulerOutput(prev_sample)`.
        """
        step = self._step_at(timestep)
        noise = None
        if step.draws:
            noise = randn(sample.shape, generator, sample.device, sample.dtype)
        out = self._run(step, sample, model_output, [], None, noise)[0]
        return ConsistencyDecoderSchedulerOutput((out,))


class _Entries(dict[str, Any]):
    """A dict with attribute access."""

    __getattr__ = dict.__getitem__
