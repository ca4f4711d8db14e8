"""DDIM and its relatives (Song et al. 2021, "Denoising Diffusion Implicit Models")."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import (
    KARRAS,
    NO_HISTORY,
    Generator,
    compiling,
    deferred,
    drop_in,
    gradients,
    randn,
    raw_step,
)
from suffuse.compat.diffusers._by_timestep import ByTimestep
from suffuse.compat.diffusers._update import Output, Update, X, Z, data_operand, estimates
from suffuse.compat.diffusers._vp import BETAS, THRESHOLDING, Discrete, check_steps, make_tables


class DDIMSchedulerOutput(Output):
    """prev_sample, and pred_original_sample: the (bounded) data estimate."""

    __slots__ = ()
    names = ("prev_sample", "pred_original_sample")


class OnGrid(ByTimestep, Discrete):
    """Integer timesteps with a fixed distance: num_train_timesteps // num_inference_steps."""

    _compatibles: ClassVar[list[str]] = KARRAS

    def _setup(self) -> None:
        make_tables(self)
        self._set_final()
        n = self.config.num_train_timesteps
        self.timesteps = torch.from_numpy(np.arange(n)[::-1].copy())
        self.num_inference_steps = None

    def _set_final(self) -> None:
        one = torch.tensor(1.0, dtype=self.alphas_cumprod.dtype)
        self.final_alpha_cumprod = one if self.config.set_alpha_to_one else self.alphas_cumprod[0]

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Timesteps and coefficients for sampling; spacing: `timestep_spacing`.

        Raises:
            ValueError: more steps than num_train_timesteps, or an unknown spacing.
        """
        check_steps(self, num_inference_steps)
        self.num_inference_steps = num_inference_steps
        grid = _tables.spaced(type(self).__name__, self.config, num_inference_steps)
        self.timesteps = torch.from_numpy(grid).to(device)
        self._retabulate()

    @property
    def _stride(self) -> int:
        return self.config.num_train_timesteps // self.num_inference_steps

    def _ends(self, timestep: int) -> tuple[float, float]:
        """alphas_cumprod at the timestep and at the one that the step leads to."""
        final = float(self.final_alpha_cumprod)
        return self._alpha_bar(timestep), self._alpha_bar(timestep - self._stride, final)

    def _bound(self) -> float:
        config = self.config
        if config.get("thresholding") or not config.clip_sample:
            return math.inf
        return config.clip_sample_range


class _DDIM(OnGrid):
    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "clip_sample": True,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "prediction_type": "epsilon",
        **THRESHOLDING,
        "clip_sample_range": 1.0,
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
    }

    def _retabulate(self, key: tuple[Any, ...] = (0.0, False)) -> None:
        super()._retabulate(key)

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        eta, from_clipped = key
        s, t = self._ends(timestep)
        return self._update(s, t, eta, from_clipped)

    def _update(self, s: float, t: float, eta: float, from_clipped: bool) -> Update:
        """From alpha_bar s to t: Song et al. 2021, eq. 12 and 16."""
        config, bound = self.config, self._bound()
        alpha, sigma = math.sqrt(s), math.sqrt(1 - s)
        data, eps = estimates(config.prediction_type, alpha, sigma, type(self).__name__)
        estimate = data_operand(data, bound != math.inf or config.get("thresholding", False))
        if from_clipped:
            eps = (X - alpha * estimate) / sigma
        noise = eta * math.sqrt((1 - t) / (1 - s) * (1 - s / t)) if eta else 0.0
        sample = math.sqrt(t) * estimate + math.sqrt(1 - t - noise**2) * eps + noise * Z
        return Update(sample, data, bound, draws=eta > 0)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Generator = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the timestep before (Song et al. 2021, eq. 12).

        Args:
            model_output: what the model predicts at (sample, timestep), like sample.
            sample: [B, ...].
            eta: strength of the noise; 0 is deterministic, 1 is DDPM.
            use_clipped_model_output: takes the noise estimate from the bounded data estimate.
            generator: of the noise, also a list with one for each sample.
            variance_noise: the noise itself instead.
            return_dict: is accepted; the result is a tuple with named entries in either case.

        Returns:
            `DDIMSchedulerOutput(prev_sample, pred_original_sample)`.
        """
        if not (eta or use_clipped_model_output or gradients() or compiling()):
            on_host = isinstance(timestep, Tensor) and timestep.is_cpu
            value = timestep.item() if on_host else self._value(timestep)
            row = self._rows.get(value)
            if row is not None and sample.dtype is model_output.dtype:
                try:
                    out = raw_step(sample, (model_output,), row, NO_HISTORY, False)[0]
                    second = (self._second_at, value, sample, model_output)
                    return DDIMSchedulerOutput((out, second))
                except RuntimeError:
                    # The table is on another device, above all; anything else fails again below.
                    pass
        step = self._step_at(timestep, (float(eta), bool(use_clipped_model_output)))
        noise = None
        if eta > 0:
            noise = self._variance_noise(model_output, generator, variance_noise)
        out = self._run(
            step, sample, model_output, NO_HISTORY, None, noise if step.noise else None
        )[0]
        return deferred(DDIMSchedulerOutput, out, self._second, step.update, sample, model_output)

    def _second_at(self, value: int, sample: Tensor, model_output: Tensor) -> Tensor:
        return self._second(self._step_at(value, (0.0, False)).update, sample, model_output)

    def _variance_noise(self, like: Tensor, generator: Generator, given: Tensor | None) -> Tensor:
        if given is None:
            return randn(like.shape, generator, like.device, like.dtype)
        if generator is not None:
            name = type(self).__name__
            raise ValueError(f"{name}.step: got generator and variance_noise, expected one of them")
        return given


