"""Solvers that choose their own steps: Dormand-Prince for the flow, DPM-Solver-12 and 23.

Accepting or refusing a step is a decision of the host, so these wait for the device once a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from suffuse.diffusion.guidance import Guidance, Unguided
from suffuse.diffusion.ode import dormand_prince, root_mean_square, weighted_sum
from suffuse.diffusion.prediction import Prediction, as_prediction
from suffuse.diffusion.process import Process
from suffuse.diffusion.solvers.base import Grid, Node
from suffuse.diffusion.solvers.exponential import Leg, Rule, ancestral, leg
from suffuse.diffusion.solvers.runge_kutta import Axis


class Estimates:
    """What a model says at a node, as a weighted sum over its guidance: F, data, noise, slope."""

    def __init__(
        self,
        guided: Guidance | Callable[..., Tensor],
        process: Process,
        prediction: Prediction | str,
    ) -> None:
        self.guidance = guided if isinstance(guided, Guidance) else Unguided(guided)
        self.grid = Grid(process, as_prediction(prediction), ())
        self.axis = Axis(process.straight)
        self.calls = 0
        self._state: Any = None

    def output(self, x: Tensor, node: Node) -> Tensor:
        """F at x [B, ...]."""
        time = torch.full((len(x),), node.model_time, dtype=x.dtype, device=x.device)
        guided = self.guidance.outputs(node.input_scale * x, time, node.time, 0, self._state)
        self._state, self.calls = guided.state, self.calls + 1
        weights = guided.weights
        if weights is None:
            return weighted_sum(self.guidance.weights(node.time) or (), guided.outputs)
        shape = (-1,) + (1,) * (x.dim() - 1)
        columns = [weights[:, j].to(x.dtype).reshape(shape) for j in range(weights.shape[1])]
        return sum((c * o for c, o in zip(columns, guided.outputs, strict=True)), x.new_zeros(()))

    def pair(self, x: Tensor, node: Node, weights: tuple[float, float]) -> Tensor:
        """weights[0] x + weights[1] F."""
        return weights[0] * x + weights[1] * self.output(x, node)

    def clock_node(self, clock: float) -> Node:
        """The node at which the axis' clock shows this."""
        ratio = clock / (1 - clock) if self.axis.straight and clock < 1 else clock
        if self.axis.straight and clock >= 1:
            return self.grid.at(self.grid.process.t_max)
        return self.grid.at_lam(-math.log(ratio))

    def slope(self, y: Tensor, clock: float) -> Tensor:
        """dy/dclock of the probability-flow ODE (see `Axis`)."""
        node = self.clock_node(clock)
        return self.pair(self.axis.scale(node) * y, node, self.axis.slope(node))


