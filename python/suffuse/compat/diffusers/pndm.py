"""PNDM: linear multistep DDIM with a Runge-Kutta start (Liu et al. 2022)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import KARRAS, drop_in
from suffuse.compat.diffusers._by_timestep import ByTimestep
from suffuse.compat.diffusers._update import (
    H1,
    H2,
    H3,
    HISTORY,
    A,
    F,
    SchedulerOutput,
    Step,
    Update,
    Weights,
    X,
    on_device,
)
from suffuse.compat.diffusers._vp import BETAS, Discrete, make_tables
from suffuse.compat.diffusers.linear import adams_bashforth


@drop_in
class PNDMScheduler(ByTimestep, Discrete):
    """Drop-in for diffusers.PNDMScheduler.

    Attributes:
        ets: model outputs of earlier steps, newest first.
        counter: calls of `step` since `set_timesteps`.
    """

    _compatibles: ClassVar[list[str]] = KARRAS
    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "skip_prk_steps": False,
        "set_alpha_to_one": False,
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "steps_offset": 0,
    }

    def _setup(self) -> None:
        make_tables(self)
        one = torch.tensor(1.0, dtype=self.alphas_cumprod.dtype)
        self.final_alpha_cumprod = one if self.config.set_alpha_to_one else self.alphas_cumprod[0]
        self.pndm_order = 4
        self.timesteps = None  # type: ignore[assignment]
        self.num_inference_steps = None

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Timesteps and coefficients: 12 calls of the Runge-Kutta start, unless skip_prk_steps,
        then one call a step; without the start the second timestep comes twice.
        """
        config = self.config
        self.num_inference_steps = num_inference_steps
        grid = _tables.spaced(type(self).__name__, config, num_inference_steps)
        if config.skip_prk_steps:
            start, rest = grid[:0], np.concatenate([grid[:2], grid[1:]])
        else:
            half = config.num_train_timesteps // num_inference_steps // 2
            first = grid[: self.pndm_order]
            # A step calls the model at its start, twice in its middle and at its end.
            points = np.stack([first + half, first], axis=1).flatten()[1:]
            start, rest = points.repeat(2)[1:-1], grid[3:]
        self.prk_timesteps, self.plms_timesteps = start, rest
        self.timesteps = torch.from_numpy(np.concatenate([start, rest])).to(device)
        self._read_threshold()
        self._remember_timesteps()
        self.counter = 0
        self.ets: list[Tensor] = []
        self._stages: list[Tensor] = []
        self._anchor: Tensor | None = None
        self._calls: dict[tuple[int, int, int], Step] = {}
        self._tabulate()

    def _tabulate(self) -> None:
        """The coefficients of all calls, if they are made in order."""
        start, behind = len(self.prk_timesteps), 0
        keys, updates = [], []
        for counter, timestep in enumerate(self.timesteps.tolist()):
            keys.append((counter, timestep, behind))
            updates.append(self._update(*keys[-1]))
            adds = counter % 4 == 0 if counter < start else counter != 1
            behind = min(behind + adds, 3)
        steps = on_device(updates, self.timesteps.device)
        self._calls = dict(zip(keys, steps, strict=True))

    def _call(self, timestep: int) -> Step:
        key = (self.counter, timestep, min(len(self.ets), 3))
        if key not in self._calls:
            self._calls[key] = on_device([self._update(*key)], self.timesteps.device)[0]
        return self._calls[key]

    def _update(self, counter: int, timestep: int, behind: int) -> Update:
        if counter < len(self.prk_timesteps):
            return self._runge_kutta(counter, timestep)
        stride = self.config.num_train_timesteps // self.num_inference_steps
        if counter == 1:
            # Once more from the first timestep, with the mean of both ends' outputs.
            return self._transfer(A, timestep + stride, timestep, (F + H1) / 2)
        slope = adams_bashforth((F, *HISTORY[:behind]))
        return self._transfer(X, timestep, timestep - stride, slope)

    def _runge_kutta(self, counter: int, timestep: int) -> Update:
        """Liu et al. 2022, eq. 10, one call; H1 to H3 are the step's outputs before this one."""
        stage = counter % 4
        half = self.config.num_train_timesteps // self.num_inference_steps // 2
        before = timestep - (0 if stage % 2 else half)
        slope = (H3 + 2 * H2 + 2 * H1 + F) / 6 if stage == 3 else F
        start = int(self.prk_timesteps[counter - stage])
        return self._transfer(A if stage else X, start, before, slope)

    def _transfer(self, sample: Weights, timestep: int, before: int, eps: Weights) -> Update:
        """Liu et al. 2022, eq. 9, from a timestep to the one before."""
        s = self._alpha_bar(timestep)
        t = self._alpha_bar(before, float(self.final_alpha_cumprod))
        kind = self.config.prediction_type
        if kind == "v_prediction":
            eps = math.sqrt(s) * eps + math.sqrt(1 - s) * sample
        elif kind != "epsilon":
            raise ValueError(
                f"PNDMScheduler: prediction_type is {kind!r}, expected 'epsilon' or 'v_prediction'"
            )
        scale = s * math.sqrt(1 - t) + math.sqrt(s * (1 - s) * t)
        return Update(math.sqrt(t / s) * sample - (t - s) / scale * eps)

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """What the next call of the model takes: Runge-Kutta calls first, then multistep ones.

        Args:
            model_output: what the model predicts at (sample, timestep), [B, ...].
            timestep: an element of `timesteps`, in order.
            sample: [B, ...].
            return_dict: is accepted; the result is a tuple with named entries in either case.

        Returns:
            `SchedulerOutput(prev_sample)`.
        """
        self._ready()
        if self.counter < len(self.prk_timesteps):
            return self.step_prk(model_output, timestep, sample, return_dict)
        return self.step_plms(model_output, timestep, sample, return_dict)

    def step_prk(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """One of the four calls of a Runge-Kutta step, as `step`."""
        self._ready()
        stage = self.counter % 4
        if stage == 0:
            self._anchor, self._stages = sample, []
            self.ets = [model_output, *self.ets]
        step = self._call(self._value(timestep))
        out = self._make(step, sample, model_output, self._stages)
        self._stages = [model_output, *self._stages]
        return out

    def step_plms(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """One multistep call, as `step`."""
        self._ready()
        if not self.config.skip_prk_steps and len(self.ets) < 3:
            raise ValueError("PNDMScheduler.step_plms: expected the 12 calls of step_prk before")
        if self.counter == 0:
            self._anchor = sample
        adds = self.counter != 1
        out = self._make(self._call(self._value(timestep)), sample, model_output, self.ets)
        if adds:
            self.ets = [model_output, *self.ets[:2]]
        return out

    def _make(self, step: Step, x: Tensor, model_output: Tensor, history: list[Tensor]) -> Any:
        anchor = self._anchor if step.anchor else None
        out = self._run(step, x, model_output, history, anchor)[0]
        self.counter += 1
        return SchedulerOutput((out,))
