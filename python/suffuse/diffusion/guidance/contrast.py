"""Guidance from a pair of outputs: a strong one, and a weak one to move away from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from suffuse.diffusion.guidance.base import Denoiser, Guidance, Guided
from suffuse.diffusion.guidance.combine import Combine, Extrapolate, rescaled
from suffuse.diffusion.guidance.conditions import Conditions
from suffuse.ops import guidance_gram

Interval = tuple[float, float] | None


class _Pair(Protocol):
    def strong(self, x: Tensor, t: Tensor) -> Tensor: ...

    def weak(self, x: Tensor, t: Tensor) -> Tensor: ...

    def both(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]: ...


class _Contrast:
    """F = weak + weight (strong - weak) and its variants, for any source of the pair."""

    def __init__(
        self,
        owner: str,
        pair: _Pair,
        weight: float | Tensor,
        interval: Interval,
        original: bool,
        combine: Combine | None,
        rescale: float,
        separate_noise: bool,
    ) -> None:
        if interval is not None and not interval[0] <= interval[1]:
            raise ValueError(f"{owner}: interval is {interval}, expected (low, high)")
        if not 0 <= rescale <= 1:
            raise ValueError(f"{owner}: rescale is {rescale}, expected a number in [0, 1]")
        if isinstance(weight, Tensor) and weight.dim() > 1:
            raise ValueError(f"{owner}: weight has shape {tuple(weight.shape)}, expected () or [B]")
        self._pair = pair
        self._weight = weight if isinstance(weight, Tensor) else float(weight)
        self._interval = interval
        self._original = original
        self._combine = Extrapolate() if combine is None and rescale > 0 else combine
        self._rescale = rescale
        self._separate_noise = separate_noise

    def _inside(self, time: float) -> bool:
        return self._interval is None or self._interval[0] <= time <= self._interval[1]

    def _zero(self, step: int) -> bool:
        return self._combine is not None and step < self._combine.zero_steps

    def _alone(self) -> float | None:
        """The weight of the strong output where one output is all that counts: 1 or 0."""
        if isinstance(self._weight, Tensor) or self._combine is not None or self._separate_noise:
            return None
        weight = self._weight + self._original
        return weight if weight in (0.0, 1.0) else None

    def weights(self, time: float, step: int) -> tuple[float, ...] | None:
        if self._zero(step) or not self._inside(time) or self._alone() is not None:
            return (1.0,)
        if self._combine is not None or isinstance(self._weight, Tensor):
            return None
        weight = self._weight + self._original
        return (weight, 1.0 - weight)

    def outputs(self, x: Tensor, t: Tensor, time: float, step: int, state: Any) -> Guided:
        if self._zero(step):
            return self._single(torch.zeros_like(x), state)
        if not self._inside(time) or self._alone() == 1.0:
            return self._single(self._pair.strong(x, t), state)
        if self._alone() == 0.0:
            return self._single(self._pair.weak(x, t), state)
        strong, weak = self._pair.both(x, t)
        noise = weak if self._separate_noise else None
        if self._combine is not None:
            return self._combined(self._combine, strong, weak, noise, state)
        if isinstance(self._weight, Tensor):
            weight = self._weight.to(strong.device).expand(len(x)) + float(self._original)
            return Guided((strong, weak), torch.stack((weight, 1 - weight), 1), noise, state)
        return Guided((strong, weak), None, noise, state)

    def _single(self, output: Tensor, state: Any) -> Guided:
        return Guided((output,), noise=output if self._separate_noise else None, state=state)

    def _combined(
        self, combine: Combine, strong: Tensor, weak: Tensor, noise: Tensor | None, state: Any
    ) -> Guided:
        outputs: tuple[Tensor, ...] = (strong, weak)
        if combine.momentum != 0:
            state = _moved(combine.momentum, strong, weak, state)
            outputs = (strong, weak, state.to(strong.dtype))
        products, means = guidance_gram(outputs)
        weight = self._weight
        if isinstance(weight, Tensor):
            weight = weight.to(products)
        if len(outputs) == 3:
            weights = combine.weights(products, weight, self._original)
        else:
            # The third vector is strong - weak: its products follow, and the two take its weight.
            weights = combine.weights(_with_difference(products), weight, self._original)
            weights = torch.stack((weights[:, 0] + weights[:, 2], weights[:, 1] - weights[:, 2]), 1)
        if self._rescale > 0:
            weights = rescaled(weights, products, means, strong[0].numel(), self._rescale)
        return Guided(outputs, weights, noise, state)


def _moved(momentum: float, strong: Tensor, weak: Tensor, before: Tensor | None) -> Tensor:
    """strong - weak + momentum * before, in fp32 (fp64 for fp64 outputs)."""
    if before is None:
        return strong.to(torch.promote_types(strong.dtype, torch.float32)) - weak
    return torch.add(strong, before, alpha=momentum).sub_(weak)


def _with_difference(products: Tensor) -> Tensor:
    """Products [B, 3, 3] of (c, u, c - u) from those of (c, u)."""
    rows = torch.cat([products, products[:, :1] - products[:, 1:]], dim=1)
    return torch.cat([rows, rows[..., :1] - rows[..., 1:]], dim=2)


class _TwoConditions:
    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    def strong(self, x: Tensor, t: Tensor) -> Tensor:
        return self._conditions.one(0, x, t)

    def weak(self, x: Tensor, t: Tensor) -> Tensor:
        return self._conditions.one(1, x, t)

    def both(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        strong, weak = self._conditions.every(x, t)
        return strong, weak


class _TwoModels:
    def __init__(
        self, denoiser: Denoiser, weaker: Denoiser, strong: dict[str, Any], weak: dict[str, Any]
    ) -> None:
        self._denoiser, self._weaker = denoiser, weaker
        self._strong, self._weak = strong, weak

    def strong(self, x: Tensor, t: Tensor) -> Tensor:
        return self._denoiser(x, t, **self._strong)

    def weak(self, x: Tensor, t: Tensor) -> Tensor:
        return self._weaker(x, t, **self._weak)

    def both(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.strong(x, t), self.weak(x, t)


class ClassifierFree(Guidance):
    """F = F_null + weight (F_cond - F_null) (Ho & Salimans 2022, eq. 6 with weight = 1 + w).

    Weight 1 is the conditional model alone and 0 the unconditional one: both need one output only.
    For negative prompts give the negative condition as the null one.

    Args:
        denoiser: called as denoiser(x, t, **condition).
        condition, null_condition: keyword arguments with the same names. A tensor has the batch
            first ([B, ...]; the null one may be [1, ...]); any other value is passed on as it is.
        weight: guidance weight; more than 1 follows the condition more closely. A tensor [B], on
            the model's device, gives every sample its own.
        interval: (low, high) process times, ends included. Outside, the conditional output is
            used alone (Kynkäänniemi et al. 2024). Default: guided everywhere.
        batched: True runs both in one call of batch 2B, the conditional half first; the outputs are
            views of its result. False makes two calls: less memory, and required if a non-tensor
            value differs between the conditions.
        original: True is the paper's own F_cond + weight (F_cond - F_null).
        combine: another rule for the pair: `Projected` (APG), `ZeroStar`, `Tangential` or
            `MagnitudeAware`.
        rescale: share, in [0, 1], of the result that is scaled to the standard deviation of F_cond
            (Lin et al. 2024, section 3.4).
        null_noise: True is CFG++ (Chung et al. 2024): the data estimate is guided, the noise part
            of a step is taken from F_null. Weights in [0, 1] are then usual.

    Raises:
        ValueError: names differ, shapes do not match, or batched values cannot be joined; interval
            or rescale is out of range.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        condition: Mapping[str, Any],
        null_condition: Mapping[str, Any],
        weight: float | Tensor,
        *,
        interval: Interval = None,
        batched: bool = True,
        original: bool = False,
        combine: Combine | None = None,
        rescale: float = 0.0,
        null_noise: bool = False,
    ) -> None:
        conditions = Conditions(
            "ClassifierFree",
            denoiser,
            (condition, null_condition),
            ("condition", "null_condition"),
            batched,
        )
        self.separate_noise = null_noise
        self._contrast = _Contrast(
            "ClassifierFree",
            _TwoConditions(conditions),
            weight,
            interval,
            original,
            combine,
            rescale,
            null_noise,
        )

    def weights(self, time: float, step: int = 0) -> tuple[float, ...] | None:
        return self._contrast.weights(time, step)

    def outputs(
        self, x: Tensor, t: Tensor, time: float, step: int = 0, state: Any = None
    ) -> Guided:
        return self._contrast.outputs(x, t, time, step, state)


