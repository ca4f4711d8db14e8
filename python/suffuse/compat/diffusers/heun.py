"""Heun's method on noise levels, two model calls a step (Karras et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import KARRAS, Generator, deferred, drop_in
from suffuse.compat.diffusers._sigma import RESPACING, Exploding
from suffuse.compat.diffusers._update import (
    H1,
    HOLD_BEFORE,
    KEEP_SAMPLE,
    A,
    D,
    Output,
    Update,
    Weights,
    X,
)
from suffuse.compat.diffusers._vp import BETAS, check_either, make_tables, needed_steps

WIDE_BETAS = {**BETAS, "beta_start": 0.00085, "beta_end": 0.012}


class HeunDiscreteSchedulerOutput(Output):
    """prev_sample, and pred_original_sample: the (bounded) data estimate."""

    __slots__ = ()
    names = ("prev_sample", "pred_original_sample")


class TwoCalls(Exploding):
    """Calls alternate: one to the end or the middle of a step, and one that makes the step."""

    _compatibles: ClassVar[list[str]] = KARRAS
    order = 2

    def _setup(self) -> None:
        make_tables(self)
        self._lay_out(*self._spaced(self.config.num_train_timesteps), None, plan=False)

    @property
    def state_in_first_order(self) -> bool:
        """True if the next call is the first one of a step."""
        return self._step_index is None or self._opens(self._step_index)

    def _opens(self, i: int) -> bool:
        return (i - self._first) % 2 == 0

    def _lay_out(self, grid: Any, levels: Any, device: Any, plan: bool = True) -> None:
        """Sets timesteps and sigmas of all calls from those of the steps."""
        raise NotImplementedError

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        calls = range(begin, len(self.timesteps))
        return [self._open(i) if (i - begin) % 2 == 0 else self._close(i) for i in calls]

    def _open(self, i: int) -> Update:
        raise NotImplementedError

    def _close(self, i: int) -> Update:
        raise NotImplementedError

    def _finish(
        self,
        kind: type[Output],
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
    ) -> Any:
        step = self._here(timestep)
        noise = self._noise(step, model_output, generator)
        out = self._advance(step, sample, model_output, noise)
        return deferred(kind, out, self._second, step.update, sample, model_output)


def doubled(values: Tensor, last: int) -> Tensor:
    """[n] -> every entry twice but the first, and but the `last` ones at the end."""
    end = len(values) - last
    return torch.cat([values[:1], values[1:end].repeat_interleave(2), values[end:]])


@drop_in
class HeunDiscreteScheduler(TwoCalls):
    """Drop-in for diffusers.HeunDiscreteScheduler."""

    _data_predictions = ("sample",)
    _config: ClassVar[dict[str, Any]] = {
        **WIDE_BETAS,
        "prediction_type": "epsilon",
        **RESPACING,
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        num_train_timesteps: int | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Timesteps, noise levels and coefficients; timesteps: instead of a number of steps.

        num_train_timesteps: of the spacing, default the configured number.

        Raises:
            ValueError: neither or both are given, timesteps together with an option that makes its
                own levels, or an unknown spacing.
        """
        check_either(self, num_inference_steps, timesteps, RESPACING)
        if timesteps is not None:
            grid = np.asarray(timesteps, dtype=self._float)
        else:
            config, steps = with_range(self.config, num_train_timesteps), num_inference_steps
            grid = _tables.spaced(
                type(self).__name__, config, needed_steps(self, steps), self._float
            )
        self.num_inference_steps = len(grid)
        self._lay_out(*self._at(grid, len(grid)), device)

    def _lay_out(self, grid: Any, levels: Any, device: Any, plan: bool = True) -> None:
        levels = np.concatenate([levels, [0.0]]).astype(self._float)
        times = torch.from_numpy(np.asarray(grid)).to(self._precision)
        self._set(doubled(times, 0), doubled(torch.from_numpy(levels), 1), device, plan)

    def _estimate(self, level: float) -> tuple[tuple[float, float], float, Weights]:
        """D's weights, its bound, and the slope (x - D) / sigma."""
        data = self._data(level)
        if not self.config.clip_sample:
            return data, math.inf, self._slope(level)
        return data, self.config.clip_sample_range, (X - D) / level

    def _open(self, i: int) -> Update:
        data, bound, slope = self._estimate(self._level(i))
        sample = X + (self._level(i + 1) - self._level(i)) * slope
        return Update(sample, data, bound, keep=KEEP_SAMPLE, hold=HOLD_BEFORE)

    def _close(self, i: int) -> Update:
        # With the first call's result H1 = A + dt * slope there, half a step with each slope.
        start, end = self._level(i - 1), self._level(i)
        data, bound, slope = self._estimate(end)
        return Update(0.5 * (A + H1) + 0.5 * (end - start) * slope, data, bound)

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """What the next call of the model takes (Karras et al. 2022, algorithm 1).

        Calls alternate between an Euler step and its correction; the last step has one call.

        Args:
            model_output: what the model predicts at the scaled sample, [B, ...].
            timestep: an element of `timesteps`, read at the first step only.
            sample: [B, ...], not scaled.
            return_dict: is accepted; the result is a tuple with named entries in either case.

        Returns:
            `HeunDiscreteSchedulerOutput(prev_sample, pred_original_sample)`.
        """
        return self._finish(HeunDiscreteSchedulerOutput, model_output, timestep, sample)


class _Range:
    """A configuration with another number of training timesteps."""

    def __init__(self, config: Any, n: int) -> None:
        self.timestep_spacing, self.steps_offset = config.timestep_spacing, config.steps_offset
        self.num_train_timesteps = n


def with_range(config: Any, n: int | None) -> Any:
    return config if n is None else _Range(config, n)
