"""Multistep solvers with a corrector that costs no model call: UniPC and SA-Solver."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from suffuse.diffusion.solvers.base import Grid, Node
from suffuse.diffusion.solvers.clipping import BoundedSolver
from suffuse.diffusion.solvers.exponential import Form
from suffuse.diffusion.solvers.multistep import Multistep
from suffuse.diffusion.solvers.plan import Stage


@dataclass(frozen=True)
class UniPC(BoundedSolver):
    """Unified predictor-corrector (Zhao et al. 2023, "UniPC", algorithms 5 to 8).

    The corrector of step i runs once the estimate at its end is known, which is the model call of
    step i + 1; the last step has none. Its weights solve the order conditions, so that from order 3
    (corrector: 2) on they are those of the exact integral of the interpolating polynomial; `kind`
    matters below.

    Attributes:
        steps_used: order of the predictor, 1 to 3; the corrector uses one estimate more.
        kind: B(h) of the paper: "bh1" is h, "bh2" is e^h - 1.
        form: interpolate the "data" or the "noise" estimate.
        lower_order_final: order 1 in the last step, at most 2 in the one before, and so on.
        disable_corrector: indices of steps that are not corrected.
    """

    steps_used: int = 2
    kind: Literal["bh1", "bh2"] = "bh2"
    form: Form = "data"
    lower_order_final: bool = False
    disable_corrector: tuple[int, ...] = ()

    name = "unipc"
    limits = (("kind", ("bh1", "bh2")), ("steps_used", (1, 3)), ("form", ("data", "noise")))

    @property
    def order(self) -> int:
        return self.steps_used + 1

    def stages(self, grid: Grid) -> Iterable[Stage]:
        return Multistep(
            self.name,
            self.form,
            self.steps_used,
            self.bounds,
            corrector=self.steps_used + 1,
            rule="midpoint" if self.kind == "bh2" else "half_step",
            lower_order_final=self.lower_order_final,
            uncorrected=self.disable_corrector,
        ).stages(grid)


@dataclass(frozen=True)
class SASolver(BoundedSolver):
    """Stochastic Adams predictor and corrector (Xue et al. 2023, "SA-Solver", algorithm 1).

    A generator draws one normal tensor in every step, used or not.

    Attributes:
        predictor, corrector: estimates used, 1 to 3 and 0 (none) to 4, the corrector's with the
            new one.
        tau: strength of the noise (tau^2 is `eta` of other solvers), a number or a function of the
            process time at which a step starts; 0 is the ODE.
        lower_order_final: order 1 in the last step, at most 2 in the one before, and so on.
    """

    predictor: int = 2
    corrector: int = 2
    tau: float | Callable[[float], float] = 1.0
    lower_order_final: bool = False

    name = "sa_solver"
    limits = (("predictor", (1, 3)), ("corrector", (0, 4)))

    def _eta(self, node: Node) -> float:
        return (self.tau(node.time) if callable(self.tau) else self.tau) ** 2

    @property
    def order(self) -> int:
        return self.corrector or self.predictor

    def stages(self, grid: Grid) -> Iterable[Stage]:
        return Multistep(
            self.name,
            "data",
            self.predictor,
            self.bounds,
            corrector=self.corrector,
            rule="half_step",
            eta=self._eta,
            lower_order_final=self.lower_order_final,
            draws=lambda step: 1,
        ).stages(grid)
