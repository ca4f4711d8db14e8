"""AMED-Solver: a small network places the middle of every step and scales its slope.

Zhou et al. 2024, "Fast ODE-based Sampling for Diffusion Models in Around 5 Steps", section 3. In
y = x / alpha over r = sigma / alpha (x over t on straight processes), two model calls a step:

    m = r_t^p r_s^(1 - p),   y_m = y_s + (m - r_s) slope(y_s),   y_t = y_s + c (r_t - r_s) slope(y_m)

with p in (0, 1) and c near 1 for every sample, learned by distillation; p = 1/2, c = 1 is DPM2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.diffusion.guidance import Guidance, Unguided
from suffuse.diffusion.prediction import Prediction, as_prediction
from suffuse.diffusion.process import Process
from suffuse.diffusion.sample import sample
from suffuse.diffusion.solvers import Heun, Solver
from suffuse.ops import sampler_step

FEATURES = 6
Features = Callable[[Tensor, Tensor], Tensor]


def moments(x: Tensor, output: Tensor) -> Tensor:
    """Mean, deviation and largest size of x and of the model's output, [B, 6]: features of any model."""
    parts = []
    for tensor in (x, output):
        flat = tensor.flatten(1)
        parts += [flat.mean(1), flat.std(1, unbiased=False), flat.abs().amax(1)]
    return torch.stack(parts, dim=1)


class AMEDPredictor(nn.Module):
    """(features [B, n], levels) -> p and c, [B] each: two layers, p = 1/2 and c = 1 before training.

    Args:
        features: their number n.
        width: of the hidden layer.
        slope_range: c stays in 1 -+ this.
    """

    def __init__(self, features: int = FEATURES, width: int = 64, slope_range: float = 0.2) -> None:
        super().__init__()
        self._body = nn.Sequential(nn.Linear(features + 2, width), nn.SiLU())
        self._head = nn.Linear(width, 2)
        self._range = slope_range
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)

    def forward(self, features: Tensor, lam_s: float, lam_t: float) -> tuple[Tensor, Tensor]:
        """lam_s, lam_t: log(alpha / sigma) at the ends of the step."""
        ends = features.new_tensor([lam_s, lam_t]).expand(len(features), 2)
        # Features may be as large as the noise; their logarithm is of order 1.
        small = torch.sign(features) * torch.log1p(features.abs())
        p, c = self._head(self._body(torch.cat([small, ends / 4], dim=1))).unbind(1)
        return torch.sigmoid(p), 1 + self._range * torch.tanh(c)


