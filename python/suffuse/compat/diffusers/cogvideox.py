"""DDIM and SDE-DPM-Solver++ of CogVideoX (Yang et al. 2024), with a shifted signal-to-noise ratio."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import NO_HISTORY, Generator, deferred, drop_in, randn
from suffuse.compat.diffusers._update import Step, Update, X, Z, data_operand, estimates, on_device
from suffuse.compat.diffusers._vp import BETAS, make_tables
from suffuse.compat.diffusers.ddim import DDIMSchedulerOutput, OnGrid


class _CogVideoX(OnGrid):
    """alphas_cumprod shifted to a smaller signal-to-noise ratio (Yang et al. 2024, CogVideoX)."""

    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "beta_start": 0.00085,
        "beta_end": 0.0120,
        "beta_schedule": "scaled_linear",
        "clip_sample": True,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "prediction_type": "epsilon",
        "clip_sample_range": 1.0,
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
        "snr_shift_scale": 3.0,
    }

    def _setup(self) -> None:
        make_tables(self, wide=True)
        shift, table = self.config.snr_shift_scale, self.alphas_cumprod
        self.alphas_cumprod = table / (shift + (1 - shift) * table)
        if self.config.rescale_betas_zero_snr:
            self.alphas_cumprod = _tables.zero_terminal_alphas(self.alphas_cumprod)
        self._set_final()
        n = self.config.num_train_timesteps
        self.timesteps = torch.from_numpy(np.arange(n)[::-1].copy())
        self.num_inference_steps = None


@drop_in
class CogVideoXDDIMScheduler(_CogVideoX):
    """Drop-in for diffusers.CogVideoXDDIMScheduler. clip_sample has no effect there either."""

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        s, t = self._ends(timestep)
        kind, name = self.config.prediction_type, type(self).__name__
        data, _ = estimates(kind, math.sqrt(s), math.sqrt(1 - s), name)
        a = math.sqrt((1 - t) / (1 - s))
        estimate = data_operand(data, False)
        return Update(a * X + (math.sqrt(t) - math.sqrt(s) * a) * estimate, data)

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
        """The sample at the timestep before. The step is deterministic: eta, generator and the
        other options of `DDIMScheduler.step` are accepted and change nothing, as in diffusers.
        """
        step = self._step_at(timestep)
        out = self._run(step, sample, model_output, NO_HISTORY)[0]
        return deferred(DDIMSchedulerOutput, out, self._second, step.update, sample, model_output)


@drop_in
class CogVideoXDPMScheduler(_CogVideoX):
    """Drop-in for diffusers.CogVideoXDPMScheduler: SDE-DPM-Solver++ (2M)."""

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        """key: the timestep of the step before (None at the first)."""
        (back,) = key
        s, t = self._ends(timestep)
        kind, name = self.config.prediction_type, type(self).__name__
        data, _ = estimates(kind, math.sqrt(s), math.sqrt(1 - s), name)
        estimate = data_operand(data, False)
        # e^-h for the step h in lambda = log(alpha / sigma).
        decay = math.sqrt(s * (1 - t) / ((1 - s) * t)) if t > 0 else math.inf
        x = math.sqrt((1 - t) / (1 - s)) * decay
        weight = math.sqrt(t) * (1 - decay**2)
        noise = math.sqrt(1 - t) * math.sqrt(1 - decay**2)
        if back is not None and timestep - self._stride >= 0:
            share = self._share(self._alpha_bar(back), s, t)
            estimate = (1 + share) * estimate - share * _OLD
        return Update(x * X + weight * estimate + noise * Z, data, draws=True)

    def _share(self, r: float, s: float, t: float) -> float:
        """h / (2 h') of the steps r -> s -> t."""
        lam = [0.5 * (math.log(a) - math.log1p(-a)) if 0 < a < 1 else math.inf for a in (r, s, t)]
        if math.inf in (lam[0], lam[1]):
            return 0.0
        return (lam[2] - lam[1]) / (2 * (lam[1] - lam[0]))

    def _retabulate(self, key: tuple[Any, ...] = (None,)) -> None:
        super()._retabulate(key)
        pairs = list(pairwise(self.timesteps.tolist()))
        updates = [self._updates(timestep, (back,)) for back, timestep in pairs]
        steps = on_device(updates, self.timesteps.device)
        for (back, timestep), step in zip(pairs, steps, strict=True):
            self._table((back,))[timestep] = step

    def _table(self, key: tuple[Any, ...]) -> dict[int, Step]:
        # A step before belongs to few timesteps, so only those that are asked for are made.
        return super()._table(key) if key == (None,) else self._tables.setdefault(key, {})

    def step(
        self,
        model_output: Tensor,
        old_pred_original_sample: Tensor | None,
        timestep: Any,
        timestep_back: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Generator = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The sample at the timestep before, and the data estimate that the next call wants back.

        old_pred_original_sample, timestep_back: the data estimate and the timestep of the call
        before, None at the first. eta, use_clipped_model_output and variance_noise are accepted and
        change nothing, as in diffusers. Noise is drawn twice if there was a call before; the second
        draw is used.
        """
        first = old_pred_original_sample is None
        back = None if timestep_back is None or first else self._value(timestep_back)
        step = self._step_at(timestep, (back,))
        noise = randn(sample.shape, generator, sample.device, sample.dtype)
        if step.history:
            noise = randn(sample.shape, generator, sample.device, sample.dtype)
        step = step._replace(keep=1)
        history = [] if old_pred_original_sample is None else [old_pred_original_sample]
        out, data = self._run(step, sample, model_output, history, None, noise)
        return DDIMSchedulerOutput((out, data))


_OLD = np.eye(10)[3]
