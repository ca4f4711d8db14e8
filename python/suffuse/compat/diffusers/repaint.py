"""RePaint: inpainting with an unconditional model (Lugmayr et al. 2022)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers._base import Generator, deferred, drop_in, randn
from suffuse.compat.diffusers._by_timestep import ByTimestep
from suffuse.compat.diffusers._update import F, Output, Update, Z, data_operand, estimates
from suffuse.compat.diffusers._vp import Discrete, make_tables


class RePaintSchedulerOutput(Output):
    """prev_sample, and pred_original_sample: the bounded data estimate."""

    __slots__ = ()
    names = ("prev_sample", "pred_original_sample")


@drop_in
class RePaintScheduler(ByTimestep, Discrete):
    """Drop-in for diffusers.RePaintScheduler."""

    _config: ClassVar[dict[str, Any]] = {
        "num_train_timesteps": 1000,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "eta": 0.0,
        "trained_betas": None,
        "clip_sample": True,
    }

    def _setup(self) -> None:
        make_tables(self)
        self.one = torch.tensor(1.0, dtype=self._precision)
        self.final_alpha_cumprod = self.one
        self.eta = self.config.eta
        self.timesteps = torch.from_numpy(np.arange(self.config.num_train_timesteps)[::-1].copy())
        self.num_inference_steps = None

    def set_timesteps(
        self,
        num_inference_steps: int,
        jump_length: int = 10,
        jump_n_sample: int = 10,
        device: Any = None,
    ) -> None:
        """Timesteps that go back up by jump_length, jump_n_sample - 1 times at every such distance.

        A rise between two timesteps is for `undo_step` (Lugmayr et al. 2022, figure 9).
        """
        n = self.config.num_train_timesteps
        steps = self.num_inference_steps = min(n, num_inference_steps)
        rises = dict.fromkeys(range(0, steps - jump_length, jump_length), jump_n_sample - 1)
        grid, t = [], steps
        while t >= 1:
            t -= 1
            grid.append(t)
            if rises.get(t, 0) > 0:
                rises[t] -= 1
                grid.extend(range(t + 1, t + jump_length + 1))
                t += jump_length
        self.timesteps = torch.from_numpy(np.array(grid) * (n // steps)).to(device)
        self._retabulate((self.eta,))

    @property
    def _stride(self) -> int:
        return self.config.num_train_timesteps // self.num_inference_steps

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        """DDIM of strength eta, for the part of the picture that is not known."""
        s, t = self._alpha_bar(timestep), self._alpha_bar(timestep - self._stride)
        data, _ = estimates("epsilon", math.sqrt(s), math.sqrt(1 - s), type(self).__name__)
        bound = 1.0 if self.config.clip_sample else math.inf
        std = key[0] * math.sqrt((1 - t) / (1 - s) * (1 - s / t))
        noise = std if timestep > 0 else 0.0
        estimate = data_operand(data, bound != math.inf)
        direction = math.sqrt(1 - t - std**2)
        sample = math.sqrt(t) * estimate + direction * F + noise * Z
        return Update(sample, data, bound, draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        original_image: Tensor,
        mask: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the timestep before, with the known part noised to it (algorithm 1).

        Args:
            model_output: the noise estimate, [B, ...].
            timestep: an integer, any one.
            sample: [B, ...].
            original_image: the picture, like sample; mask: 1 where it is known, broadcasts.
            generator: of the noise that both parts share.
            return_dict: is accepted; the result is a tuple with named entries in either case.

        Returns:
            `RePaintSchedulerOutput(prev_sample, pred_original_sample)`.
        """
        step = self._step_at(timestep, (self.eta,))
        noise = randn(model_output.shape, generator, model_output.device, model_output.dtype)
        unknown = self._run(step, sample, model_output, [], None, noise if step.noise else None)[0]
        t = self._alpha_bar(self._value(timestep) - self._stride)
        known = torch.add(math.sqrt(t) * original_image, noise, alpha=math.sqrt(1 - t))
        out = mask * known + (1.0 - mask) * unknown
        return deferred(
            RePaintSchedulerOutput, out, self._second, step.update, sample, model_output
        )

    def undo_step(self, sample: Tensor, timestep: Any, generator: Generator = None) -> Tensor:
        """Noise of the forward process from the timestep on, one stride up."""
        first = self._value(timestep)
        for beta in self.betas[first : first + self._stride].tolist():
            noise = randn(sample.shape, generator, sample.device, sample.dtype)
            sample = torch.add(math.sqrt(1 - beta) * sample, noise, alpha=math.sqrt(beta))
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Is not there in diffusers either: models for RePaint train with DDPM's."""
        raise NotImplementedError("RePaintScheduler.add_noise: use DDPMScheduler.add_noise")
