"""DDPM and its relatives (Ho et al. 2020, "Denoising Diffusion Probabilistic Models")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import (
    KARRAS,
    NO_HISTORY,
    Generator,
    deferred,
    drop_in,
    randn,
)
from suffuse.compat.diffusers._by_timestep import ByTimestep
from suffuse.compat.diffusers._update import Output, Update, X, Z, data_operand, estimates
from suffuse.compat.diffusers._vp import (
    BETAS,
    THRESHOLDING,
    Discrete,
    check_either,
    check_steps,
    make_tables,
    needed_steps,
)

_LEARNED = ("learned", "learned_range")


class DDPMSchedulerOutput(Output):
    """prev_sample, and pred_original_sample: the (bounded) data estimate."""

    __slots__ = ()
    names = ("prev_sample", "pred_original_sample")


class Posterior(ByTimestep, Discrete):
    """The posterior mean of Ho et al. 2020, eq. 7, plus noise of one of several variances."""

    variance_type: str

    def _bound(self) -> float:
        config = self.config
        if config.get("thresholding") or not config.clip_sample:
            return math.inf
        return config.clip_sample_range

    def _mean(self, timestep: int, before: int) -> tuple[Any, tuple[float, float], float, float]:
        """Weights of the mean, those of D, the variance and beta of the step."""
        s, t = self._alpha_bar(timestep), self._alpha_bar(before)
        beta = 1 - s / t
        name, config = type(self).__name__, self.config
        data, _ = estimates(config.prediction_type, math.sqrt(s), math.sqrt(1 - s), name)
        bounded = self._bound() != math.inf or config.get("thresholding", False)
        estimate = data_operand(data, bounded)
        mean = math.sqrt(t) * beta / (1 - s) * estimate + math.sqrt(s / t) * (1 - t) / (1 - s) * X
        return mean, data, (1 - t) / (1 - s) * beta, beta

    def _split(self, model_output: Tensor, sample: Tensor) -> tuple[Tensor, Tensor | None]:
        """The model output, and the variance it predicts if it has twice the channels."""
        channels = sample.shape[1]
        if self.variance_type in _LEARNED and model_output.shape[1] == 2 * channels:
            return model_output[:, :channels], model_output[:, channels:]
        return model_output, None

    def _learned(self, noise: Tensor, predicted: Tensor, timestep: int, before: int) -> Tensor:
        """Noise of the predicted variance (Nichol & Dhariwal 2021, eq. 15)."""
        if self.variance_type == "learned":
            return noise * predicted.sqrt()
        _, _, variance, beta = self._mean(timestep, before)
        low, high = math.log(max(variance, 1e-20)), math.log(beta)
        return noise * torch.exp(0.25 * (high - low) * (predicted + 1) + 0.5 * low)

    def _make(
        self,
        key: tuple[Any, ...],
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator,
        output: type[Output],
    ) -> Output:
        step = self._step_at(timestep, key)
        mean_output, predicted = self._split(model_output, sample)
        noise = None
        if step.draws:
            like = mean_output
            noise = randn(like.shape, generator, like.device, like.dtype)
            if predicted is not None:
                value = self._value(timestep)
                noise = self._learned(noise, predicted, value, self._before(value, key))
            elif self.variance_type in _LEARNED:
                raise ValueError(
                    f"{type(self).__name__}.step: model_output has {model_output.shape[1]} channels, "
                    f"expected {2 * sample.shape[1]} with variance_type {self.variance_type!r}"
                )
        out = self._run(step, sample, mean_output, NO_HISTORY, None, noise)[0]
        return deferred(output, out, self._second, step.update, sample, mean_output)

    def _before(self, timestep: int, key: tuple[Any, ...]) -> int:
        raise NotImplementedError


class _DDPM(Posterior):
    _compatibles: ClassVar[list[str]] = KARRAS
    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "variance_type": "fixed_small",
        "clip_sample": True,
        "prediction_type": "epsilon",
        **THRESHOLDING,
        "clip_sample_range": 1.0,
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
    }

    def _setup(self) -> None:
        make_tables(self)
        self.one = torch.tensor(1.0, dtype=self._precision)
        self.variance_type = self.config.variance_type
        self.custom_timesteps = False
        n = self.config.num_train_timesteps
        self.timesteps = torch.from_numpy(np.arange(n)[::-1].copy())
        self.num_inference_steps = None
        # Without set_timesteps every training timestep is a step.
        self._following: dict[int, int] = {}
        self._tables = {}
        self._values: dict[int, int] = {}
        self._read_threshold()

    def _ready(self) -> None:
        """Sampling without set_timesteps visits every training timestep."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Timesteps and coefficients for sampling.

        timesteps: falling integers instead of a number of steps.

        Raises:
            ValueError: neither or both are given, timesteps do not fall or are too large, or there
                are more steps than num_train_timesteps.
        """
        name, config = type(self).__name__, self.config
        check_either(self, num_inference_steps, timesteps)
        self.custom_timesteps = timesteps is not None
        if timesteps is not None:
            grid = check_falling(name, timesteps, config.num_train_timesteps)
        else:
            steps = self.num_inference_steps = needed_steps(self, num_inference_steps)
            check_steps(self, steps)
            grid = _tables.spaced(name, config, steps)
        self.timesteps = torch.from_numpy(grid).to(device)
        self._following = dict(zip(grid.tolist(), [*grid[1:].tolist(), -1], strict=True))
        self._retabulate()

    def previous_timestep(self, timestep: Any) -> int:
        """The timestep that a step from this one leads to; -1 is the clean data."""
        value = self._value(timestep)
        if not self._following:
            return value - 1
        if value not in self._following:
            name = type(self).__name__
            raise IndexError(f"{name}: timestep is {value}, expected one of timesteps")
        return self._following[value]

    def _before(self, timestep: int, key: tuple[Any, ...]) -> int:
        return self.previous_timestep(timestep)

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        mean, data, variance, beta = self._mean(timestep, self.previous_timestep(timestep))
        draws = timestep > 0
        scale = self._scale(max(variance, 1e-20), beta) if draws else 0.0
        return Update(mean + scale * Z, data, self._bound(), draws=draws)

    def _scale(self, variance: float, beta: float) -> float:
        kind = self.variance_type
        if kind in ("fixed_small", "fixed_small_log"):
            return math.sqrt(variance)
        if kind == "fixed_large":
            return math.sqrt(beta)
        if kind in _LEARNED:
            return 1.0
        # diffusers' fixed_large_log is the root of a logarithm below 0, which is NaN.
        raise ValueError(
            f"{type(self).__name__}: variance_type is {kind!r}, expected 'fixed_small', "
            "'fixed_small_log', 'fixed_large', 'learned' or 'learned_range'"
        )

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the timestep before (Ho et al. 2020, algorithm 2).

        model_output: like sample [B, C, ...], or [B, 2 C, ...] with a learned variance. generator:
        of the noise, also a list with one for each sample; nothing is drawn at timestep 0.
        return_dict: is accepted; the result is a tuple with named entries in either case.

        Returns:
            `DDPMSchedulerOutput(prev_sample, pred_original_sample)`.
        """
        return self._make((), model_output, timestep, sample, generator, DDPMSchedulerOutput)


