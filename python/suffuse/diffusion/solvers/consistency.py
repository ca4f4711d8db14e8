"""Samplers of distilled models: multistep consistency sampling, LCM and TCD."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from suffuse.diffusion.discrete import DiscreteVP
from suffuse.diffusion.solvers.base import Grid, Solver, estimate
from suffuse.diffusion.solvers.clipping import BoundedSolver
from suffuse.diffusion.solvers.plan import Stage


@dataclass(frozen=True)
class Consistency(BoundedSolver):
    """Jump to the data estimate, then noise anew: x_t = alpha_t D + sqrt(sigma_t^2 - floor^2) z.

    Song et al. 2023, "Consistency Models", algorithm 1; Luo et al. 2023, "Latent Consistency Models",
    algorithm 3. On `Flow` this is the stochastic sampler of distilled flow models.

    Attributes:
        sigma_min: the floor, as sigma / alpha: the level at which the model's D counts as clean.
        sigma_data, time_scale: where given, D is replaced by c_skip x + c_out D with
            c_skip = sigma_data^2 / ((time_scale t)^2 + sigma_data^2) and
            c_out = time_scale t / sqrt((time_scale t)^2 + sigma_data^2), t the model's time, as LCM
            was distilled with (0.5 and 10).
    """

    sigma_min: float = 0.0
    sigma_data: float | None = None
    time_scale: float = 10.0

    name = "consistency"
    order = 1
    limits = (("sigma_min", (0, math.inf)),)

    def stages(self, grid: Grid) -> Iterable[Stage]:
        for step, (s, t) in enumerate(grid.steps):
            skip, out, scaled = 0.0, 1.0, self.time_scale * s.model_time
            if self.sigma_data is not None:
                size = math.hypot(scaled, self.sigma_data)
                skip, out = (self.sigma_data / size) ** 2, scaled / size
            variance = t.sigma**2 - (t.alpha * self.sigma_min) ** 2
            yield s.stage(
                step,
                x=t.alpha * skip,
                data=t.alpha * out,
                noise=math.sqrt(max(variance, 0.0)),
                **self.bounds.options(s),
            )


@dataclass(frozen=True)
class TCD(Solver):
    """Strategic stochastic sampling (Zheng et al. 2024, "Trajectory Consistency Distillation", alg. 2).

    A deterministic step to the time (1 - gamma) t, then noise by the forward process up to t. The
    last step is deterministic. `DiscreteVP` rounds (1 - gamma) t down.

    Attributes:
        gamma: 0 is deterministic (DDIM), 1 noises anew from the data estimate.
    """

    gamma: float = 0.3

    name = "tcd"
    order = 1
    limits = (("gamma", (0, 1)),)

    def stages(self, grid: Grid) -> Iterable[Stage]:
        for step, (s, t) in enumerate(grid.steps):
            middle = t
            if self.gamma and step < len(grid.nodes) - 2:
                time = (1 - self.gamma) * max(t.time, 0.0)
                whole = isinstance(grid.process, DiscreteVP)
                middle = grid.at(math.floor(time) if whole else time)
            keep = t.alpha / middle.alpha
            added = t.sigma**2 - (keep * middle.sigma) ** 2
            x, model = estimate(s, t.alpha, keep * middle.sigma)
            yield s.stage(step, x=x, model=model, noise=math.sqrt(max(added, 0.0)))
