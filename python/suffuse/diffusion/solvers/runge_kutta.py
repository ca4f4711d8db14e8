"""Runge-Kutta methods in the variable of Karras et al. 2022: Euler, Heun and DPM2."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from suffuse.diffusion.continuous import Flow
from suffuse.diffusion.solvers.base import Grid, Node, Solver, estimate
from suffuse.diffusion.solvers.exponential import ancestral
from suffuse.diffusion.solvers.plan import Pair, Stage


@dataclass(frozen=True)
class Churn:
    """Noise added before a step (Karras et al. 2022, algorithm 2).

    Where sigma / alpha is in [low, high] it grows by the factor 1 + min(amount / steps, sqrt(2) - 1),
    as far as the process goes.
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    s_noise: float = 1.0

    def begin(self, grid: Grid, step: int) -> tuple[Node, list[Stage]]:
        """Where the step starts after the noise, and the stage that adds it."""
        s = grid.nodes[step]
        gamma = min(self.amount / (len(grid.nodes) - 1), math.sqrt(2) - 1)
        if not (gamma > 0 and self.low <= s.ratio <= self.high and s.alpha):
            return s, []
        start = grid.at_lam(s.lam - math.log1p(gamma))
        variance = start.ratio**2 - s.ratio**2
        if variance <= 0:
            return s, []
        keep, noise = start.alpha / s.alpha, self.s_noise * start.alpha * math.sqrt(variance)
        return start, [s.stage(step, x=keep, noise=noise, calls_model=False)]


NO_CHURN = Churn()


@dataclass(frozen=True)
class Axis:
    """The variable y = x / scale over a clock, in which a solver takes slopes.

    y = x / alpha over sigma / alpha with the slope eps; for straight processes (`Flow`) x itself over
    sigma, whose slope is the flow prediction. Both are lines where the data are one point.
    """

    straight: bool

    def scale(self, node: Node) -> float:
        return 1.0 if self.straight else node.alpha

    def clock(self, node: Node) -> float:
        return node.sigma if self.straight else node.ratio

    def slope(self, node: Node) -> Pair:
        """Weights of (x, F) in dy / dclock."""
        return estimate(node, -1.0 if self.straight else 0.0, 1.0)

    def line(self, s: Node, t: Node) -> Pair:
        """Weights of x_s and of the slope in x_t."""
        scale = self.scale(t)
        return scale / self.scale(s), scale * (self.clock(t) - self.clock(s))


def euler_step(s: Node, t: Node, step: int, noise: float = 0.0, draws: int | None = None) -> Stage:
    """alpha_t D + sigma_t eps, which needs no division by alpha."""
    x, model = estimate(s, t.alpha, t.sigma)
    part = t.sigma * s.noise[1]
    return s.stage(step, x=x, model=model, noise=noise, draws=draws, noise_model=part)


def two_calls(
    axis: Axis,
    step: int,
    s: Node,
    middle: Node,
    t: Node,
    share: float,
    noise: float = 0.0,
    draws: int = 0,
    keep_first: bool = False,
) -> Iterable[Stage]:
    """s -> t with the slope (1 - share) at s + share at `middle`, reached by an Euler step.

    keep_first: leaves the slope at s in the history.
    """
    if t.sigma == 0 or 0 in (axis.scale(s), axis.scale(t)):
        yield euler_step(s, t, step, noise)
        return
    slope, first = axis.slope(s), share < 1
    keep, length = axis.line(s, middle)
    x, model = keep + length * slope[0], length * slope[1]
    yield s.stage(step, x=x, model=model, kept=(*slope, 0.0), keep=first)
    keep, length = axis.line(s, t)
    slope = axis.slope(middle)
    yield middle.stage(
        step,
        x=length * share * slope[0],
        model=length * share * slope[1],
        history=(length * (1 - share),) if first else (),
        anchor=keep,
        noise=noise,
        draws=draws,
        forget=int(first and not keep_first),
        holds=True,
    )


