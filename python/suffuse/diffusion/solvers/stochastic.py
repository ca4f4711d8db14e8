"""Score-based samplers: reverse SDE, predictor-corrector, annealed Langevin dynamics."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from suffuse.diffusion.process import Process
from suffuse.diffusion.solvers.base import Grid, Node, Solver, estimate
from suffuse.diffusion.solvers.plan import Pair, Stage


def score(node: Node) -> Pair:
    """Weights of (x, F) in the score -eps / sigma."""
    return estimate(node, 0.0, -1 / node.sigma)


@dataclass(frozen=True)
class ReverseSDE(Solver):
    """Euler-Maruyama for the reverse SDE (Song et al. 2021, eq. 6, as a family in the noise).

        dx = (f x - (g^2 + w) / 2 * score) dt + sqrt(w) dw backwards in time,

    which has the same marginals for every w >= 0. The noise-free part is taken as alpha_t D +
    sigma_t eps, so that a step from alpha = 0 exists wherever w is finite.

    Attributes:
        strength: factor on w; 1 is the reverse SDE, 0 the probability-flow ODE.
        diffusion: w / strength: "process" is g^2; "sigma" is 2 sigma, finite on all of `Flow`
            (Ma et al. 2024, "SiT", section 2.4).
    """

    strength: float = 1.0
    diffusion: Literal["process", "sigma"] = "process"

    name = "reverse_sde"
    order = 1
    limits = (("strength", (0, math.inf)), ("diffusion", ("process", "sigma")))

    def stages(self, grid: Grid) -> Iterable[Stage]:
        for step, (s, t) in enumerate(grid.steps):
            x, model = estimate(s, t.alpha, t.sigma)
            amount = self._amount(grid.process, s) * (s.time - t.time) if t.sigma else 0.0
            if amount:
                if not 0 < amount < math.inf:
                    raise ValueError(
                        f"reverse_sde: the noise of the step from time {s.time:g} to {t.time:g} is "
                        "not positive and finite; expected times from noise to data, and "
                        "diffusion='sigma' where alpha is 0"
                    )
                score_x, score_model = score(s)
                x, model = x + 0.5 * amount * score_x, model + 0.5 * amount * score_model
            yield s.stage(step, x=x, model=model, noise=math.sqrt(amount))

    def _amount(self, process: Process, s: Node) -> float:
        if self.diffusion == "sigma":
            return self.strength * 2 * s.sigma
        return self.strength * float(process.diffusion(s.time)) ** 2


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """Langevin steps at each level, then a reverse-diffusion step (Song et al. 2021, algorithms 2, 4).

    The predictor adds the variance between the levels: in y = x / alpha over r = sigma / alpha,
    y_t = y_s + (r_s^2 - r_t^2) score + sqrt(r_s^2 - r_t^2) z. A corrector step is
    x + e score + sqrt(2 e) z with e = 2 (snr |z| / |score|)^2, the norms averaged over the batch.

    Attributes:
        snr: signal-to-noise ratio of the corrector.
        corrections: its steps before each predictor step, one model call each.
        noisy_end: the last predictor step has noise as well (diffusers' ScoreSdeVeScheduler adds it).
    """

    snr: float = 0.15
    corrections: int = 1
    noisy_end: bool = False

    name = "predictor_corrector"
    order = 1
    limits = (("snr", (1e-09, math.inf)), ("corrections", (0, math.inf)))

    def stages(self, grid: Grid) -> Iterable[Stage]:
        last = len(grid.nodes) - 2
        for step, (s, t) in enumerate(grid.steps):
            x, model = score(s)
            for _ in range(self.corrections):
                yield s.stage(step, snr=self.snr, kept=(x, model, 0.0))
            variance = s.ratio**2 - t.ratio**2
            if not 0 <= variance < math.inf:
                raise ValueError(
                    f"predictor_corrector: times has {s.time:g} before {t.time:g}, expected falling "
                    "noise and alpha > 0"
                )
            # The score of y is alpha times that of x.
            scale, weight = t.alpha / s.alpha, t.alpha * s.alpha * variance
            noise = t.alpha * math.sqrt(variance)
            yield s.stage(
                step,
                x=scale + weight * x,
                model=weight * model,
                noise=noise if step < last or self.noisy_end else 0.0,
            )


@dataclass(frozen=True)
class Langevin(Solver):
    """Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1).

        x <- x + (a / 2) score + sqrt(a) z,   a = step_size sigma^2 / sigma_last^2

    `repeats` times at every level of the grid but the last. Where that is clean data it is reached by
    the data estimate (Jolicoeur-Martineau et al. 2021, "Adversarial Score Matching", eq. 5).

    Attributes:
        step_size: their epsilon, which belongs to the last noisy level of the grid.
        repeats: their T, model calls a level.
    """

    step_size: float = 2e-5
    repeats: int = 100

    name = "langevin"
    order = 1
    limits = (("step_size", (1e-30, math.inf)), ("repeats", (1, math.inf)))

    def stages(self, grid: Grid) -> Iterable[Stage]:
        smallest = min(node.sigma for node in grid.nodes if node.sigma)
        for step, (s, t) in enumerate(grid.steps):
            size = self.step_size * (s.sigma / smallest) ** 2
            x, model = score(s)
            for _ in range(self.repeats):
                yield s.stage(
                    step, x=1 + 0.5 * size * x, model=0.5 * size * model, noise=math.sqrt(size)
                )
            if t.sigma == 0:
                x, model = estimate(s, t.alpha, 0.0)
                yield s.stage(step, x=x, model=model)
