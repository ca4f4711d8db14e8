"""Linear multistep methods on slopes: LMS (k-diffusion) and iPNDM (after Liu et al. 2022)."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers._base import KARRAS, deferred, drop_in
from suffuse.compat.diffusers._by_index import ByIndex
from suffuse.compat.diffusers._sigma import RESPACING, Exploding
from suffuse.compat.diffusers._update import (
    HISTORY,
    KEEP_CONVERTED,
    KEEP_MODEL,
    NOTHING,
    F,
    Output,
    SchedulerOutput,
    Update,
    Weights,
    X,
    triple,
)
from suffuse.compat.diffusers._vp import BETAS, make_tables


class LMSDiscreteSchedulerOutput(Output):
    """prev_sample, and pred_original_sample: the data estimate."""

    __slots__ = ()
    names = ("prev_sample", "pred_original_sample")


@drop_in
class LMSDiscreteScheduler(Exploding):
    """Drop-in for diffusers.LMSDiscreteScheduler."""

    _compatibles: ClassVar[list[str]] = KARRAS
    _data_predictions = ("sample",)
    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        **RESPACING,
        "prediction_type": "epsilon",
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }

    def _setup(self) -> None:
        make_tables(self)
        self._lay_out(self.config.num_train_timesteps, None, plan=False)

    def _lay_out(self, steps: int, device: Any, plan: bool) -> None:
        grid, levels = self._spaced(steps)
        levels = np.concatenate([levels, [0.0]]).astype(self._float)
        self._set(torch.from_numpy(grid).to(self._precision), levels, device, plan)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Timesteps, noise levels and coefficients for sampling; spacing: `timestep_spacing`."""
        self.num_inference_steps = num_inference_steps
        self._lay_out(num_inference_steps, device, plan=True)

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """Integral over step t of the Lagrange polynomial of one of the last `order` slopes."""
        nodes = [self._level(t - k) for k in range(order)]
        return lagrange_integrals(nodes, self._level(t), self._level(t + 1))[current_order]

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        (most,) = key or (4,)
        return [self._multistep(i, i - begin, most) for i in range(begin, len(self.timesteps))]

    def _multistep(self, i: int, behind: int, most: int) -> Update:
        """behind: how many slopes of earlier steps there are."""
        level = self._level(i)
        slope, order = self._slope(level), min(i + 1, most)
        nodes = [self._level(i - k) for k in range(order)]
        weights = lagrange_integrals(nodes, level, self._level(i + 1))
        # Started in the middle, the slopes are fewer than their weights, as in diffusers.
        terms = zip(weights, [slope, *HISTORY[:behind]], strict=False)
        sample = X + sum((w * term for w, term in terms), NOTHING)
        model = self.config.prediction_type == "epsilon"
        keep = KEEP_MODEL if model else KEEP_CONVERTED
        return Update(sample, self._data(level), converted=triple(slope), keep=keep)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        order: int = 4,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next noise level, by Adams-Bashforth over the last `order` slopes.

        Args:
            model_output: what the model predicts at the scaled sample, [B, ...].
            timestep: an element of `timesteps`, read at the first step only.
            sample: [B, ...], not scaled.
            order: 1 to 5.
            return_dict: is accepted; the result is a tuple with named entries in either case.

        Returns:
            `LMSDiscreteSchedulerOutput(prev_sample, pred_original_sample)`.
        """
        if not 1 <= order <= 5:
            raise ValueError(f"LMSDiscreteScheduler.step: order is {order}, expected 1 to 5")
        if not self.is_scale_input_called:
            warnings.warn(
                "LMSDiscreteScheduler.step: scale_model_input was not called before", stacklevel=2
            )
        step = self._here(timestep, (order,) if order != 4 else ())
        out = self._advance(step, sample, model_output)
        return deferred(
            LMSDiscreteSchedulerOutput, out, self._second, step.update, sample, model_output
        )


def lagrange_integrals(nodes: list[float], start: float, end: float) -> list[float]:
    """Integrals from start to end of the Lagrange polynomials of up to 5 nodes, exact."""
    points, weights = np.polynomial.legendre.leggauss(3)
    at = 0.5 * (start + end) + 0.5 * (end - start) * points
    integrals = []
    for j, node in enumerate(nodes):
        value = np.ones_like(at)
        for k, other in enumerate(nodes):
            if k != j:
                value = value * (at - other) / (node - other)
        integrals.append(float(0.5 * (end - start) * (weights * value).sum()))
    return integrals


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def adams_bashforth(slopes: tuple[Weights, ...]) -> Weights:
    """The combination of up to four equally spaced slopes, newest first."""
    weights = ADAMS_BASHFORTH[len(slopes) - 1]
    return sum((w * slope for w, slope in zip(weights, slopes, strict=True)), NOTHING)


@drop_in
class IPNDMScheduler(ByIndex):
    """Drop-in for diffusers.IPNDMScheduler."""

    _config: ClassVar[dict[str, Any]] = {"num_train_timesteps": 1000, "trained_betas": None}

    def _setup(self) -> None:
        self.pndm_order = 4
        self._lay_out(self.config.num_train_timesteps, None, plan=False)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Times with equal distances in [0, 1], and their coefficients."""
        self._lay_out(num_inference_steps, device, plan=True)

    def _lay_out(self, steps: int, device: Any, plan: bool) -> None:
        self.num_inference_steps = steps
        given = self.config.trained_betas
        if given is not None:
            self.betas = torch.tensor(given, dtype=self._precision)
        else:
            times = torch.linspace(1, 0, steps + 1, dtype=self._precision)
            self.betas = torch.sin(times * math.pi / 2) ** 2
        self.alphas = (1.0 - self.betas**2) ** 0.5
        times = (torch.atan2(self.betas, self.alphas) / math.pi * 2)[:-1]
        self.timesteps = times.to(device)
        self._restart(plan)

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        return [self._multistep(i, i - begin) for i in range(begin, len(self.timesteps))]

    def _multistep(self, i: int, behind: int) -> Update:
        alpha, sigma = float(self.alphas[i]), float(self.betas[i])
        now = sigma * X + alpha * F
        eps = adams_bashforth((now, *HISTORY[: min(behind, 3)]))
        data = (X - sigma * eps) / max(alpha, 1e-8)
        sample = float(self.alphas[i + 1]) * data + float(self.betas[i + 1]) * eps
        return Update(sample, converted=triple(now), keep=KEEP_CONVERTED)

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """The sample at the next time (Liu et al. 2022, eq. 12, without Runge-Kutta start).

        timestep: an element of `timesteps`, read at the first step only. return_dict: is accepted;
        the result is a tuple with named entries in either case.

        Returns:
            `SchedulerOutput(prev_sample)`.
        """
        out = self._advance(self._here(timestep), sample, model_output)
        return SchedulerOutput((out,))
