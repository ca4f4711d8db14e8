"""Linear multistep methods on slopes: LMS, PLMS / PNDM and iPNDM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from suffuse.diffusion.solvers.base import Grid, Node, Solver
from suffuse.diffusion.solvers.exponential import adams_weights
from suffuse.diffusion.solvers.plan import Stage
from suffuse.diffusion.solvers.runge_kutta import Axis, euler_step, two_calls

# Adams-Bashforth for equal steps, newest first (Hairer, Norsett, Wanner, "Solving ODEs I", III.1).
ADAMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def multistep_stage(
    axis: Axis, step: int, s: Node, t: Node, weights: Sequence[float], last: bool
) -> Stage:
    """y_t = y_s + sum_j weights[j] (slope j steps ago); an Euler step where y does not exist."""
    slope = axis.slope(s)
    if 0 in (axis.scale(s), axis.scale(t)):
        return replace(euler_step(s, t, step), kept=(*slope, 0.0), keep=not last)
    scale = axis.scale(t)
    return s.stage(
        step,
        x=scale / axis.scale(s) + scale * weights[0] * slope[0],
        model=scale * weights[0] * slope[1],
        history=tuple(scale * w for w in weights[1:]),
        kept=(*slope, 0.0),
        keep=not last,
    )


@dataclass(frozen=True)
class LMS(Solver):
    """Adams-Bashforth for unequal steps: the polynomial through the last slopes, integrated exactly.

    (k-diffusion's LMS; Hairer, Norsett & Wanner, "Solving ODEs I", III.5.)

    Attributes:
        steps_used: 1 to 4 slopes. The start is by lower orders, as in use.
    """

    steps_used: int = 4

    name = "lms"
    limits = (("steps_used", (1, 4)),)

    @property
    def order(self) -> int:
        return min(self.steps_used, 2)  # the start of order 1 caps it

    def stages(self, grid: Grid) -> Iterable[Stage]:
        axis, last = Axis(grid.process.straight), len(grid.nodes) - 2
        for step, (s, t) in enumerate(grid.steps):
            known = grid.nodes[step::-1][: self.steps_used]
            places = [axis.clock(node) for node in known if axis.scale(node)]
            weights = adams_weights(places, axis.clock(t)) if places else [1.0]
            yield multistep_stage(axis, step, s, t, weights, step == last)


@dataclass(frozen=True)
class IPNDM(Solver):
    """Adams-Bashforth with the weights for equal steps (Zhang & Chen 2023, "iPNDM").

    Attributes:
        steps_used: 1 to 4 slopes. The start is by lower orders.
    """

    steps_used: int = 4

    name = "ipndm"
    limits = (("steps_used", (1, 4)),)

    @property
    def order(self) -> int:
        return min(self.steps_used, 2)  # on unequal steps, and for its start

    def stages(self, grid: Grid) -> Iterable[Stage]:
        axis = Axis(grid.process.straight)
        return _equal_steps(axis, grid, 0, self.steps_used)


@dataclass(frozen=True)
class PNDM(Solver):
    """Pseudo linear multistep method (Liu et al. 2022, "Pseudo Numerical Methods", algorithm 2).

    Attributes:
        runge_kutta: True starts with three pseudo Runge-Kutta steps of four model calls each, the
            middle ones half-way in time ("PRK"). False starts with one Heun step and lower orders
            ("PLMS", as in latent diffusion).
    """

    runge_kutta: bool = False

    name = "pndm"
    order = 2

    def stages(self, grid: Grid) -> Iterable[Stage]:
        axis = Axis(grid.process.straight)
        first = min(3 if self.runge_kutta else 1, len(grid.nodes) - 1)
        for step, (s, t) in enumerate(grid.steps[:first]):
            if 0 in (axis.scale(s), axis.scale(t), t.sigma):
                yield multistep_stage(axis, step, s, t, [axis.clock(t) - axis.clock(s)], False)
            elif self.runge_kutta:
                yield from _runge_kutta(axis, step, s, grid.at(0.5 * (s.time + t.time)), t)
            else:
                yield from two_calls(axis, step, s, t, t, 0.5, keep_first=True)
        yield from _equal_steps(axis, grid, first, 4)


def _equal_steps(axis: Axis, grid: Grid, first: int, most: int) -> Iterable[Stage]:
    last = len(grid.nodes) - 2
    for step, (s, t) in enumerate(grid.steps[first:], first):
        usable = sum(axis.scale(node) != 0 for node in grid.nodes[: step + 1])
        length = axis.clock(t) - axis.clock(s)
        weights = [length * b for b in ADAMS[max(1, min(most, usable)) - 1]]
        yield multistep_stage(axis, step, s, t, weights, step == last)


def _runge_kutta(axis: Axis, step: int, s: Node, middle: Node, t: Node) -> Iterable[Stage]:
    """Four calls with the classical weights, each sample on the line from the one at s."""
    nodes = (s, middle, middle, t)
    ends = (middle, middle, t, t)
    shares = ((1.0,), (1.0,), (1.0,), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
    for k, (node, end, share) in enumerate(zip(nodes, ends, shares, strict=True)):
        keep, length = axis.line(s, end)
        x, model = axis.slope(node)
        yield node.stage(
            step,
            x=(keep if k == 0 else 0.0) + length * share[0] * x,
            model=length * share[0] * model,
            history=tuple(length * w for w in share[1:]),
            anchor=0.0 if k == 0 else keep,
            kept=(x, model, 0.0),
            keep=k < 3,
            forget=2 if k == 3 else 0,
            holds=k > 0,
        )
