"""Singlestep exponential solvers: several model calls a step and no memory beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from suffuse.diffusion.solvers.base import Grid, Node
from suffuse.diffusion.solvers.clipping import BoundedSolver, Bounds
from suffuse.diffusion.solvers.exponential import Form, Leg, Rule, ancestral, ancestral_leg, leg
from suffuse.diffusion.solvers.plan import Stage

Last = Rule | Literal["curve"]
Split = Literal["sde", "ancestral", "ancestral_legs"]


@dataclass(frozen=True)
class Singlestep:
    """One step s -> t through middle nodes, each leg starting from the sample at s.

    Leg k ends at the next middle node (the last one at t) and uses the estimate at s and the newest
    one; with `last="curve"` the third leg uses all three.

    Attributes:
        inner, last: `Rule` of the second leg of three, and of the final one.
        eta: strength of the noise.
        split: "sde": noise of the exponential form on every leg. "ancestral": the step ends below t
            and one noise leads up to it; "ancestral_legs": the same for every leg.
        floor: sigma / alpha below which the level of an "ancestral" split does not go.
        s_noise: factor on the noise.
        correlated: for "sde" with two legs: the noise of both is of one Brownian motion; False
            takes independent numbers.
        keep_first: leaves the estimate at s in the history, for a multistep method to go on with.
    """

    form: Form
    bounds: Bounds
    inner: Rule = "exact"
    last: Last = "exact"
    eta: float = 0.0
    split: Split = "sde"
    floor: float = 0.0
    s_noise: float = 1.0
    correlated: bool = False
    keep_first: bool = False

    def inside(
        self, grid: Grid, step: int, order: int, ratios: Sequence[float] = ()
    ) -> Iterable[Stage]:
        """A step of the grid with order - 1 middle nodes at `ratios` of its length in lambda.

        A step to clean data or from alpha = 0 has no middle: it is of order 1.
        """
        s, t = grid.nodes[step : step + 2]
        end = self._end(s, t)
        h = end.lam - s.lam
        if order == 1 or not math.isfinite(h):
            return self.through((s,), t, step, step)
        ratios = ratios or ((0.5,), (1 / 3, 2 / 3))[order - 2]
        middle = [grid.at_lam(s.lam + r * h) for r in ratios]
        return self.through((s, *middle), t, step, step)

    def through(self, nodes: Sequence[Node], t: Node, step: int, last_step: int) -> Iterable[Stage]:
        """The stages at `nodes` on the way to t; they belong to steps `step` ... `last_step`."""
        s, ends = nodes[0], (*nodes[1:], t)
        shared = (0.0, 0.0, 0.0, 1.0)
        for k, (node, end) in enumerate(zip(nodes, ends, strict=True)):
            final = end is t
            part = self._leg(s, end, final)
            new, *old = (part.scale * w for w in self._weights(part, nodes[: k + 1], final))
            if k == 1 and self.correlated and part.noise:
                shared = self._shared(nodes, t)
            data_form = self.form == "data" or 0 in (s.alpha, end.sigma)
            yield self.bounds.stage(
                node,
                min(step + k, last_step),
                x=part.keep if k == 0 else shared[0],
                data=new if data_form else 0.0,
                eps=0.0 if data_form else new,
                form=self.form,
                keep=not final or (self.keep_first and k == 0),
                history=tuple(w + shared[2] for w in old),
                anchor=0.0 if k == 0 else part.keep + shared[1],
                noise=part.noise * self.s_noise * shared[3],
                forget=k - self.keep_first if final and k else 0,
                holds=k > 0,
                draws=1 if self.eta and (final or self.split != "ancestral") else 0,
                noise_model=part.keep * s.sigma * s.noise[1] if final and k == 0 else None,
            )

    def _end(self, s: Node, t: Node) -> Node:
        """Where the deterministic part of the whole step ends."""
        if self.split != "ancestral":
            return t
        down = ancestral(s, t, self.eta)[0]
        return replace(t, sigma=min(max(down, self.floor * t.alpha), t.sigma))

    def _leg(self, s: Node, t: Node, final: bool) -> Leg:
        if self.split == "ancestral_legs" and self.eta:
            return ancestral_leg(s, t, self.eta)
        form: Form = "data" if 0 in (s.alpha, t.sigma) else self.form
        if self.split == "sde":
            return leg(s, t, form, self.eta)
        end = self._end(s, t) if final else t
        return replace(leg(s, end, form), noise=math.sqrt(t.sigma**2 - end.sigma**2))

    def _weights(self, part: Leg, nodes: Sequence[Node], final: bool) -> list[float]:
        """Of the estimates at `nodes`, newest first."""
        if len(nodes) == 1:
            return part.weights(nodes)
        if len(nodes) == 2:
            rule = self.last if final else self.inner
            return part.weights(nodes[::-1], "exact" if rule == "curve" else rule)
        if self.last == "curve":
            return part.weights(nodes[::-1])
        new, first = part.weights((nodes[-1], nodes[0]))
        return [new, 0.0, first]

    def _shared(self, nodes: Sequence[Node], t: Node) -> tuple[float, float, float, float]:
        """Weights of x, A and H_0, and the factor of the new noise, for noise of one path.

        The first three carry the middle sample's noise, x - keep A - scale w H_0, on to t.
        """
        s, middle = nodes
        before, after = self._leg(s, middle, False), self._leg(middle, t, True)
        kept, rest = after.keep, after.noise / self._leg(s, t, True).noise
        return kept, -kept * before.keep, -kept * before.scale * before.weights([s])[0], rest


@dataclass(frozen=True)
class DPMSolverSinglestep(BoundedSolver):
    """DPM-Solver(++)-1, 2 or 3 in every step (Lu et al. 2022, "DPM-Solver", algorithms 1 and 2).

    As many model calls a step as the order, at middle points a half (order 2) or a third and two
    thirds (order 3) along lambda. A step to clean data is of order 1.

    Attributes:
        stages_used: the order, 1, 2 or 3.
        orders: the order of every step instead ("DPM-Solver-fast" mixes them).
        form: "data" is DPM-Solver++ (2S), "noise" is DPM-Solver.
        eta: the step ends at a lower level and noise leads up from there ("2S ancestral").
        above_end: that level is never below the end of the grid ("DPM-Solver-fast").
        s_noise: factor on the noise.
    """

    stages_used: int = 2
    orders: tuple[int, ...] | None = None
    form: Form = "data"
    eta: float = 0.0
    above_end: bool = False
    s_noise: float = 1.0

    name = "dpm_singlestep"
    limits = (("stages_used", (1, 3)), ("form", ("data", "noise")), ("eta", (0, 1)))

    @property
    def order(self) -> int:
        return min(self.orders or (self.stages_used,))

    def stages(self, grid: Grid) -> Iterable[Stage]:
        count = len(grid.nodes) - 1
        orders = self.orders or (self.stages_used,) * count
        if len(orders) != count or not set(orders) <= {1, 2, 3}:
            raise ValueError(f"{self.name}: orders is {orders}, expected {count} of 1, 2 or 3")
        floor = grid.nodes[-1].ratio if self.above_end else 0.0
        method = Singlestep(
            self.form,
            self.bounds,
            eta=self.eta,
            split="ancestral",
            floor=floor,
            s_noise=self.s_noise,
        )
        for step, order in enumerate(orders):
            last: Last = "midpoint" if order == 2 else "exact"
            yield from replace(method, last=last).inside(grid, step, order)


@dataclass(frozen=True)
class DPMSolverGrouped(BoundedSolver):
    """Singlestep steps over two or three steps of the grid, whose nodes are the middle points.

    One model call a step of the grid; what diffusers' DPMSolverSinglestepScheduler does.

    Attributes:
        group: 1, 2 or 3 grid steps, which is the order; what remains at the end is a smaller group.
        form: "data" is DPM-Solver++, "noise" is DPM-Solver.
        variant: "midpoint" or "heun" weights, see `Singlestep`.
        eta: 0 for the ODE, 1 for the SDE, with independent noise in every step.
        lower_order_final: the last group ends one step early, so that the last step is of order 1.
    """

    group: int = 2
    form: Form = "data"
    variant: Literal["midpoint", "heun"] = "midpoint"
    eta: float = 0.0
    lower_order_final: bool = False

    name = "dpm_grouped"
    limits = (
        ("group", (1, 3)),
        ("form", ("data", "noise")),
        ("variant", ("midpoint", "heun")),
        ("eta", (0, math.inf)),
    )

    @property
    def order(self) -> int:
        return self.group

    def stages(self, grid: Grid) -> Iterable[Stage]:
        nodes, last = grid.nodes, len(grid.nodes) - 1
        inner: Rule = "midpoint" if self.variant == "midpoint" else "exact"
        rules: tuple[Last, ...] = ("exact", inner, "exact" if inner == "midpoint" else "curve")
        method = Singlestep(self.form, self.bounds, inner=inner, eta=self.eta)
        start = 0
        while start < last:
            size = min(self.group, last - start) if nodes[start].alpha else 1
            whole = self.lower_order_final and size == self.group
            if start + size == last and size > 1 and (whole or nodes[-1].sigma == 0):
                size -= 1
            end = start + size
            group = replace(method, last=rules[size - 1])
            yield from group.through(nodes[start:end], nodes[end], start, end - 1)
            start = end


@dataclass(frozen=True)
class DPMSolverSDE(BoundedSolver):
    """Two-stage DPM-Solver++ for the SDE ("DPM++ SDE"), two model calls a step.

    Attributes:
        eta: strength of the noise, 1 for the reverse SDE.
        ratio: where the middle node lies along lambda, between 0 and 1.
        s_noise: factor on the noise.
        split: form of the noise where eta is not 1; see `Singlestep`.
        correlated: False if the two noises of a step are independent or already of one path.
    """

    eta: float = 1.0
    ratio: float = 0.5
    s_noise: float = 1.0
    split: Split = "sde"
    correlated: bool = True

    name = "dpmpp_sde"
    order = 1
    limits = (("eta", (0, math.inf)), ("ratio", (0.001, 0.999)))

    def stages(self, grid: Grid) -> Iterable[Stage]:
        if self.correlated and self.split != "sde":
            raise ValueError(f"{self.name}: split is {self.split!r}, expected 'sde' if correlated")
        method = Singlestep(
            "data",
            self.bounds,
            last="midpoint",
            eta=self.eta,
            split=self.split,
            s_noise=self.s_noise,
            correlated=self.correlated,
        )
        for step in range(len(grid.nodes) - 1):
            yield from method.inside(grid, step, 2, (self.ratio,))