def sample_adaptive(
    guided: Guidance | Callable[..., Tensor],
    x: Tensor,
    process: Process,
    prediction: Prediction | str,
    *,
    start: float | None = None,
    end: float,
    denoise: bool = True,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> tuple[Tensor, int]:
    """Carries x from time `start` to `end` along the probability-flow ODE with adaptive steps.

    Args:
        guided, x, process, prediction: as for `sample` and `Solver.plan`.
        start: default `process.t_max`. end: a time before clean data, where the ODE is still regular,
            such as that of sigma / alpha = 1e-3.
        denoise: go on from there to the data estimate, with one more model call.
        rtol, atol: of `dormand_prince`, in x / alpha (x itself for straight processes).

    Returns:
        The sample [B, ...], fp32 or fp64, and the number of model calls.

    Raises:
        ValueError: an end where sigma is 0, or a start where alpha is 0 on a process that is not
            straight. RuntimeError: see `dormand_prince`.
    """
    model = Estimates(guided, process, prediction)
    first = model.grid.at(process.t_max if start is None else start)
    last = model.grid.at(end)
    axis = model.axis
    if last.sigma == 0 or 0 in (axis.scale(first), axis.scale(last)):
        raise ValueError(
            f"sample_adaptive: start, end are {first.time:g}, {last.time:g}, expected alpha and "
            "sigma > 0"
        )
    y = x.to(torch.promote_types(x.dtype, torch.float32)) / axis.scale(first)
    with torch.no_grad():
        y, _ = dormand_prince(
            model.slope, y, axis.clock(first), axis.clock(last), rtol=rtol, atol=atol
        )
        x = axis.scale(last) * y
        return (model.pair(x, last, last.data) if denoise else x), model.calls


@dataclass
class StepControl:
    """The controller of k-diffusion's dpm_adaptive: a PID in the inverse error, softly limited."""

    h: float = 0.05
    proportional: float = 0.0
    integral: float = 1.0
    derivative: float = 0.0
    safety: float = 0.81
    errors: list[float] = field(default_factory=list)

    def accept(self, error: float, order: float) -> bool:
        """Whether the step is kept; sets the length of the next one."""
        inverse = 1 / (error + 1e-8)
        self.errors = [inverse, *(self.errors[1:] or [inverse, inverse])]
        p, i, d = self.proportional, self.integral, self.derivative
        powers = ((p + i + d) / order, -(p + 2 * d) / order, d / order)
        factor = math.prod(e**power for e, power in zip(self.errors, powers, strict=True))
        factor = 1 + math.atan(factor - 1)
        kept = factor >= self.safety
        if kept:
            self.errors = [self.errors[0], self.errors[0], self.errors[1]]
        self.h *= factor
        return kept


def dpm_adaptive(
    guided: Guidance | Callable[..., Tensor],
    x: Tensor,
    process: Process,
    prediction: Prediction | str,
    *,
    start: float,
    end: float,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    control: StepControl | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise: Callable[[float, float], Tensor] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
) -> tuple[Tensor, dict[str, int]]:
    """DPM-Solver-12 or 23: the difference of two orders decides on the step (Lu et al. 2022, sec. 4).

    Args:
        guided, x, process, prediction: as for `sample` and `Solver.plan`.
        start, end: process times with alpha and sigma > 0.
        order: 2 (error from order 1) or 3 (from order 2).
        rtol, atol: relative and absolute tolerance for x / alpha; the larger one counts.
        control: of the step length in lambda.
        eta, s_noise: noise of an ancestral split, and its factor; only from noise to data.
        noise: noise(time, next time) -> a tensor like x, called for every kept step; default
            torch.randn_like.
        callback: called after every step with a dict of x, time, denoised, error, h and the counts.

    Returns:
        The sample at `end`, fp32 or fp64, and counts of steps, nfe, n_accept and n_reject.
    """
    if order not in (2, 3):
        raise ValueError(f"dpm_adaptive: order is {order}, expected 2 or 3")
    model, control = Estimates(guided, process, prediction), control or StepControl()
    s, final = model.grid.at(start), model.grid.at(end)
    sign = 1 if final.lam > s.lam else -1
    if not (math.isfinite(s.lam) and math.isfinite(final.lam)) or (eta and sign < 0):
        raise ValueError(
            f"dpm_adaptive: start, end, eta are {start:g}, {end:g}, {eta}, expected alpha and sigma "
            "> 0, and eta = 0 from data to noise"
        )
    noise = noise or (lambda a, b: torch.randn_like(x))
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    before, control.h = x, sign * abs(control.h)
    info = {"steps": 0, "nfe": 0, "n_accept": 0, "n_reject": 0}
    while sign * (final.lam - s.lam) > 1e-5:
        t = model.grid.at_lam(sign * min(sign * final.lam, sign * (s.lam + control.h)))
        down = max(ancestral(s, t, eta)[0], final.ratio * t.alpha) if eta else t.sigma
        down = min(down, t.sigma)
        up = math.sqrt(t.sigma**2 - down**2)
        low, high, denoised = _pair(model, x, s, replace(t, sigma=down), order)
        size = torch.clamp(rtol * torch.maximum(low.abs() / t.alpha, before.abs()), min=atol)
        error = float(root_mean_square((low - high) / t.alpha / size))
        info["steps"] += 1
        info["nfe"] += order
        if control.accept(error, 1.5 if eta else order):
            before = low / t.alpha
            x = high + up * s_noise * noise(s.time, t.time).to(x)
            s = t
            info["n_accept"] += 1
        else:
            info["n_reject"] += 1
        if callback is not None:
            seen = {"x": x, "time": s.time, "denoised": denoised, "error": error, "h": control.h}
            callback({**seen, **info})
    return x, info


def _pair(
    model: Estimates, x: Tensor, s: Node, t: Node, order: int
) -> tuple[Tensor, Tensor, Tensor]:
    """x_t by the lower and the higher order from shared model calls, and the data estimate at s."""
    h = t.lam - s.lam
    ratios = (0.5,) if order == 2 else (1 / 3, 2 / 3)
    nodes = [s, *(model.grid.at_lam(s.lam + r * h) for r in ratios)]
    output = model.output(x, s)
    eps = [s.noise[0] * x + s.noise[1] * output]
    for k, node in enumerate(nodes[1:], 1):
        part = leg(s, node, "noise")
        weights = part.weights(nodes[:k][::-1])
        eps.append(model.pair(_step(part, x, weights, eps[::-1]), node, node.noise))
    whole = leg(s, t, "noise")
    low_weights = whole.weights([s]) if order == 2 else whole.weights(nodes[1::-1], "midpoint")
    low = _step(whole, x, low_weights, eps[: order - 1][::-1])
    rule: Rule = "midpoint" if order == 2 else "exact"
    high_weights = whole.weights([nodes[-1], s], rule)
    high = _step(whole, x, high_weights, [eps[-1], eps[0]])
    return low, high, s.data[0] * x + s.data[1] * output


def _step(part: Leg, x: Tensor, weights: Sequence[float], estimates: Sequence[Tensor]) -> Tensor:
    return part.keep * x + part.scale * weighted_sum(weights, estimates)
