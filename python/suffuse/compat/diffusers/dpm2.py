"""DPM-Solver-2 on noise levels (Karras et al. 2022): the midpoint rule in log sigma."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import Generator, drop_in
from suffuse.compat.diffusers._sigma import RESPACING, up_and_down
from suffuse.compat.diffusers._update import (
    HOLD_BEFORE,
    A,
    Update,
    X,
    Z,
)
from suffuse.compat.diffusers.heun import (
    WIDE_BETAS,
    HeunDiscreteSchedulerOutput,
    TwoCalls,
    with_range,
)


class KDPM2DiscreteSchedulerOutput(HeunDiscreteSchedulerOutput):
    """prev_sample, and pred_original_sample: the data estimate."""

    __slots__ = ()


class KDPM2AncestralDiscreteSchedulerOutput(HeunDiscreteSchedulerOutput):
    """prev_sample, and pred_original_sample: the data estimate."""

    __slots__ = ()


class _DPM2(TwoCalls):
    _config: ClassVar[dict[str, Any]] = {
        **WIDE_BETAS,
        **RESPACING,
        "prediction_type": "epsilon",
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }
    # Where the level of a step's second call is kept, relative to the call.
    _middle_at = 0
    sigmas_interpol: Tensor

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
        grid = _tables.spaced(type(self).__name__, config, num_inference_steps, self._float)
        self._lay_out(*self._at(grid, num_inference_steps), device)

    def _respaced(self, grid: Any, levels: Any, steps: int, log_table: Any) -> tuple[Any, Any]:
        grid, levels = super()._respaced(grid, levels, steps, log_table)
        return (grid.round() if self.config.use_karras_sigmas else grid), levels

    def _interleaved(self, grid: Any, middle: Tensor) -> Tensor:
        """Timesteps of all calls: those of the middle levels between those of the steps."""
        log_table = np.log(_tables.sigma_table(self.alphas_cumprod))
        times = torch.from_numpy(np.asarray(grid))
        between = torch.from_numpy(_tables.times_of(middle.numpy(), log_table)).to(times.dtype)
        return torch.cat([times[:1], torch.stack([between, times[1:]], dim=1).flatten()])

    def _input_level(self, i: int) -> float:
        return self._level(i) if self._opens(i) else self._middle[i + self._middle_at]

    def _keep_middle(self, middle: Tensor) -> None:
        self.sigmas_interpol = doubled_all(middle)
        self._middle: list[float] = self.sigmas_interpol.tolist()


def doubled_all(values: Tensor) -> Tensor:
    """[n] -> every entry twice but the first, and the last one once more."""
    return torch.cat([values[:1], values[1:].repeat_interleave(2), values[-1:]])


@drop_in
class KDPM2DiscreteScheduler(_DPM2):
    """Drop-in for diffusers.KDPM2DiscreteScheduler: the midpoint rule in log sigma."""

    def _lay_out(self, grid: Any, levels: Any, device: Any, plan: bool = True) -> None:
        steps = torch.from_numpy(np.concatenate([levels, [0.0]]).astype(self._float))
        middle = steps.log().lerp(steps.roll(1).log(), 0.5).exp()
        self._keep_middle(middle)
        self._set(self._interleaved(grid, middle[1:-1]), doubled_all(steps), device, plan)

    def _open(self, i: int) -> Update:
        level = self._level(i)
        sample = X + (self._middle[i + 1] - level) * self._slope(level)
        return Update(sample, self._data(level), hold=HOLD_BEFORE)

    def _close(self, i: int) -> Update:
        middle = self._middle[i]
        sample = A + (self._level(i) - self._level(i - 1)) * self._slope(middle)
        return Update(sample, self._data(middle))

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """What the next call of the model takes (Karras et al. 2022, DPM-Solver-2).

        As `HeunDiscreteScheduler.step`; the first call of a step leads to its middle.
        """
        return self._finish(KDPM2DiscreteSchedulerOutput, model_output, timestep, sample)


@drop_in
class KDPM2AncestralDiscreteScheduler(_DPM2):
    """Drop-in for diffusers.KDPM2AncestralDiscreteScheduler: the same with ancestral noise."""

    _middle_at = -1

    def _lay_out(self, grid: Any, levels: Any, device: Any, plan: bool = True) -> None:
        steps = torch.from_numpy(np.concatenate([levels, [0.0]]).astype(self._float))
        ends = steps.double().tolist()
        pairs = [up_and_down(s, t) for s, t in pairwise(ends)]
        # The last level has no step of its own.
        up, down = torch.tensor([*pairs, (0.0, 0.0)], dtype=steps.dtype).unbind(1)
        middle = steps.log().lerp(down.log(), 0.5).exp()
        middle[-2:] = 0.0
        self._keep_middle(middle)
        self.sigmas_up, self.sigmas_down = doubled_all(up), doubled_all(down)
        self._set(self._interleaved(grid, middle[:-2]), doubled_all(steps), device, plan)

    def _open(self, i: int) -> Update:
        level = self._level(i)
        sample = X + (self._middle[i] - level) * self._slope(level)
        return Update(sample, self._data(level), hold=HOLD_BEFORE)

    def _close(self, i: int) -> Update:
        middle, start = self._middle[i - 1], self._level(i - 1)
        up, down = float(self.sigmas_up[i - 1]), float(self.sigmas_down[i - 1])
        sample = A + (down - start) * self._slope(middle) + up * Z
        return Update(sample, self._data(middle), draws=True)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """As `KDPM2DiscreteScheduler.step`; noise is drawn at the second call of a step."""
        return self._finish(
            KDPM2AncestralDiscreteSchedulerOutput, model_output, timestep, sample, generator
        )
