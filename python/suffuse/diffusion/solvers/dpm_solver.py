"""Multistep exponential integrators without a corrector: DPM-Solver(++), DEIS, Adams-Bashforth."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from suffuse.diffusion.solvers.base import Grid
from suffuse.diffusion.solvers.clipping import BoundedSolver
from suffuse.diffusion.solvers.exponential import Form
from suffuse.diffusion.solvers.multistep import Multistep, refuse_clean_start
from suffuse.diffusion.solvers.plan import Stage
from suffuse.diffusion.solvers.singlestep import Singlestep


@dataclass(frozen=True)
class DPMSolverPP2M(BoundedSolver):
    """Two-step extrapolation of the data estimate (Lu et al. 2022, "DPM-Solver++", algorithm 2).

        x_t = (sigma_t / sigma_s) x + alpha_t (1 - e^-h) (D + (h / 2 h') (D - D'))

    with h the step in lambda, and h' and D' those of the step before. The first step is of order 1,
    as is a step to clean data (h infinite) and the one after alpha = 0 (h' infinite).

    Attributes:
        lower_order_final: the last step is of order 1 wherever it ends; steadier with few steps.
    """

    lower_order_final: bool = False

    name = "dpmpp_2m"
    order = 2

    def stages(self, grid: Grid) -> Iterable[Stage]:
        final = self.lower_order_final
        return Multistep(
            self.name, "data", 2, self.bounds, rule="midpoint", lower_order_final=final
        ).stages(grid)


@dataclass(frozen=True)
class DPMSolver(BoundedSolver):
    """The multistep solvers of orders 1 to 3 (Lu et al. 2022, "DPM-Solver++", section 4 and 5).

    Order 3 is the 3M formula in common use, whose second-order term is half of the exact one: it
    converges with order 2. `ExponentialAdams` has the exact weights.

    Attributes:
        steps_used: 1, 2 or 3 estimates: "order" in diffusers.
        form: "data" is DPM-Solver++, "noise" DPM-Solver (interpolates the noise estimate).
        variant: weight of the slope in the two-step formula: "midpoint", or "heun" (exact).
        eta: 0 solves the ODE, 1 the SDE (SDE-DPM-Solver++, "2M SDE", "3M SDE"); any between. A
            generator then draws in every step.
        s_noise: factor on the noise.
        lower_order_final: order 1 in the last step, at most 2 in the one before.
    """

    steps_used: int = 2
    form: Form = "data"
    variant: Literal["midpoint", "heun"] = "midpoint"
    eta: float = 0.0
    s_noise: float = 1.0
    lower_order_final: bool = False

    name = "dpm_solver"
    limits = (
        ("steps_used", (1, 3)),
        ("form", ("data", "noise")),
        ("variant", ("midpoint", "heun")),
        ("eta", (0, math.inf)),
    )

    @property
    def order(self) -> int:
        return min(self.steps_used, 2)

    def stages(self, grid: Grid) -> Iterable[Stage]:
        return Multistep(
            self.name,
            self.form,
            self.steps_used,
            self.bounds,
            rule="midpoint" if self.variant == "midpoint" else "exact",
            half_curve=True,
            eta=lambda node: self.eta,
            s_noise=self.s_noise,
            lower_order_final=self.lower_order_final,
            draws=lambda step: 1 if self.eta else 0,
        ).stages(grid)


@dataclass(frozen=True)
class CogVideoXDPM(BoundedSolver):
    """SDE-DPM-Solver++ (2M) as the CogVideoX pipelines run it.

    A generator draws two normal tensors in every step but the first and the last, and the second is
    used, so that its numbers are those of diffusers' CogVideoXDPMScheduler.
    """

    name = "cogvideox_dpm"
    order = 1

    def stages(self, grid: Grid) -> Iterable[Stage]:
        ends = (0, len(grid.nodes) - 2)
        return Multistep(
            self.name,
            "data",
            2,
            self.bounds,
            rule="midpoint",
            eta=lambda node: 1.0,
            draws=lambda step: 1 if step in ends else 2,
        ).stages(grid)


@dataclass(frozen=True)
class DEIS(BoundedSolver):
    """The polynomial in lambda through the noise estimates (Zhang & Chen 2023, "log rho" DEIS).

    Attributes:
        steps_used: 1 to 4 estimates. The start is by lower orders, as in use.
        lower_order_final: order 1 in the last step, at most 2 in the one before, and so on.
    """

    steps_used: int = 2
    lower_order_final: bool = False

    name = "deis"
    limits = (("steps_used", (1, 4)),)

    @property
    def order(self) -> int:
        return min(self.steps_used, 2)  # the start of order 1 caps it

    def stages(self, grid: Grid) -> Iterable[Stage]:
        count, final = self.steps_used, self.lower_order_final
        return Multistep(self.name, "noise", count, self.bounds, lower_order_final=final).stages(
            grid
        )


@dataclass(frozen=True)
class ExponentialAdams(BoundedSolver):
    """The integral of the exact solution with the polynomial through `steps_used` data estimates.

    (Hochbruck & Ostermann 2010, "Exponential integrators", eq. 2.58.) The first steps_used - 1 steps
    are singlestep ones of order steps_used - 1, which make several model calls: a start by lower
    orders would cap the order of the whole.

    Attributes:
        steps_used: 1 to 4 estimates, which is the order.
    """

    steps_used: int = 3

    name = "exponential_adams"
    limits = (("steps_used", (1, 4)),)

    @property
    def order(self) -> int:
        return self.steps_used

    def stages(self, grid: Grid) -> Iterable[Stage]:
        refuse_clean_start(self.name, grid)
        first = min(self.steps_used - 1, len(grid.nodes) - 2)
        start = Singlestep("data", self.bounds, keep_first=True)
        for step in range(first):
            yield from start.inside(grid, step, self.steps_used - 1)
        yield from Multistep(self.name, "data", self.steps_used, self.bounds, first=first).stages(
            grid
        )
