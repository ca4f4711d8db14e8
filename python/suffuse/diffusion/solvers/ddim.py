"""DDIM with noise of strength eta, DDPM and RePaint: one model call a step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from suffuse.diffusion.solvers.base import Grid, Node, estimate
from suffuse.diffusion.solvers.clipping import BoundedSolver, Bounds
from suffuse.diffusion.solvers.exponential import ancestral
from suffuse.diffusion.solvers.plan import Stage


@dataclass(frozen=True)
class DDIM(BoundedSolver):
    """x_t = alpha_t D + sqrt(sigma_t^2 - c^2) eps + c z (Song et al. 2021, "DDIM", eq. 12).

    c = eta sigma_t sqrt(1 - (sigma_t alpha_s / (sigma_s alpha_t))^2) is their eq. 16 for any
    process. eta = 0 is deterministic, eta = 1 the ancestral sampler (DDPM with its small variance;
    on `VE` and `EDM` the "Euler ancestral" sampler).

    Attributes:
        eta: strength of the noise, in [0, 1].
        use_clipped_model_output: True takes eps from the bounded D, False from the model's own.
            Without a bound both are the same.
    """

    eta: float = 0.0
    use_clipped_model_output: bool = False

    name = "ddim"
    order = 1
    limits = (("eta", (0, 1)),)

    def stages(self, grid: Grid) -> Iterable[Stage]:
        for step, (s, t) in enumerate(grid.steps):
            yield self.stage(step, s, t)

    def stage(self, step: int, s: Node, t: Node) -> Stage:
        """The step s -> t."""
        direction, noise = ancestral(s, t, self.eta)
        part = direction * s.noise[1]
        draws = 1 if self.eta else 0  # also in a last step without noise, as diffusers does
        if self.bounds == Bounds():
            x, model = estimate(s, t.alpha, direction)
            return s.stage(step, x=x, model=model, noise=noise, noise_model=part, draws=draws)
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
            noise_model=part,
            draws=draws,
            **self.bounds.options(s),
        )


@dataclass(frozen=True)
class DDPM(BoundedSolver):
    """Ancestral sampling, x_t = posterior mean + noise (Ho et al. 2020, algorithm 2; eq. 7).

    The mean is that of `DDIM(eta=1)` with eps from the bounded D, for any process and step length.

    Attributes:
        variance: of the noise: "small" is that of the posterior (beta tilde), "large" that of the
            forward step (beta), "learned_range" what the model says in between, which then gives
            twice the channels (see `learned_range_std`). The step to clean data has no noise.
    """

    variance: Literal["small", "large", "learned_range"] = "small"

    name = "ddpm"
    order = 1
    limits = (("variance", ("small", "large", "learned_range")),)

    def stages(self, grid: Grid) -> Iterable[Stage]:
        mean = DDIM(1.0, True, clip=self.clip, threshold=self.threshold)
        for step, (s, t) in enumerate(grid.steps):
            stage = mean.stage(step, s, t)
            stage = replace(stage, draws=None)
            forward = s.sigma**2 - (s.alpha / t.alpha * t.sigma) ** 2
            if self.variance == "large" and stage.noise:
                stage = replace(stage, noise=math.sqrt(forward))
            if self.variance == "learned_range":
                # The model has twice the channels in the last step too, where no noise is added.
                std, noise = stage.noise, 1.0 if stage.noise else 0.0
                stage = replace(stage, noise=noise, variances=(std**2, forward))
            yield stage


@dataclass(frozen=True)
class RePaint(BoundedSolver):
    """Inpainting by DDIM steps with jumps back to noise (Lugmayr et al. 2022, algorithm 1).

    After every `jump_length` steps the sample is noised back over them and denoised again,
    `jump_count` passes in all. Pass the known picture to `sample` as `known=`, which puts it into the
    sample after each step, noised with the same numbers. A generator draws in every step.

    Attributes:
        eta: strength of the noise of a DDIM step; 1 is DDPM.
        jump_length, jump_count: the paper's j and r; count 1 has no jumps.
    """

    eta: float = 0.0
    jump_length: int = 10
    jump_count: int = 10

    name = "repaint"
    order = 1
    limits = (("eta", (0, 1)), ("jump_length", (1, math.inf)), ("jump_count", (1, math.inf)))

    def stages(self, grid: Grid) -> Iterable[Stage]:
        count = len(grid.steps)
        down = DDIM(self.eta, clip=self.clip, threshold=self.threshold)
        ends = range(0, count - self.jump_length, self.jump_length)
        jumps = dict.fromkeys(ends, self.jump_count - 1)  # by the number of steps left
        step = 0
        while step < count:
            s, t = grid.steps[step]
            yield replace(down.stage(step, s, t), draws=1, known=(t.alpha, t.sigma))
            step += 1
            if jumps.get(count - step, 0) > 0:
                jumps[count - step] -= 1
                for _ in range(self.jump_length):
                    step -= 1
                    yield self._up(step, grid)

    def _up(self, step: int, grid: Grid) -> Stage:
        """The forward process over one step, from its end t to its start s."""
        s, t = grid.steps[step]
        keep = s.alpha / t.alpha
        noise = math.sqrt(max(s.sigma**2 - (keep * t.sigma) ** 2, 0.0))
        return t.stage(step, x=keep, noise=noise, calls_model=False, draws=1)
