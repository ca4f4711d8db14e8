"""Guidance by the gradient of a classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suffuse.diffusion.guidance.base import Guidance, Guided, Unguided
from suffuse.diffusion.prediction import Prediction, as_prediction
from suffuse.diffusion.process import Process

MAX_OUTPUTS = 4
LogProbability = Callable[[Tensor, Tensor], Tensor]


class ClassifierGuided(Guidance):
    """The noise estimate moves by -weight sigma grad log p(y | x_t).

    Dhariwal & Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", algorithm 2; Song et
    al. 2021, eq. 14. The gradient is one model output more with a weight of its own, so that
    clipping and multistep solvers see it as well.

    Args:
        guided: the model: a guidance object of at most 3 outputs, or a denoiser.
        log_probability: called as log_probability(x_t, t), t the model's time [B]; gives [B]. Its
            gradient is taken by autograd, in the dtype of the model's input.
        weight: strength of the guidance.
        process, prediction: of the model.
        interval: (low, high) process times, ends included; outside, the classifier is not called.

    Raises:
        NotImplementedError: guided takes the noise part of a step from another output (CFG++).
        ValueError: interval is no range; in `weights` where the prediction has no noise estimate.
    """

    def __init__(
        self,
        guided: Guidance | Callable[..., Tensor],
        log_probability: LogProbability,
        weight: float,
        *,
        process: Process,
        prediction: Prediction | str,
        interval: tuple[float, float] | None = None,
    ) -> None:
        self._inner = guided if isinstance(guided, Guidance) else Unguided(guided)
        if self._inner.separate_noise:
            raise NotImplementedError(
                "ClassifierGuided: guided has separate_noise (CFG++), expected one output for the "
                "data and noise part of a step"
            )
        if interval is not None and not interval[0] <= interval[1]:
            raise ValueError(f"ClassifierGuided: interval is {interval}, expected (low, high)")
        self._log_probability = log_probability
        self._weight = float(weight)
        self._process = process
        self._prediction = as_prediction(prediction)
        self._interval = interval

    def _inside(self, time: float) -> bool:
        return self._interval is None or self._interval[0] <= time <= self._interval[1]

    def _gradient_weight(self, time: float) -> float:
        """The shift of F that shifts the noise estimate by -weight sigma."""
        alpha, sigma = self._process.alpha(time), self._process.sigma(time)
        on_output = float(self._prediction.noise(alpha, sigma)[1])
        if on_output == 0:
            raise ValueError(
                f"ClassifierGuided: prediction {self._prediction.name!r} has no noise estimate at "
                f"time {time:g}, where alpha or sigma is 0; expected an interval without it"
            )
        return -self._weight * float(sigma) / on_output

    def weights(self, time: float, step: int = 0) -> tuple[float, ...] | None:
        inner = self._inner.weights(time, step)
        if inner is None or not self._inside(time):
            return inner
        return (*inner, self._gradient_weight(time))

    def outputs(
        self, x: Tensor, t: Tensor, time: float, step: int = 0, state: Any = None
    ) -> Guided:
        inner = self._inner.outputs(x, t, time, step, state)
        if not self._inside(time):
            return inner
        if len(inner.outputs) == MAX_OUTPUTS:
            raise ValueError(
                f"ClassifierGuided: guided has {MAX_OUTPUTS} outputs, expected at most "
                f"{MAX_OUTPUTS - 1}, as the gradient is one more"
            )
        gradient = self._gradient(x, t, time).to(inner.outputs[0].dtype)
        weights = inner.weights
        if weights is not None:
            own = weights.new_full((len(weights), 1), self._gradient_weight(time))
            weights = torch.cat([weights, own], dim=1)
        return Guided((*inner.outputs, gradient), weights, state=inner.state)

    def _gradient(self, x: Tensor, t: Tensor, time: float) -> Tensor:
        """The gradient of log p in x_t, of which x is a multiple."""
        scale = self._prediction.input_scale
        if scale is not None:
            factor = scale(self._process.alpha(time), self._process.sigma(time))
            x = x / float(factor)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self._log_probability(x, t)
            if value.shape != x.shape[:1]:
                got, expected = tuple(value.shape), tuple(x.shape[:1])
                raise ValueError(
                    f"ClassifierGuided: log_probability has shape {got}, expected {expected}"
                )
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return gradient
