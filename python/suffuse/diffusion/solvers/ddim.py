"""DDIM with noise of strength eta, one model call a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from suffuse.diffusion.process import Process
from suffuse.diffusion.solvers.base import Node, Pair, Solver, Stage, estimate
from suffuse.diffusion.solvers.clipping import check_clipping


@dataclass(frozen=True)
class DDIM(Solver):
    """x_t = alpha_t D + sqrt(sigma_t^2 - c^2) eps + c z (Song et al. 2021, "DDIM", eq. 12).

    c = eta sigma_t sqrt(1 - (sigma_t alpha_s / (sigma_s alpha_t))^2) is their eq. 16 for any
    process. eta = 0 is deterministic, eta = 1 the ancestral sampler (DDPM with its small variance;
    on `VE` and `EDM` the "Euler ancestral" sampler).

    Attributes:
        eta: strength of the noise, in [0, 1].
        clip: bound on the data estimate D (1.0 for pictures in [-1, 1]); default none.
        threshold: (quantile, maximum) of dynamic thresholding (Saharia et al. 2022, section 2.3).
        use_clipped_model_output: True takes eps from the bounded D, False from the model's own.
            Without a bound both are the same.
    """

    eta: float = 0.0
    clip: float = math.inf
    threshold: Pair | None = None
    use_clipped_model_output: bool = False

    name = "ddim"
    order = 1

    def __post_init__(self) -> None:
        check_clipping(self.name, self.clip, self.threshold)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"ddim: eta is {self.eta}, expected a number in [0, 1]")

    def stages(self, process: Process, nodes: Sequence[Node]) -> Iterable[Stage]:
        for step, (s, t) in enumerate(pairwise(nodes)):
            noise = self._noise(s, t)
            direction = math.sqrt(t.sigma**2 - noise**2)
            if self.clip == math.inf and self.threshold is None:
                x, model = estimate(s, t.alpha, direction)
                yield s.stage(step, x=x, model=model, noise=noise)
            else:
                yield self._bounded(step, s, t, direction, noise)

    def _noise(self, s: Node, t: Node) -> float:
        if self.eta == 0 or t.sigma == 0:
            return 0.0
        left = (t.sigma * s.alpha) / (s.sigma * t.alpha) if s.sigma * t.alpha != 0 else math.inf
        if left > 1:
            raise ValueError("ddim: times run from data to noise, which needs eta = 0")
        return self.eta * t.sigma * math.sqrt(1 - left**2)

    def _bounded(self, step: int, s: Node, t: Node, direction: float, noise: float) -> Stage:
        data = t.alpha
        if self.use_clipped_model_output and direction != 0:
            x, model = direction / s.sigma, 0.0
            data -= direction * s.alpha / s.sigma
        else:
            x, model = estimate(s, 0.0, direction)
        return s.stage(
            step,
            x=x,
            model=model,
            data=data,
            noise=noise,
            data_from_x=s.data[0],
            data_from_model=s.data[1],
            clip=self.clip,
            threshold=self.threshold,
        )
