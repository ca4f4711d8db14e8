"""Euler's method, one model call a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from suffuse.diffusion.process import Process
from suffuse.diffusion.solvers.base import Node, Solver, Stage, estimate


@dataclass(frozen=True)
class Euler(Solver):
    """x_t = alpha_t D + sigma_t eps, with the estimates D and eps taken at the start of the step.

    The exact solution for a constant D, hence the same as Euler's method in x / alpha over
    sigma / alpha (Karras et al. 2022, algorithm 1 without the correction), deterministic DDIM (Song
    et al. 2021, eq. 12), DPM-Solver++ of order 1 and Euler's method on a flow.
    """

    name = "euler"
    order = 1

    def stages(self, process: Process, nodes: Sequence[Node]) -> Iterable[Stage]:
        for step, (s, t) in enumerate(pairwise(nodes)):
            x, model = estimate(s, t.alpha, t.sigma)
            yield s.stage(step, x=x, model=model)
