"""Multistep exponential integrators: one engine, and the methods in use as its settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from suffuse.diffusion.solvers.base import Grid, Node
from suffuse.diffusion.solvers.clipping import Bounds
from suffuse.diffusion.solvers.exponential import Form, Leg, Rule, leg
from suffuse.diffusion.solvers.plan import Stage

Strength = Callable[[Node], float]


@dataclass(frozen=True)
class Multistep:
    """Predictor and corrector with as many stored estimates as their order.

    The corrected sample at a node needs no copy of the one before: predictor and corrector differ in
    the weights of the estimates alone, so x_corrected = x_predicted + sum_j difference_j G_j.

    Attributes:
        name: of the method, for messages.
        form: which estimate is interpolated.
        order: of the predictor.
        corrector: estimates that the corrector uses, the new one among them; 0 for none.
        rule, half_curve: how two and three nodes are weighted; see `Leg.weights`.
        eta: strength of the noise, for the start of a step.
        s_noise: factor on the noise.
        lower_order_final: order 1 in the last step, at most 2 in the one before, and so on.
        uncorrected: steps after which no corrector runs.
        first: index of the first step; earlier ones left their estimates in the history.
        draws: see `Stage`.
    """

    name: str
    form: Form
    order: int
    bounds: Bounds
    corrector: int = 0
    rule: Rule = "exact"
    half_curve: bool = False
    eta: Strength = field(default=lambda node: 0.0)
    s_noise: float = 1.0
    lower_order_final: bool = False
    uncorrected: Sequence[int] = ()
    first: int = 0
    draws: Callable[[int], int | None] = field(default=lambda step: None)

    def stages(self, grid: Grid) -> Iterable[Stage]:
        nodes, last = grid.nodes, len(grid.nodes) - 2
        refuse_clean_start(self.name, grid)
        before: list[float] = []  # x_corrected - x_predicted: weights of this and earlier estimates
        for step in range(self.first, last + 1):
            s, t = nodes[step], nodes[step + 1]
            part = self._leg(s, t)
            order = self._order(step, last)
            weights = [part.scale * w for w in self._weights(part, nodes[step::-1][:order])]
            added = [part.keep * b for b in before]
            history = _sum(added, weights)[1:]
            data, eps = weights[0], sum(added[:1])
            if self.form == "data":
                data, eps = data + eps, 0.0
            elif not self._data_form(s, t):
                data, eps = 0.0, data + eps
            yield self.bounds.stage(
                s,
                step,
                x=part.keep,
                data=data,
                eps=eps,
                form=self.form,
                history=tuple(history),
                noise=part.noise * self.s_noise,
                keep=step < last,
                draws=self.draws(step),
                noise_model=part.keep * s.sigma * s.noise[1] if self.form == "data" else None,
            )
            before = self._correction(part, weights, nodes, step, last)

    def _data_form(self, s: Node, t: Node) -> bool:
        """Steps of infinite length have no noise form."""
        return self.form == "data" or 0 in (s.alpha, t.sigma)

    def _leg(self, s: Node, t: Node) -> Leg:
        return leg(s, t, "data" if self._data_form(s, t) else self.form, self.eta(s))

    def _order(self, step: int, last: int) -> int:
        order = min(self.order, step + 1)
        if self.lower_order_final:
            order = min(order, last - step + 1)
        return order

    def _weights(self, part: Leg, nodes: Sequence[Node]) -> list[float]:
        """Of as many of the nodes, newest first, as a step of this length can use."""
        if not math.isfinite(part.length):
            return part.weights(nodes[:1])
        finite = [node for node in nodes if node.alpha != 0]
        return part.weights(finite, self.rule, self.half_curve)

    def _correction(
        self, part: Leg, weights: list[float], nodes: Sequence[Node], step: int, last: int
    ) -> list[float]:
        """What the corrector adds once the estimate at the end of this step is known."""
        count = min(self.corrector, step + 2)
        if self.lower_order_final:
            count = min(count, last - step + 2)
        none = count == 0 or step in self.uncorrected or step == last
        if none or not math.isfinite(part.length):
            return []
        corrected = self._weights(part, nodes[step + 1 :: -1][:count])
        return _sum([part.scale * c for c in corrected], [0.0, *(-w for w in weights)])


def refuse_clean_start(solver: str, grid: Grid) -> None:
    if grid.nodes[0].sigma == 0:
        raise ValueError(f"{solver}: times starts at clean data, expected sigma > 0")


def _sum(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x + y for x, y in zip_longest(a, b, fillvalue=0.0)]
