"""A solver is data: it turns a process and a time grid into stages of float64 coefficients.

One stage is one model call and one fused update (`suffuse.ops.sampler_step`). The exact solution
that all solvers here discretise is, from noise level s to t with D the data estimate (Lu et al.
2022, "DPM-Solver++", eq. 8),

    x_t = (sigma_t / sigma_s) x_s + sigma_t * integral of e^lambda D(lambda) d lambda.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.diffusion.prediction import Prediction, as_prediction
from suffuse.diffusion.process import Process
from suffuse.diffusion.solvers.plan import Pair, Plan, Stage

Limits = tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True)
class Node:
    """One entry of a time grid with everything that a solver reads, as float64 numbers.

    `data` and `noise` are the weights of (x, F) in the data and noise estimate. They are infinite
    where the prediction has none; a plan that would use such a weight is refused.
    """

    time: float
    alpha: float
    sigma: float
    data: Pair
    noise: Pair
    model_time: float
    input_scale: float

    @property
    def lam(self) -> float:
        """log(alpha / sigma); +inf at clean data, -inf where alpha is 0."""
        if 0 in (self.alpha, self.sigma):
            return math.inf if self.alpha else -math.inf
        return math.log(self.alpha / self.sigma)

    @property
    def ratio(self) -> float:
        """sigma / alpha; inf where alpha is 0."""
        return self.sigma / self.alpha if self.alpha else math.inf

    def stage(self, step: int, **coefficients: Any) -> Stage:
        """A stage whose model call is made here."""
        return Stage(step, self.time, self.model_time, self.input_scale, **coefficients)


@dataclass(frozen=True)
class Grid:
    """The nodes of a time grid, and nodes at further times where a method needs some."""

    process: Process
    prediction: Prediction
    nodes: tuple[Node, ...]

    @property
    def steps(self) -> list[tuple[Node, Node]]:
        """Start and end of every step."""
        return list(pairwise(self.nodes))

    def at(self, time: float) -> Node:
        """The node at a process time."""
        times = torch.tensor([time], dtype=torch.float64)
        return _nodes(self.process, self.prediction, times)[0]

    def at_lam(self, lam: float) -> Node:
        """The node where log(alpha / sigma) has this value."""
        return self.at(float(self.process.time_of(lam)))


def _nodes(process: Process, prediction: Prediction, times: Tensor) -> list[Node]:
    """The nodes of a grid [steps + 1], float64."""
    alpha, sigma = process.alpha(times), process.sigma(times)
    scale, model_time = prediction.input_scale, prediction.model_time
    columns = (
        *(times, alpha, sigma, *prediction.data(alpha, sigma), *prediction.noise(alpha, sigma)),
        times if model_time is None else model_time(alpha, sigma),
        torch.ones_like(times) if scale is None else scale(alpha, sigma),
    )
    return [
        Node(time, a, s, (data_x, data_f), (noise_x, noise_f), seen, factor)
        for time, a, s, data_x, data_f, noise_x, noise_f, seen, factor in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]


def estimate(s: Node, data: float, noise: float) -> Pair:
    """Weights of (x, F) in data * D + noise * eps at s; an estimate of weight 0 takes no part."""
    x, model = 0.0, 0.0
    if data != 0:
        x, model = data * s.data[0], data * s.data[1]
    if noise != 0:
        x, model = x + noise * s.noise[0], model + noise * s.noise[1]
    return x, model


class Solver(ABC):
    """A numerical method: `plan` is a pure function of process, prediction and times.

    Final subclasses are frozen dataclasses whose fields are the method's options.

    Attributes:
        name: short lower-case name.
        limits: of options: (lowest, highest), an infinite highest one excluded, or the allowed words.
    """

    name: ClassVar[str]
    limits: ClassVar[Limits] = ()

    def __post_init__(self) -> None:
        for option, allowed in self.limits:
            _check_option(self.name, option, getattr(self, option), allowed)
        clip, threshold = getattr(self, "clip", math.inf), getattr(self, "threshold", None)
        _check_clipping(self.name, clip, threshold)

    @property
    @abstractmethod
    def order(self) -> int:
        """Order of convergence on the probability-flow ODE, noise left out."""

    @abstractmethod
    def stages(self, grid: Grid) -> Iterable[Stage]:
        """The stages for a grid of at least two nodes."""

    def plan(
        self, process: Process, prediction: Prediction | str, times: Sequence[float] | Tensor
    ) -> Plan:
        """The stages that carry a sample of `process` along `times`.

        prediction: what the model returns (a name of `PREDICTIONS` or a `Prediction`).
        times: at least two process times, from noise to data as the functions of `schedules` give
            them. The reverse order runs the ODE from data to noise (DDIM inversion).

        Raises:
            ValueError: times are too few, not finite levels or not monotone; or the prediction
                gives no estimate where the method needs one (such as "eps" where alpha is 0).
        """
        kind = as_prediction(prediction)
        grid = torch.as_tensor(times, dtype=torch.float64, device="cpu")
        if grid.dim() != 1:
            shape = tuple(grid.shape)
            raise ValueError(f"{self.name}: times has shape {shape}, expected [steps + 1]")
        nodes = _nodes(process, kind, grid)
        _check_grid(self.name, nodes)
        stages = tuple(self.stages(Grid(process, kind, tuple(nodes))))
        for stage in stages:
            _check_finite(self.name, kind, stage)
        return Plan(self.name, tuple(node.time for node in nodes), stages)


def _check_option(solver: str, option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if isinstance(allowed[0], str):
        fits, expected = value in allowed, "one of " + ", ".join(map(repr, allowed))
    else:
        low, high = allowed
        fits, expected = low <= value <= high != value, f"a number in [{low:g}, {high:g}]"
        fits = fits or value == high < math.inf
    if not fits:
        raise ValueError(f"{solver}: {option} is {value!r}, expected {expected}")


def _check_clipping(solver: str, clip: float, threshold: Pair | None) -> None:
    if not clip > 0:
        raise ValueError(f"{solver}: clip is {clip}, expected more than 0")
    if threshold is None:
        return
    if not (0 < threshold[0] <= 1 <= threshold[1]):
        raise ValueError(
            f"{solver}: threshold is {threshold}, expected (quantile in (0, 1], maximum >= 1)"
        )
    if clip != math.inf:
        raise ValueError(f"{solver}: clip is {clip} and threshold is {threshold}, expected one")


def _check_grid(solver: str, nodes: Sequence[Node]) -> None:
    if len(nodes) < 2:
        raise ValueError(f"{solver}: times has {len(nodes)} entries, expected at least 2")
    for node in nodes:
        if not (math.isfinite(node.alpha) and math.isfinite(node.sigma)):
            raise ValueError(f"{solver}: times has {node.time}, where alpha or sigma is not finite")
    # Compares sigma / alpha without dividing, as alpha may be 0.
    signs = {_sign(s.sigma * t.alpha - t.sigma * s.alpha) for s, t in pairwise(nodes)}
    if len(signs) != 1 or signs == {0}:
        times = [round(node.time, 6) for node in nodes]
        raise ValueError(f"{solver}: times is {times}, expected strictly monotone noise levels")


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


def _check_finite(solver: str, prediction: Prediction, stage: Stage) -> None:
    numbers = (
        *(stage.x, stage.model, stage.data, *stage.history, stage.anchor, stage.noise),
        *(stage.data_from_x, stage.data_from_model, *stage.kept),
        *(stage.model_time, stage.input_scale),
    )
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(
            f"{solver}: prediction {prediction.name!r} gives no finite step at time {stage.time:g}, "
            "where alpha or sigma may be 0; expected 'v' or 'flow' there, or another time"
        )
