"""Latent and trajectory consistency models: LCM and TCD."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers._base import (
    Generator,
    deferred,
    drop_in,
)
from suffuse.compat.diffusers._by_index import ByIndex
from suffuse.compat.diffusers._update import (
    Output,
    Update,
    X,
    Z,
    data_operand,
    estimates,
    triple,
)
from suffuse.compat.diffusers._vp import (
    BETAS,
    THRESHOLDING,
    Discrete,
    check_either,
    check_steps,
    make_tables,
    needed_steps,
)
from suffuse.compat.diffusers.ddpm import check_falling


class LCMSchedulerOutput(Output):
    """prev_sample, and denoised: the consistency function's value."""

    __slots__ = ()
    names = ("prev_sample", "denoised")


class TCDSchedulerOutput(Output):
    """prev_sample, and pred_noised_sample: the sample before the noise."""

    __slots__ = ()
    names = ("prev_sample", "pred_noised_sample")


class _Distilled(ByIndex, Discrete):
    """Integer timesteps that are a selection of those a model was distilled at."""

    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "original_inference_steps": 50,
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "prediction_type": "epsilon",
        **THRESHOLDING,
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "timestep_scaling": 10.0,
        "rescale_betas_zero_snr": False,
    }

    def _setup(self) -> None:
        make_tables(self)
        one = torch.tensor(1.0, dtype=self.alphas_cumprod.dtype)
        self.final_alpha_cumprod = one if self.config.set_alpha_to_one else self.alphas_cumprod[0]
        n = self.config.num_train_timesteps
        self.timesteps = torch.from_numpy(np.arange(n)[::-1].copy())
        self.num_inference_steps = None
        self.custom_timesteps = False
        self._restart(plan=False)

    def _trained(self, original_steps: int, strength: float) -> Any:
        """The rising timesteps of distillation, up to the strength."""
        n = self.config.num_train_timesteps
        if original_steps > n:
            raise ValueError(
                f"{type(self).__name__}.set_timesteps: original_inference_steps is "
                f"{original_steps}, expected at most num_train_timesteps = {n}"
            )
        return np.arange(1, int(original_steps * strength) + 1) * (n // original_steps) - 1

    def _origins(self, original_steps: int | None, strength: float) -> Any:
        return self._trained(original_steps or self.config.original_inference_steps, strength)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        original_inference_steps: int | None = None,
        timesteps: Sequence[int] | None = None,
        strength: float = 1.0,
    ) -> None:
        """Timesteps and coefficients for sampling.

        Args:
            original_inference_steps: steps of the distillation, default the configured number.
            timesteps: falling integers instead of a number of steps.
            strength: the part of the timesteps to use, counted from the least noisy one.

        Raises:
            ValueError: neither or both are given, timesteps do not fall or are too large, or there
                are more steps than the distillation had.
        """
        name = type(self).__name__
        check_either(self, num_inference_steps, timesteps)
        origins = self._origins(original_inference_steps, strength)
        self.custom_timesteps = timesteps is not None
        if timesteps is not None:
            grid = self._checked(timesteps, origins, strength)
            self.num_inference_steps = len(grid)
            kept = min(int(len(grid) * strength), len(grid))
            grid = grid[len(grid) - kept :]
        else:
            steps = needed_steps(self, num_inference_steps)
            check_steps(self, steps)
            if len(origins) < steps:
                raise ValueError(
                    f"{name}.set_timesteps: num_inference_steps is {num_inference_steps}, expected "
                    f"at most {len(origins)}, the distillation's steps times strength {strength}"
                )
            self.num_inference_steps = num_inference_steps
            chosen = np.linspace(0, len(origins), num=steps, endpoint=False)
            grid = origins[::-1][np.floor(chosen).astype(np.int64)].copy()
        self.timesteps = torch.from_numpy(grid).to(device=device, dtype=torch.int64)
        self._restart()

    def _checked(self, timesteps: Sequence[int], origins: Any, strength: float) -> Any:
        name, n = type(self).__name__, self.config.num_train_timesteps
        grid = check_falling(name, timesteps, n)
        strange = sorted(set(grid.tolist()) - set(origins.tolist()))
        if strange or (strength == 1.0 and grid[0] != n - 1):
            warnings.warn(
                f"{name}.set_timesteps: timesteps is {list(timesteps)}; the model was distilled at "
                f"{origins[0]} to {origins[-1]}, starting from {n - 1}",
                stacklevel=3,
            )
        return grid

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        times = self.timesteps.tolist()
        following = [*times[1:], None]
        return [self._update(i, times[i], following[i], key) for i in range(begin, len(times))]

    def _update(self, i: int, timestep: int, before: int | None, key: tuple[Any, ...]) -> Update:
        raise NotImplementedError


