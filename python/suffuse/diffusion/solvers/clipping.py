"""Bounds on the data estimate that several solvers share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from suffuse.diffusion.solvers.base import Node, Solver, estimate
from suffuse.diffusion.solvers.exponential import Form
from suffuse.diffusion.solvers.plan import Pair, Stage


@dataclass(frozen=True)
class Bounds:
    """Clip or dynamic threshold of the data estimate D; the noise estimate follows from it."""

    clip: float = math.inf
    threshold: Pair | None = None

    def options(self, node: Node) -> dict[str, float | Pair | None]:
        """The fields of a stage that bound D at this node."""
        from_x, from_model = node.data
        return {
            "data_from_x": from_x,
            "data_from_model": from_model,
            "clip": self.clip,
            "threshold": self.threshold,
        }

    def stage(
        self,
        node: Node,
        step: int,
        *,
        form: Form,
        x: float,
        data: float,
        eps: float,
        **options: int | bool | float | tuple[float, ...] | None,
    ) -> Stage:
        """x' = x X + data D + eps E + ..., with D or E (`form`) as what a stage may keep."""
        if form == "noise" and self == Bounds():
            from_x, model = estimate(node, data, eps)
            return node.stage(step, x=x + from_x, model=model, kept=(*node.noise, 0.0), **options)
        # E = (x - alpha D) / sigma of the bounded D.
        eps_x, eps_data = 1 / node.sigma, -node.alpha / node.sigma
        kept = (0.0, 0.0, 1.0) if form == "data" else (eps_x, 0.0, eps_data)
        new = {"x": x + eps * eps_x, "data": data + eps * eps_data, "kept": kept}
        return node.stage(step, **new, **self.options(node), **options)


@dataclass(frozen=True, kw_only=True)
class BoundedSolver(Solver):
    """A solver that can bound the data estimate.

    Attributes:
        clip: bound on the data estimate (1.0 for pictures in [-1, 1]); default none.
        threshold: (quantile, maximum) of dynamic thresholding (Saharia et al. 2022, section 2.3).
    """

    clip: float = math.inf
    threshold: Pair | None = None

    @property
    def bounds(self) -> Bounds:
        """The two as one object."""
        return Bounds(self.clip, self.threshold)