@drop_in
class DDIMScheduler(_DDIM):
    """Drop-in for diffusers.DDIMScheduler."""


@drop_in
class DDIMParallelScheduler(_DDIM):
    """Drop-in for diffusers.DDIMParallelScheduler."""

    _is_ode_scheduler = True

    def batch_step_no_noise(
        self,
        model_output: Tensor,
        timesteps: Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
    ) -> Tensor:
        """`step` with a timestep of its own for each sample, eta = 0 (Shih et al. 2023).

        timesteps: integers [B].
        """
        self._ready()
        if eta != 0:
            name = type(self).__name__
            raise ValueError(f"{name}.batch_step_no_noise: eta is {eta}, expected 0")
        key = (0.0, bool(use_clipped_model_output))
        rows = [self._batch_row(int(t), key) for t in timesteps.flatten()]
        table = torch.tensor(rows, dtype=torch.float64, device=sample.device)
        return self._run_any(table, 0, False, sample, model_output, NO_HISTORY, None, None)[0]

    def _batch_row(self, timestep: int, key: tuple[Any, ...]) -> list[float]:
        # diffusers takes alpha = 1 before the first timestep here, whatever set_alpha_to_one is.
        s, t = self._alpha_bar(timestep), self._alpha_bar(timestep - self._stride)
        return self._update(s, t, *key).row()


@drop_in
class DDIMInverseScheduler(OnGrid):
    """Drop-in for diffusers.DDIMInverseScheduler: DDIM from data to noise."""

    _compatibles: ClassVar[list[str]] = []
    _renamed: ClassVar[dict[str, str]] = {"set_alpha_to_zero": "set_alpha_to_one"}
    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "clip_sample": True,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "prediction_type": "epsilon",
        "clip_sample_range": 1.0,
        "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
    }

    def _set_final(self) -> None:
        one = torch.tensor(1.0, dtype=self.alphas_cumprod.dtype)
        self.initial_alpha_cumprod = one if self.config.set_alpha_to_one else self.alphas_cumprod[0]

    def _setup(self) -> None:
        super()._setup()
        self.timesteps = self.timesteps.flip(0)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Rising timesteps and their coefficients; "linspace" spacing is refused as in diffusers."""
        spacing, name = self.config.timestep_spacing, type(self).__name__
        if spacing == "linspace":
            raise ValueError(
                f"{name}: timestep_spacing is {spacing!r}, expected 'leading' or 'trailing'"
            )
        check_steps(self, num_inference_steps)
        self.num_inference_steps = num_inference_steps
        grid = _tables.spaced(name, self.config, num_inference_steps)[::-1].copy()
        self.timesteps = torch.from_numpy(grid).to(device)
        self._retabulate()

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        config = self.config
        before = min(timestep - self._stride, config.num_train_timesteps - 1)
        s = self._alpha_bar(before, float(self.initial_alpha_cumprod))
        t, bound = self._alpha_bar(timestep), self._bound()
        alpha, sigma = math.sqrt(s), math.sqrt(1 - s)
        data, eps = estimates(config.prediction_type, alpha, sigma, type(self).__name__)
        estimate = data_operand(data, bound != math.inf)
        return Update(math.sqrt(t) * estimate + math.sqrt(1 - t) * eps, data, bound)

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """The sample at the timestep, from the model's output one stride before it."""
        step = self._step_at(timestep)
        out = self._run(step, sample, model_output, NO_HISTORY)[0]
        return deferred(DDIMSchedulerOutput, out, self._second, step.update, sample, model_output)