class AMED:
    """The solver: `step` is differentiable in the predictor's parameters.

    Args:
        guided: a guidance object, or a denoiser that is called as denoiser(x, t).
        process, prediction: as for `Solver.plan`; alpha > 0 on the whole grid, unless straight.
        predictor: such as an `AMEDPredictor`.
        features: features(x, output) -> [B, n]; the paper takes a mean over the network's bottleneck.
    """

    def __init__(
        self,
        guided: Guidance | Callable[..., Tensor],
        process: Process,
        prediction: Prediction | str,
        predictor: Callable[[Tensor, float, float], tuple[Tensor, Tensor]],
        *,
        features: Features = moments,
    ) -> None:
        self.guidance = guided if isinstance(guided, Guidance) else Unguided(guided)
        self.process, self.prediction = process, as_prediction(prediction)
        self.predictor, self.features = predictor, features

    def step(self, x: Tensor, s: float, t: float, state: Any = None) -> tuple[Tensor, Any]:
        """x [B, ...] from time s to time t, and the guidance's state. A clean end is an Euler step."""
        start, end = self._levels(s, x), self._levels(t, x)
        output, weights, state = self._call(x, start, s, state)
        if float(self.process.sigma(t)) == 0:
            data, noise = (self._pair(kind, start) for kind in ("data", "noise"))
            return self._combine(x, output, weights, _plus(data, end[1], noise, end[2])), state
        lam = [float(self.process.lam(time)) for time in (s, t)]
        p, c = self.predictor(self.features(x, output[0]), *lam)
        if self.process.straight:
            r_s, r_t = start[2], end[2]
        else:
            r_s, r_t = start[2] / start[1], end[2] / end[1]
        m = r_t**p * r_s ** (1 - p)
        ratio = m / (1 - m) if self.process.straight else m
        middle = self._levels(self.process.time_of(-torch.log(ratio)), x)
        x_m = self._move(x, x, output, weights, start, start, middle, m - r_s)
        output, weights, state = self._call(x_m, middle, 0.5 * (s + t), state)
        return self._move(x, x_m, output, weights, middle, start, end, c * (r_t - r_s)), state

    def _levels(self, time: float | Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Time, alpha and sigma, each [] or [B]."""
        if not isinstance(time, Tensor):
            time = torch.tensor(time, dtype=torch.float64)
        alpha, sigma = self.process.alpha(time), self.process.sigma(time)
        return time.to(x), alpha.to(x), sigma.to(x)

    def _pair(self, kind: str, level: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Weights of (x, F) in an estimate."""
        return getattr(self.prediction, kind)(level[1], level[2])

    def _call(
        self, x: Tensor, level: tuple[Tensor, Tensor, Tensor], time: float, state: Any
    ) -> tuple[Sequence[Tensor], Tensor, Any]:
        """Outputs, their weights [B, n] and the guidance's state."""
        seen, scale = level[0], None
        if self.prediction.model_time is not None:
            seen = self.prediction.model_time(level[1], level[2])
        if self.prediction.input_scale is not None:
            scale = self.prediction.input_scale(level[1], level[2]).expand(len(x))
        model_input = x if scale is None else x * scale.reshape(-1, *[1] * (x.dim() - 1))
        guided = self.guidance.outputs(model_input, seen.expand(len(x)), time, 0, state)
        weights = guided.weights
        if weights is None:
            weights = x.new_tensor(self.guidance.weights(time)).expand(len(x), -1)
        return guided.outputs, weights.to(x.dtype), guided.state

    def _move(
        self,
        anchor: Tensor,
        x: Tensor,
        outputs: Sequence[Tensor],
        weights: Tensor,
        here: tuple[Tensor, Tensor, Tensor],
        start: tuple[Tensor, Tensor, Tensor],
        end: tuple[Tensor, Tensor, Tensor],
        length: Tensor,
    ) -> Tensor:
        """scale_end (anchor / scale_start + length slope) with the slope at `here`."""
        data, noise = self._pair("data", here), self._pair("noise", here)
        straight = self.process.straight
        slope = _plus(data, -1.0 if straight else 0.0, noise, 1.0)
        scale_end, scale_start = (1.0, 1.0) if straight else (end[1], start[1])
        pair = (scale_end * length * slope[0], scale_end * length * slope[1])
        return self._combine(x, outputs, weights, pair, anchor, scale_end / scale_start)

    def _combine(
        self,
        x: Tensor,
        outputs: Sequence[Tensor],
        weights: Tensor,
        pair: tuple[Tensor, Tensor],
        anchor: Tensor | None = None,
        keep: Tensor | float = 0.0,
    ) -> Tensor:
        """pair[0] x + pair[1] F + keep anchor: one update with a row of coefficients for each sample."""
        zero = x.new_zeros(len(x))
        row = [zero] * 21
        row[0], row[1], row[7] = pair[0] + zero, pair[1] + zero, keep + zero
        row[12] = torch.full_like(zero, torch.inf)
        row[17 : 17 + weights.shape[1]] = weights.unbind(1)
        table = torch.stack(row, dim=1)
        return sampler_step(x, outputs, table, anchor=anchor, converted=False).sample

    def sample(self, x: Tensor, times: Sequence[float] | Tensor) -> Tensor:
        """Carries x [B, ...] along the grid, without gradients. Nothing waits for the device."""
        grid, state = torch.as_tensor(times, dtype=torch.float64).tolist(), None
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        with torch.no_grad():
            for s, t in pairwise(grid):
                x, state = self.step(x, s, t, state)
        return x


def _plus(
    data: tuple[Tensor, Tensor], on_data: Any, noise: tuple[Tensor, Tensor], on_noise: Any
) -> tuple[Tensor, Tensor]:
    """Weights of (x, F) in on_data D + on_noise eps."""
    return on_data * data[0] + on_noise * noise[0], on_data * data[1] + on_noise * noise[1]


def train_amed(
    solver: AMED,
    times: Sequence[float] | Tensor,
    start: Callable[[], Tensor],
    *,
    iterations: int,
    teacher: Solver | None = None,
    teacher_steps: int = 8,
    learning_rate: float = 5e-3,
) -> list[float]:
    """Distils a fine solver into the predictor's parameters (their algorithm 1).

    The student's sample after each step is compared with the teacher's at that time, on the same
    starting noise; gradients stay inside a step.

    Args:
        solver: its predictor is an nn.Module; the denoiser's own parameters are left alone.
        times: the grid to sample on.
        start: gives a batch of starting noise [B, ...].
        iterations: batches.
        teacher: default `Heun`; it makes `teacher_steps` steps, equal in time, for each one.
        learning_rate: of Adam.

    Returns:
        The mean squared distance to the teacher, of each iteration.
    """
    predictor = solver.predictor
    if not isinstance(predictor, nn.Module):
        raise TypeError(f"train_amed: predictor is {type(predictor).__name__}, expected a Module")
    teacher = teacher or Heun()
    grid = torch.as_tensor(times, dtype=torch.float64)
    optimizer, losses = torch.optim.Adam(predictor.parameters(), lr=learning_rate), []
    for _ in range(iterations):
        x = target = start()
        total = 0.0
        for s, t in pairwise(grid):
            ends = torch.lerp(s, t, torch.linspace(0, 1, teacher_steps + 1, dtype=torch.float64))
            plan = teacher.plan(solver.process, solver.prediction, ends)
            target = sample(solver.guidance, target, plan)
            y, _ = solver.step(x, float(s), float(t))
            loss = F.mse_loss(y, target)
            if loss.requires_grad:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            x, total = y.detach(), total + float(loss.detach())
        losses.append(total / (len(grid) - 1))
    return losses