def check_falling(name: str, timesteps: Sequence[int], below: int) -> Any:
    """Custom timesteps as an array, falling from below the number of training timesteps."""
    grid = np.asarray(timesteps, dtype=np.int64)
    if (np.diff(grid) >= 0).any():
        raise ValueError(f"{name}.set_timesteps: timesteps is {timesteps}, expected falling ones")
    if len(grid) and grid[0] >= below:
        raise ValueError(
            f"{name}.set_timesteps: timesteps start at {grid[0]}, expected less than {below}"
        )
    return grid


@drop_in
class DDPMScheduler(_DDPM):
    """Drop-in for diffusers.DDPMScheduler."""


@drop_in
class DDPMParallelScheduler(_DDPM):
    """Drop-in for diffusers.DDPMParallelScheduler."""

    _is_ode_scheduler = False

    def batch_step_no_noise(
        self, model_output: Tensor, timesteps: Tensor, sample: Tensor
    ) -> Tensor:
        """The mean of `step` with a timestep of its own for each sample (Shih et al. 2023).

        timesteps: integers [B]; each step is one stride of the current spacing.
        """
        steps = self.num_inference_steps or self.config.num_train_timesteps
        stride = self.config.num_train_timesteps // steps
        rows = [self._batch_row(int(t), stride) for t in timesteps.flatten()]
        table = torch.tensor(rows, dtype=torch.float64, device=sample.device)
        mean_output = self._split(model_output, sample)[0]
        return self._run_any(table, 0, False, sample, mean_output, NO_HISTORY, None, None)[0]

    def _batch_row(self, timestep: int, stride: int) -> list[float]:
        mean, data, _, _ = self._mean(timestep, timestep - stride)
        return Update(mean, data, self._bound()).row()