@dataclass(frozen=True)
class Euler(Solver):
    """x_t = alpha_t D + sigma_t eps, with the estimates D and eps taken at the start of the step.

    The exact solution for a constant D, hence the same as Euler's method in x / alpha over
    sigma / alpha (Karras et al. 2022, algorithm 1 without the correction), deterministic DDIM (Song
    et al. 2021, eq. 12), DPM-Solver++ of order 1 and Euler's method on a flow. On a grid from data to
    noise it is DDIM inversion.

    Attributes:
        churn: noise added before each step (Karras et al. 2022, algorithm 2); default none.
    """

    churn: Churn = NO_CHURN

    name = "euler"
    order = 1

    def stages(self, grid: Grid) -> Iterable[Stage]:
        for step, (_, t) in enumerate(grid.steps):
            s, noise = self.churn.begin(grid, step)
            yield from (*noise, euler_step(s, t, step))


@dataclass(frozen=True)
class EulerAncestral(Solver):
    """Euler's method to a level below t, then noise up to t ("Euler a").

    With the split of `ancestral` this is `DDIM(eta)`. With `rectified` the level below is
    sigma_t (1 + eta (sigma_t / sigma_s - 1)), the split in use for flows. A generator draws in every
    step.

    Attributes:
        eta: strength of the noise, 0 to 1.
        s_noise: factor on the noise.
        rectified: the split for `Flow`.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    rectified: bool = False

    name = "euler_ancestral"
    order = 1
    limits = (("eta", (0, 1)),)

    def stages(self, grid: Grid) -> Iterable[Stage]:
        if self.rectified and not isinstance(grid.process, Flow):
            kind = type(grid.process).__name__
            raise ValueError(f"{self.name}: process is {kind}, expected Flow with rectified=True")
        for step, (s, t) in enumerate(grid.steps):
            down, up = ancestral(s, t, self.eta)
            if self.rectified and t.sigma:
                level = t.sigma * (1 + self.eta * (t.sigma / s.sigma - 1))
                down = level * t.alpha / (1 - level)
                up = math.sqrt(max(t.sigma**2 - down**2, 0.0))
            yield euler_step(s, replace(t, sigma=down), step, up * self.s_noise, draws=1)


@dataclass(frozen=True)
class Heun(Solver):
    """An Euler step, then the same step again with the mean of the slopes at its two ends.

    Karras et al. 2022, algorithm 1. The variable is x / alpha over sigma / alpha, and x over t for
    straight processes (`Flow`), whose slope is the flow prediction. A step to clean data, or from
    alpha = 0 where x / alpha does not exist, is an Euler step.

    Attributes:
        churn: noise added before each step, which makes it their algorithm 2; default none.
    """

    churn: Churn = NO_CHURN

    name = "heun"
    order = 2

    def stages(self, grid: Grid) -> Iterable[Stage]:
        axis = Axis(grid.process.straight)
        for step, (_, t) in enumerate(grid.steps):
            s, noise = self.churn.begin(grid, step)
            yield from noise
            yield from two_calls(axis, step, s, t, t, 0.5)


@dataclass(frozen=True)
class DPM2(Solver):
    """Midpoint rule with the middle at the geometric mean of sigma / alpha ("DPM2").

    Karras et al. 2022, section D.2, with DPM-Solver-2's middle (Lu et al. 2022).

    Attributes:
        eta: the step ends at a lower level and noise leads up from there ("DPM2 a"); 0 to 1.
        s_noise: factor on that noise.
        churn: as in `Heun`; not with eta.
    """

    eta: float = 0.0
    s_noise: float = 1.0
    churn: Churn = NO_CHURN

    name = "dpm_2"
    order = 2
    limits = (("eta", (0, 1)),)

    def stages(self, grid: Grid) -> Iterable[Stage]:
        if self.eta and self.churn.amount:
            raise ValueError(
                f"dpm_2: eta is {self.eta} and churn {self.churn}, expected one of them"
            )
        # A level below t does not lie on a straight process.
        axis = Axis(grid.process.straight and not self.eta)
        for step, (_, t) in enumerate(grid.steps):
            s, churned = self.churn.begin(grid, step)
            yield from churned
            down, up = ancestral(s, t, self.eta)
            t, noise = replace(t, sigma=down), up * self.s_noise
            if 0 in (s.alpha, t.sigma):
                yield euler_step(s, t, step, noise)
                continue
            middle = grid.at_lam(0.5 * (s.lam + t.lam))
            yield from two_calls(axis, step, s, middle, t, 1.0, noise, int(self.eta > 0))
