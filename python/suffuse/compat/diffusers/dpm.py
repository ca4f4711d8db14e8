"""DPM-Solver and DPM-Solver++, multistep (Lu et al. 2022), from noise to data and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import KARRAS, Generator, drop_in, randn
from suffuse.compat.diffusers._lambda import OnLambda
from suffuse.compat.diffusers._sigma import RESPACING
from suffuse.compat.diffusers._update import (
    HISTORY,
    NOTHING,
    SchedulerOutput,
    Update,
    X,
    Z,
)
from suffuse.compat.diffusers._vp import BETAS, THRESHOLDING, check_either, needed_steps
from suffuse.compat.diffusers.euler import last_level
from suffuse.diffusion.solvers.base import Node
from suffuse.diffusion.solvers.exponential import Leg, leg

ALGORITHMS = ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++")


SOLVERS = ("midpoint", "heun")


FOREIGN = {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"}


def algorithm_leg(algorithm: str, s: Node, t: Node) -> Leg:
    """The step s -> t of an algorithm_type."""
    form: Any = "data" if algorithm.endswith("++") else "noise"
    return leg(s, t, form, 1.0 if algorithm.startswith("sde") else 0.0)


def curve(places: Sequence[float]) -> list[float]:
    """Weights of the second divided difference through three places, in units of the step."""
    a, b, c = places
    return [1 / ((a - b) * (a - c)), 1 / ((b - a) * (b - c)), 1 / ((c - a) * (c - b))]


class DPM(OnLambda):
    """Multistep DPM-Solver: what its four classes share."""

    def _check_algorithm(self, known: Sequence[str] = ALGORITHMS) -> None:
        self._replace_option("algorithm_type", known, {"deis": "dpmsolver++"})
        self._replace_option("solver_type", SOLVERS, FOREIGN)

    @property
    def _algorithm(self) -> str:
        return self.config.algorithm_type

    @property
    def _form(self) -> Any:  # type: ignore[override]
        return "data" if self._algorithm.endswith("++") else "noise"

    @property
    def _stochastic(self) -> bool:
        return self._algorithm.startswith("sde")

    def _few(self) -> bool:
        return self.config.lower_order_final and len(self.timesteps) < 15

    def _ends_low(self) -> bool:
        """True if the last step is of order 1."""
        config = self.config
        zero = config.get("final_sigmas_type") == "zero"
        return config.euler_at_final or self._few() or zero

    def _order(self, i: int, behind: int) -> int:
        last, config = len(self.timesteps) - 1, self.config
        order = min(config.solver_order, behind + 1)
        if i == last and self._ends_low():
            return 1
        return min(order, 2) if i == last - 1 and self._few() else order

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        return [self._multistep(i, i - begin) for i in range(begin, len(self.timesteps))]

    def _multistep(self, i: int, behind: int) -> Update:
        estimate, order = self._estimate(i), self._order(i, behind)
        if self._stands(i):
            keep = estimate.keep if self.config.solver_order > 1 else 0
            return Update(X, estimate.data, converted=estimate.converted, keep=keep, draws=True)
        part = algorithm_leg(self._algorithm, self._node(i), self._node(i + 1))
        values = (estimate.value, *HISTORY)[:order]
        weights = self._weights(part, [self._node(i - k) for k in range(order)])
        terms = sum((w * v for w, v in zip(weights, values, strict=True)), NOTHING)
        return Update(
            part.keep * X + part.scale * terms + part.noise * Z,
            estimate.data,
            converted=estimate.converted,
            keep=estimate.keep if self.config.solver_order > 1 else 0,
            draws=self._stochastic,
        )

    def _stands(self, i: int) -> bool:
        """True for a step with noise between levels that differ by rounding alone."""
        start, end = self._level(i), self._level(i + 1)
        if not self._stochastic or end < start:
            return False
        if end > start * (1 + 1e-6):
            raise ValueError(
                f"{type(self).__name__}: algorithm_type {self._algorithm!r} has no step "
                f"from noise level {start:g} up to {end:g}, expected one without noise"
            )
        return True

    def _weights(self, part: Leg, nodes: Sequence[Node]) -> list[float]:
        if part.length == 0:
            return [0.0] * len(nodes)
        config = self.config
        rule: Any = "midpoint" if config.solver_type == "midpoint" else "exact"
        weights = part.weights(nodes, rule, half_curve=True)
        if len(nodes) == 3 and self._stochastic:
            if self._form == "noise":
                raise NotImplementedError(
                    f"{type(self).__name__}: solver_order is 3 with algorithm_type "
                    f"{self._algorithm!r}, expected 1 or 2"
                )
            # diffusers' second-order term has 1/2 with the other sign here.
            places = [part.rate * (n.lam - part.origin) / part.length for n in nodes]
            weights = [w - d for w, d in zip(weights, curve(places), strict=True)]
        return weights

    def _solve(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator,
        noise: Tensor | None,
        dtype: torch.dtype,
    ) -> Any:
        step = self._here(timestep)
        if step.draws:
            if noise is None:
                noise = randn(sample.shape, generator, model_output.device, dtype)
            return SchedulerOutput((self._advance(step, sample, model_output, noise),))
        return SchedulerOutput((self._advance(step, sample, model_output),))


SHARED = {
    **BETAS,
    "solver_order": 2,
    "prediction_type": "epsilon",
    **THRESHOLDING,
    "sample_max_value": 1.0,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
}


@drop_in
class DPMSolverMultistepScheduler(DPM):
    """Drop-in for diffusers.DPMSolverMultistepScheduler."""

    _compatibles: ClassVar[list[str]] = KARRAS
    _config: ClassVar[dict[str, Any]] = {
        **SHARED,
        "lower_order_final": True,
        "euler_at_final": False,
        **RESPACING,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    }

    def _setup(self) -> None:
        self._check_algorithm()
        refuse_zero_end(self)
        self._setup_tables()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        mu: float | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Timesteps, noise levels and coefficients for sampling.

        mu: log of the flow shift, with dynamic shifting. timesteps: instead of a number of steps.

        Raises:
            ValueError: neither or both are given, timesteps together with an option that makes its
                own levels, or an unknown spacing or last level.
        """
        self._use_shift(mu)
        check_either(self, num_inference_steps, timesteps, (*RESPACING, "use_lu_lambdas"))
        name, config = type(self).__name__, self.config
        if timesteps is not None:
            grid = np.asarray(timesteps).astype(np.int64)
            steps = len(grid)
        else:
            steps = needed_steps(self, num_inference_steps)
            known = _tables.unclipped(config, self.lambda_t)
            grid = _tables.spaced_multistep(name, config, steps, known)
        cosine = config.beta_schedule == "squaredcos_cap_v2"
        if config.use_lu_lambdas and not any(config.get(option) for option in RESPACING):
            times, levels = self._lu_levels(steps, rounded=not cosine)
        else:
            rounded = () if cosine else ("use_karras_sigmas",)
            times, levels, _ = self._levels_at(grid, steps, rounded=rounded)
        smallest = float(_tables.sigma_table(self.alphas_cumprod)[0])
        self._set_levels(times, levels, last_level(self, smallest), device)

    def _lu_levels(self, steps: int, rounded: bool) -> tuple[Any, Any]:
        """Equal steps in lambda (Lu et al. 2022, "DPM-Solver", section 3.2)."""
        log_table = np.log(_tables.sigma_table(self.alphas_cumprod))
        low, high = log_table[0].item(), log_table[-1].item()
        levels = np.exp(_tables.ramped(np.linspace(0, 1, steps), low, high, 1.0))
        times = _tables.times_of(levels, log_table)
        return (times.round() if rounded else times), levels

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next timestep.

        Args:
            model_output: what the model predicts at (sample, timestep), [B, ...].
            timestep: an element of `timesteps`, read at the first step only.
            sample: [B, ...].
            generator: of the noise of the "sde" algorithms, also a list with one for each sample.
            variance_noise: the noise itself instead.
            return_dict: is accepted; the result is a tuple with a named entry in either case.

        Returns:
            `SchedulerOutput(prev_sample)`.
        """
        output = self._without_variance(model_output) if self._has_variance else model_output
        # diffusers draws float32 numbers here, whatever the sample's dtype.
        return self._solve(output, timestep, sample, generator, variance_noise, self._precision)


def refuse_zero_end(scheduler: Any) -> None:
    """The noise estimate has no step to sigma = 0."""
    config = scheduler.config
    if not config.algorithm_type.endswith("++") and config.final_sigmas_type == "zero":
        raise ValueError(
            f"{type(scheduler).__name__}: final_sigmas_type is 'zero' with algorithm_type "
            f"{config.algorithm_type!r}, expected 'sigma_min'"
        )