class AutoGuidance(Guidance):
    """F = F_weak + weight (F - F_weak), the weak output from a worse version of the model.

    Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself". Any degraded model
    will do: a smaller or less trained one, or the same with perturbed attention or skipped layers.

    Args:
        denoiser, weaker: called as denoiser(x, t, **condition).
        condition: of both models.
        weak_condition: of the weaker one, if not the same: an empty one guides by model and
            condition together.
        weight, interval, original, combine, rescale: as in `ClassifierFree`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        weaker: Denoiser,
        condition: Mapping[str, Any],
        weight: float | Tensor,
        *,
        weak_condition: Mapping[str, Any] | None = None,
        interval: Interval = None,
        original: bool = False,
        combine: Combine | None = None,
        rescale: float = 0.0,
    ) -> None:
        weak = condition if weak_condition is None else weak_condition
        self._contrast = _Contrast(
            "AutoGuidance",
            _TwoModels(denoiser, weaker, dict(condition), dict(weak)),
            weight,
            interval,
            original,
            combine,
            rescale,
            False,
        )

    def weights(self, time: float, step: int = 0) -> tuple[float, ...] | None:
        return self._contrast.weights(time, step)

    def outputs(
        self, x: Tensor, t: Tensor, time: float, step: int = 0, state: Any = None
    ) -> Guided:
        return self._contrast.outputs(x, t, time, step, state)
