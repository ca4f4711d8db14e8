"""DPM-Solver++ (2M), one model call a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from suffuse.diffusion.process import Process
from suffuse.diffusion.solvers.base import Node, Pair, Solver, Stage
from suffuse.diffusion.solvers.clipping import check_clipping


@dataclass(frozen=True)
class DPMSolverPP2M(Solver):
    """Two-step extrapolation of the data estimate (Lu et al. 2022, "DPM-Solver++", algorithm 2).

        x_t = (sigma_t / sigma_s) x + alpha_t (1 - e^-h) (D + (h / 2 h') (D - D'))

    with h the step in lambda, and h' and D' those of the step before. The first step is of order 1,
    as is a step to clean data (h infinite) and the one after alpha = 0 (h' infinite).

    Attributes:
        lower_order_final: the last step is of order 1 wherever it ends; steadier with few steps.
        clip: bound on the data estimate (1.0 for pictures in [-1, 1]); default none.
        threshold: (quantile, maximum) of dynamic thresholding (Saharia et al. 2022, section 2.3).
    """

    lower_order_final: bool = False
    clip: float = math.inf
    threshold: Pair | None = None

    name = "dpmpp_2m"
    order = 2

    def __post_init__(self) -> None:
        check_clipping(self.name, self.clip, self.threshold)

    def stages(self, process: Process, nodes: Sequence[Node]) -> Iterable[Stage]:
        if nodes[0].sigma == 0:
            raise ValueError("dpmpp_2m: times starts at clean data, expected sigma > 0")
        last = len(nodes) - 2
        for step in range(last + 1):
            s, t = nodes[step], nodes[step + 1]
            weight = t.alpha - t.sigma * (s.alpha / s.sigma)  # alpha_t (1 - e^-h)
            final = step == last and self.lower_order_final
            share = 0.0 if step == 0 or final else _share(nodes[step - 1], s, t)
            yield s.stage(
                step,
                x=t.sigma / s.sigma,
                data=weight * (1 + share),
                history=(-weight * share,) if share != 0 else (),
                data_from_x=s.data[0],
                data_from_model=s.data[1],
                clip=self.clip,
                threshold=self.threshold,
                keep=step < last,
            )


def _share(r: Node, s: Node, t: Node) -> float:
    """h / (2 h') for the steps r -> s -> t, 0 where one of them is infinite."""
    if 0 in (r.alpha, s.alpha, t.alpha, t.sigma):
        return 0.0
    return 0.5 * _length(s, t) / _length(r, s)


def _length(s: Node, t: Node) -> float:
    return math.log(t.alpha / s.alpha) + math.log(s.sigma / t.sigma)
