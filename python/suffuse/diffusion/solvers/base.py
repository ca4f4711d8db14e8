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

from torch import Tensor

from suffuse.diffusion.prediction import Prediction, as_prediction
from suffuse.diffusion.process import Process

Pair = tuple[float, float]


@dataclass(frozen=True)
class Stage:
    """One model call and one update; every number is a float64 coefficient.

    With x the current sample, F the guided model output, D the (clipped) data estimate, H_j the
    kept tensors (newest first), A the sample at the start of the step and z noise:

        D  = clip(data_from_x x + data_from_model F)
        x' = x * x + model * F + data * D + sum_j history_j H_j + anchor * A + noise * z

    and where `keep` is set, H_0 of the next stage is kept_x x + kept_model F + kept_data D, with
    (kept_x, kept_model, kept_data) = `kept`.

    Attributes:
        step: index of the time step that the stage belongs to.
        time: process time of the model call.
        model_time: time given to the model.
        input_scale: factor on x at the model's input.
        clip: bound on |D|; inf for none.
        threshold: (quantile, maximum) of dynamic thresholding instead of the clip, or None.
    """

    step: int
    time: float
    model_time: float
    input_scale: float
    x: float = 0.0
    model: float = 0.0
    data: float = 0.0
    history: tuple[float, ...] = ()
    anchor: float = 0.0
    noise: float = 0.0
    data_from_x: float = 0.0
    data_from_model: float = 0.0
    clip: float = math.inf
    threshold: Pair | None = None
    kept: tuple[float, float, float] = (0.0, 0.0, 1.0)
    keep: bool = False


@dataclass(frozen=True)
class Plan:
    """All stages of one sampling run.

    Attributes:
        solver: its name.
        times: the grid, steps + 1 entries.
        stages: in the order of execution.
    """

    solver: str
    times: tuple[float, ...]
    stages: tuple[Stage, ...]

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def needs_noise(self) -> bool:
        return any(stage.noise != 0 for stage in self.stages)


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

    def stage(self, step: int, **coefficients: Any) -> Stage:
        """A stage whose model call is made here."""
        return Stage(step, self.time, self.model_time, self.input_scale, **coefficients)


def _node(process: Process, prediction: Prediction, time: float) -> Node:
    alpha, sigma = process.alpha(time), process.sigma(time)
    scale, model_time = prediction.input_scale, prediction.model_time
    return Node(
        time=time,
        alpha=alpha.item(),
        sigma=sigma.item(),
        data=_pair(prediction.data(alpha, sigma)),
        noise=_pair(prediction.noise(alpha, sigma)),
        model_time=time if model_time is None else model_time(alpha, sigma).item(),
        input_scale=1.0 if scale is None else scale(alpha, sigma).item(),
    )


def _pair(values: tuple[Tensor, Tensor]) -> Pair:
    return values[0].item(), values[1].item()


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
        order: order of convergence on the probability-flow ODE.
    """

    name: ClassVar[str]
    order: ClassVar[int]

    @abstractmethod
    def stages(self, process: Process, nodes: Sequence[Node]) -> Iterable[Stage]:
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
        numbers = [float(t) for t in times]
        nodes = [_node(process, kind, t) for t in numbers]
        _check_grid(self.name, nodes)
        stages = tuple(self.stages(process, nodes))
        for stage in stages:
            _check_finite(self.name, kind, stage)
        return Plan(self.name, tuple(numbers), stages)


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
