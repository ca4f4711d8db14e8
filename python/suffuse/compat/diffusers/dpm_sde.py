"""DPM-Solver SDE on Brownian paths (k-diffusion)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import (
    deferred,
    drop_in,
)
from suffuse.compat.diffusers._brownian import BrownianTree
from suffuse.compat.diffusers._sigma import RESPACING, up_and_down
from suffuse.compat.diffusers._update import (
    HOLD_BEFORE,
    HOLD_NOTHING,
    A,
    F,
    Output,
    Update,
    X,
    Z,
)
from suffuse.compat.diffusers._vp import BETAS
from suffuse.compat.diffusers.heun import TwoCalls, with_range


class DPMSolverSDESchedulerOutput(Output):
    """prev_sample, and pred_original_sample: the data estimate."""

    __slots__ = ()
    names = ("prev_sample", "pred_original_sample")


@drop_in
class DPMSolverSDEScheduler(TwoCalls):
    """Drop-in for diffusers.DPMSolverSDEScheduler.

    Its noise are increments of a Brownian path made by torchsde, which has to be installed.
    """

    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": "epsilon",
        **RESPACING,
        "noise_sampler_seed": None,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }

    def _setup(self) -> None:
        self.noise_sampler_seed = self.config.noise_sampler_seed
        super()._setup()

    @property
    def _grid_type(self) -> Any:
        return np.float64

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: Any = None,
        num_train_timesteps: int | None = None,
    ) -> None:
        """Timesteps, noise levels and coefficients for sampling, two calls a step but the last.

        num_train_timesteps: of the spacing, default the configured number.
        """
        self.num_inference_steps = num_inference_steps
        config = with_range(self.config, num_train_timesteps)
        grid = _tables.spaced(type(self).__name__, config, num_inference_steps, np.float64)
        self._lay_out(*self._at(grid, num_inference_steps), device)

    def _lay_out(self, grid: Any, levels: Any, device: Any, plan: bool = True) -> None:
        log_table = np.log(_tables.sigma_table(self.alphas_cumprod))
        clock = -np.log(levels)
        middle = np.exp(-(clock[:-1] + 0.5 * np.diff(clock)))
        times = torch.from_numpy(np.asarray(grid))
        times = torch.cat([times[:1], times[1:].repeat_interleave(2)])
        times[1::2] = torch.from_numpy(_tables.times_of(middle, log_table)).to(times.dtype)
        steps = torch.from_numpy(np.append(levels, 0.0).astype(self._float))
        inner = steps[1:-1].repeat_interleave(2)
        self._set(times, torch.cat([steps[:1], inner, steps[-1:]]), device, plan)
        self.noise_sampler: BrownianTree | None = None

    def _middle(self, i: int) -> float:
        """The geometric mean of the levels of the step that call i closes."""
        return math.sqrt(self._level(i - 1) * self._level(i))

    def _input_level(self, i: int) -> float:
        return self._level(i) if self._opens(i) else self._middle(i)

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        s_noise = key[0] if key else 1.0
        calls = range(begin, len(self.timesteps))
        return [self._call(i, (i - begin) % 2 == 0, s_noise) for i in calls]

    def _call(self, i: int, first: bool, s_noise: float) -> Update:
        start = i if first else i - 1
        level, end = self._level(start), self._level(start + 1)
        data = self._data(level if first else self._middle(i))
        estimate = data[0] * X + data[1] * F
        if end == 0:
            return Update(estimate, data)
        up, down = up_and_down(level, self._middle(i + 1) if first else end)
        ratio = down / level
        sample = ratio * (X if first else A) + (1 - ratio) * estimate + s_noise * up * Z
        hold = HOLD_BEFORE if first else HOLD_NOTHING
        return Update(sample, data, hold=hold, draws=True)

    def _increment(self, i: int, first: bool) -> Tensor:
        # By way of -log sigma and in its rounding, as the path is asked by diffusers.
        start = i if first else i - 1
        clock = self.sigmas[start : start + 2].log().neg()
        end = clock[0] + (clock[1] - clock[0]) * 0.5 if first else clock[1]
        return self.noise_sampler(clock[0].neg().exp(), end.neg().exp())  # type: ignore[misc]

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        return_dict: bool = True,
        s_noise: float = 1.0,
    ) -> Any:
        """What the next call of the model takes: the middle of a step, then its end, in turn.

        Args:
            model_output: what the model predicts at the scaled sample, [B, ...].
            timestep: an element of `timesteps`, read at the first step only.
            sample: [B, ...], not scaled.
            s_noise: factor on the noise.
            return_dict: is accepted; the result is a tuple with named entries in either case.

        Returns:
            `DPMSolverSDESchedulerOutput(prev_sample, pred_original_sample)`.
        """
        step = self._here(timestep, (s_noise,) if s_noise != 1 else ())
        noise = None
        if self.noise_sampler is None:
            positive = self.sigmas[self.sigmas > 0]
            self.noise_sampler = BrownianTree(
                sample, float(positive.min()), float(positive.max()), self.noise_sampler_seed
            )
        if step.draws:
            i: int = self._step_index  # type: ignore[assignment]
            noise = self._increment(i, self._opens(i))
        out = self._advance(step, sample, model_output, noise)
        return deferred(
            DPMSolverSDESchedulerOutput, out, self._second, step.update, sample, model_output
        )
