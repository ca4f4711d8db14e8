"""DPM-Solver and DPM-Solver++, singlestep (Lu et al. 2022)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import KARRAS, Generator, drop_in
from suffuse.compat.diffusers._sigma import RESPACING
from suffuse.compat.diffusers._update import (
    HISTORY,
    HOLD_BEFORE,
    HOLD_NOTHING,
    NOTHING,
    A,
    Update,
    Weights,
    X,
    Z,
)
from suffuse.compat.diffusers._vp import BETAS, THRESHOLDING, check_either, needed_steps
from suffuse.compat.diffusers.dpm import (
    DPM,
    algorithm_leg,
    curve,
    refuse_zero_end,
)
from suffuse.compat.diffusers.euler import last_level
from suffuse.diffusion.solvers.base import Node
from suffuse.diffusion.solvers.exponential import Leg


@drop_in
class DPMSolverSinglestepScheduler(DPM):
    """Drop-in for diffusers.DPMSolverSinglestepScheduler.

    Attributes:
        order_list: order of every step; an order-k step starts from the sample k - 1 steps ago.
    """

    _compatibles: ClassVar[list[str]] = KARRAS
    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "solver_order": 2,
        "prediction_type": "epsilon",
        **THRESHOLDING,
        "sample_max_value": 1.0,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": False,
        **RESPACING,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    }

    def _setup(self) -> None:
        self._check_algorithm(("dpmsolver", "dpmsolver++", "sde-dpmsolver++"))
        refuse_zero_end(self)
        self._setup_tables()
        self.order_list = self.get_order_list(self.config.num_train_timesteps)

    def get_order_list(self, num_inference_steps: int) -> list[int]:
        """Orders 1, 2 .. solver_order in turn; the rest at the end if lower_order_final."""
        config, steps = self.config, num_inference_steps
        most = config.solver_order
        if most > 3:
            raise ValueError(f"{type(self).__name__}: solver_order is {most}, expected 1, 2 or 3")
        orders = [i % most + 1 for i in range(steps)]
        if not config.lower_order_final:
            orders = orders[: steps // most * most]
        elif most > 1 and steps % most == 0:
            # The last step is of order 1, so its group has to be shorter.
            orders[-1:] = [1]
        if config.final_sigmas_type == "zero":
            orders[-1] = 1
        return orders

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        mu: float | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Timesteps, noise levels and coefficients; as `DPMSolverMultistepScheduler`.

        lower_order_final becomes True, with a warning, where the steps cannot do without.
        """
        self._use_shift(mu)
        check_either(self, num_inference_steps, timesteps, tuple(RESPACING))
        config = self.config
        if timesteps is not None:
            grid = np.asarray(timesteps).astype(np.int64)
        else:
            last = _tables.unclipped(config, self.lambda_t)
            points = np.linspace(0, last - 1, needed_steps(self, num_inference_steps) + 1)
            grid = points.round()[::-1][:-1].astype(np.int64)
        steps = len(grid)
        times, levels, _ = self._levels_at(grid, steps)
        uneven = steps % config.solver_order != 0 or config.final_sigmas_type == "zero"
        if not config.lower_order_final and uneven:
            warnings.warn(
                f"{type(self).__name__}: lower_order_final is set to True for {steps} steps with "
                f"solver_order {config.solver_order} and final_sigmas_type "
                f"{config.final_sigmas_type!r}",
                stacklevel=2,
            )
            self.register_to_config(lower_order_final=True)
        self.order_list = self.get_order_list(steps)
        smallest = float(_tables.sigma_table(self.alphas_cumprod)[0])
        self._set_levels(times, levels, last_level(self, smallest), device)

    def _order(self, i: int, behind: int) -> int:
        return min(self.order_list[i], behind + 1)

    def _multistep(self, i: int, behind: int) -> Update:
        estimate, order = self._estimate(i), self._order(i, behind)
        start = self._node(i - order + 1)
        part = algorithm_leg(self._algorithm, start, self._node(i + 1))
        values = (estimate.value, *HISTORY)[:order]
        weights = self._weights(part, [self._node(i - k) for k in range(order)])
        terms = sum((w * v for w, v in zip(weights, values, strict=True)), NOTHING)
        sample: Weights = X if order == 1 else A
        return Update(
            part.keep * sample + part.scale * terms + part.noise * Z,
            estimate.data,
            converted=estimate.converted,
            keep=estimate.keep if self.config.solver_order > 1 else 0,
            hold=HOLD_BEFORE if order == 1 else HOLD_NOTHING,
            draws=self._stochastic,
        )

    def _weights(self, part: Leg, nodes: Sequence[Node]) -> list[float]:
        midpoint = self.config.solver_type == "midpoint"
        if len(nodes) < 3:
            return part.weights(nodes, "midpoint" if midpoint else "exact")
        if midpoint:
            new, first = part.weights((nodes[0], nodes[2]))
            return [new, 0.0, first]
        weights = part.weights(nodes)
        if self._stochastic:
            # diffusers' second-order term has 1/2 with the other sign here.
            places = [part.rate * (n.lam - part.origin) / part.length for n in nodes]
            weights = [w - 2 * d for w, d in zip(weights, curve(places), strict=True)]
        return weights

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """What the next call of the model takes; as `DPMSolverMultistepScheduler.step`.

        The samples in between are those of the lower orders, which start the next higher one.
        """
        output = self._without_variance(model_output)
        return self._solve(output, timestep, sample, generator, None, output.dtype)
