"""The interface between guidance and the sampling loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

Denoiser = Callable[..., Tensor]


class Guided(NamedTuple):
    """What one call of a guidance object gives: F = sum_i weights_i outputs_i.

    Attributes:
        outputs: 1 to 4 tensors like x.
        weights: [B, n] on x's device, for n outputs, where they were computed from them; None: the
            numbers of `Guidance.weights` hold.
        noise: the output that the noise part of the step takes instead of F (only where
            `Guidance.separate_noise`), like x.
        state: for the next call of the same run; None at its first call.
    """

    outputs: tuple[Tensor, ...]
    weights: Tensor | None = None
    noise: Tensor | None = None
    state: Any = None


class Guidance(ABC):
    """Gives the model outputs F_i and weights g_i of the prediction F = sum_i g_i F_i.

    A guidance object never forms the weighted sum itself: the sampler hands outputs and weights to
    the fused step, which combines them in the same pass over memory. Guidance objects keep nothing
    between calls; what a method must remember goes through `Guided.state`.

    Attributes:
        separate_noise: True where `Guided.noise` is given in every call.
    """

    separate_noise: bool = False

    @abstractmethod
    def weights(self, time: float, step: int = 0) -> tuple[float, ...] | None:
        """The weights at this process time and step, or None where the outputs decide."""

    @abstractmethod
    def outputs(
        self, x: Tensor, t: Tensor, time: float, step: int = 0, state: Any = None
    ) -> Guided:
        """Calls the model.

        x: model input [B, ...]; t: the model's time [B]; time, step: the process time and the index
        of the time step as numbers, for choices that must not wait for the device; state: that of
        the call before, None in the first call of a run.
        """


class Unguided(Guidance):
    """The denoiser as it is, called as denoiser(x, t, **condition)."""

    def __init__(self, denoiser: Denoiser, **condition: Any) -> None:
        self._denoiser = denoiser
        self._condition = condition

    def weights(self, time: float, step: int = 0) -> tuple[float, ...]:
        return (1.0,)

    def outputs(
        self, x: Tensor, t: Tensor, time: float, step: int = 0, state: Any = None
    ) -> Guided:
        return Guided((self._denoiser(x, t, **self._condition),))
