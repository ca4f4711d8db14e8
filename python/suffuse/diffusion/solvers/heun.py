"""Heun's method, two model calls a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from suffuse.diffusion.process import Process
from suffuse.diffusion.solvers.base import Node, Solver, Stage, estimate


@dataclass(frozen=True)
class Heun(Solver):
    """An Euler step, then the same step again with the mean of the slopes at its two ends.

    Karras et al. 2022, algorithm 1. The variable is x / alpha over sigma / alpha, and x over t for
    straight processes (`Flow`), whose slope is the flow prediction. A step to clean data, or from
    alpha = 0 where x / alpha does not exist, is an Euler step.
    """

    name = "heun"
    order = 2

    def stages(self, process: Process, nodes: Sequence[Node]) -> Iterable[Stage]:
        for step, (s, t) in enumerate(pairwise(nodes)):
            yield from _step(step, s, t, process.straight)


def _step(step: int, s: Node, t: Node, straight: bool) -> Iterable[Stage]:
    scale_s, scale_t = (1.0, 1.0) if straight else (s.alpha, t.alpha)
    x, model = estimate(s, t.alpha, t.sigma)
    if t.sigma == 0 or scale_s == 0 or scale_t == 0:
        yield s.stage(step, x=x, model=model)
        return
    # d(x / scale) = D d(alpha / scale) + eps d(sigma / scale): `slope` is the change over the step.
    d_alpha = t.alpha / scale_t - s.alpha / scale_s
    d_sigma = t.sigma / scale_t - s.sigma / scale_s
    slope_x, slope_model = estimate(s, d_alpha, d_sigma)
    yield s.stage(step, x=x, model=model, kept=(slope_x, slope_model, 0.0), keep=True)
    half = 0.5 * scale_t
    slope_x, slope_model = estimate(t, d_alpha, d_sigma)
    yield t.stage(
        step,
        x=half * slope_x,
        model=half * slope_model,
        history=(half,),
        anchor=scale_t / scale_s,
    )