@drop_in
class LCMScheduler(_Distilled):
    """Drop-in for diffusers.LCMScheduler (Luo et al. 2023, "Latent Consistency Models")."""

    def get_scalings_for_boundary_condition_discrete(self, timestep: Any) -> tuple[Any, Any]:
        """c_skip and c_out, which make the consistency function the identity at timestep 0."""
        scaled = timestep * self.config.timestep_scaling
        return 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5

    def _update(self, i: int, timestep: int, before: int | None, key: tuple[Any, ...]) -> Update:
        config = self.config
        s = self._alpha_bar(timestep)
        t = self._alpha_bar(timestep if before is None else before)
        kind, name = config.prediction_type, type(self).__name__
        data, _ = estimates(kind, math.sqrt(s), math.sqrt(1 - s), name)
        bound = math.inf
        if config.clip_sample and not config.thresholding:
            bound = config.clip_sample_range
        estimate = data_operand(data, bound != math.inf or config.thresholding)
        skip, out = self.get_scalings_for_boundary_condition_discrete(timestep)
        denoised = out * estimate + skip * X
        second = triple(denoised)
        if i == self.num_inference_steps - 1:  # type: ignore[operator]
            return Update(denoised, data, bound, second=second)
        sample = math.sqrt(t) * denoised + math.sqrt(1 - t) * Z
        return Update(sample, data, bound, second=second, draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next timestep: the consistency function's value, noised again.

        timestep: an element of `timesteps`, read at the first step only. generator: of the noise;
        none is drawn at the last step. return_dict: is accepted; the result is a tuple with named
        entries in either case.

        Returns:
            `LCMSchedulerOutput(prev_sample, denoised)`.
        """
        step = self._here(timestep)
        noise = self._noise(step, model_output, generator)
        out = self._advance(step, sample, model_output, noise)
        return deferred(LCMSchedulerOutput, out, self._second, step.update, sample, model_output)


@drop_in
class TCDScheduler(_Distilled):
    """Drop-in for diffusers.TCDScheduler (Zheng et al. 2024, "Trajectory Consistency")."""

    def _origins(self, original_steps: int | None, strength: float) -> Any:
        if original_steps is not None:
            return np.arange(int(self.config.num_train_timesteps * strength))
        return self._trained(self.config.original_inference_steps, strength)

    def _update(self, i: int, timestep: int, before: int | None, key: tuple[Any, ...]) -> Update:
        (eta,) = key or (0.3,)
        before = 0 if before is None else before
        # In the default dtype, so that the rounding of the product is diffusers'.
        middle = int(torch.floor((1 - eta) * torch.tensor(before)))
        s, m, t = (self._alpha_bar(time) for time in (timestep, middle, before))
        kind, name = self.config.prediction_type, type(self).__name__
        data, eps = estimates(kind, math.sqrt(s), math.sqrt(1 - s), name)
        noised = math.sqrt(m) * data_operand(data, False) + math.sqrt(1 - m) * eps
        if eta == 0 or i == self.num_inference_steps - 1:  # type: ignore[operator]
            return Update(noised, data, second=triple(noised))
        sample = math.sqrt(t / m) * noised + math.sqrt(max(1 - t / m, 0.0)) * Z
        return Update(sample, data, second=triple(noised), draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.3,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next timestep, by way of a less noisy one (their gamma is eta).

        eta: in [0, 1]; 0 is deterministic. Otherwise as `LCMScheduler.step`.

        Returns:
            `TCDSchedulerOutput(prev_sample, pred_noised_sample)`.
        """
        if not 0 <= eta <= 1:
            raise ValueError(f"TCDScheduler.step: eta is {eta}, expected a number in [0, 1]")
        step = self._here(timestep, (eta,) if eta != 0.3 else ())
        noise = self._noise(step, model_output, generator)
        out = self._advance(step, sample, model_output, noise)
        return deferred(TCDSchedulerOutput, out, self._second, step.update, sample, model_output)
