"""Guidance: which model outputs one sampler stage combines, and with which weights.

A guidance object never forms the weighted sum itself: the sampler hands outputs and weights to the
fused step, which combines them in the same pass over memory. Outputs and weights for a time must
agree in number (at most 4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Denoiser = Callable[..., Tensor]


class Guidance(ABC):
    """Gives the model outputs F_i and weights g_i of the prediction F = sum_i g_i F_i."""

    @abstractmethod
    def weights(self, time: float) -> tuple[float, ...]:
        """The weights at this process time."""

    @abstractmethod
    def outputs(self, x: Tensor, t: Tensor, time: float) -> tuple[Tensor, ...]:
        """The model outputs, each like x.

        x: model input [B, ...]; t: the model's time [B]; time: the process time as a number, for
        choices that must not wait for the device.
        """


class Unguided(Guidance):
    """The denoiser as it is, called as denoiser(x, t, **condition)."""

    def __init__(self, denoiser: Denoiser, **condition: Any) -> None:
        self._denoiser = denoiser
        self._condition = condition

    def weights(self, time: float) -> tuple[float, ...]:
        return (1.0,)

    def outputs(self, x: Tensor, t: Tensor, time: float) -> tuple[Tensor, ...]:
        return (self._denoiser(x, t, **self._condition),)


class ClassifierFree(Guidance):
    """F = F_null + weight (F_cond - F_null) (Ho & Salimans 2022, eq. 6 with weight = 1 + w).

    Weight 1 is the conditional model alone and 0 the unconditional one: both need one output only.

    Args:
        denoiser: called as denoiser(x, t, **condition).
        condition, null_condition: keyword arguments with the same names. A tensor has the batch
            first ([B, ...]; the null one may be [1, ...]); any other value is passed on as it is.
        weight: guidance weight; more than 1 follows the condition more closely.
        interval: (low, high) process times, ends included. Outside, the conditional output is
            used alone (Kynkäänniemi et al. 2024). Default: guided everywhere.
        batched: True runs both in one call of batch 2B, the conditional half first; the outputs are
            views of its result. False makes two calls: less memory, and required if a non-tensor
            value differs between the conditions.

    Raises:
        ValueError: names differ, shapes do not match, or batched values cannot be joined.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        condition: Mapping[str, Any],
        null_condition: Mapping[str, Any],
        weight: float,
        *,
        interval: tuple[float, float] | None = None,
        batched: bool = True,
    ) -> None:
        if condition.keys() != null_condition.keys():
            got, expected = sorted(null_condition), sorted(condition)
            raise ValueError(f"ClassifierFree: null_condition has names {got}, expected {expected}")
        if interval is not None and not interval[0] <= interval[1]:
            raise ValueError(f"ClassifierFree: interval is {interval}, expected (low, high)")
        self._denoiser = denoiser
        self._condition = dict(condition)
        self._null = {k: _like(k, v, condition[k]) for k, v in null_condition.items()}
        self._weight = float(weight)
        self._interval = interval
        both = batched and self._weight not in (0.0, 1.0)
        self._joined = self._join() if both else None

    def _join(self) -> dict[str, Any]:
        return {k: _joined(k, v, self._null[k]) for k, v in self._condition.items()}

    def weights(self, time: float) -> tuple[float, ...]:
        if self._weight in (0.0, 1.0) or not self._inside(time):
            return (1.0,)
        return (self._weight, 1.0 - self._weight)

    def outputs(self, x: Tensor, t: Tensor, time: float) -> tuple[Tensor, ...]:
        if self._weight == 1.0 or not self._inside(time):
            return (self._denoiser(x, t, **self._condition),)
        if self._weight == 0.0:
            return (self._denoiser(x, t, **self._null),)
        if self._joined is None:
            return (
                self._denoiser(x, t, **self._condition),
                self._denoiser(x, t, **self._null),
            )
        for name, value in self._condition.items():
            if isinstance(value, Tensor) and len(value) != len(x):
                raise ValueError(
                    f"ClassifierFree: condition {name} has batch {len(value)}, "
                    f"expected {len(x)} like x"
                )
        output = self._denoiser(torch.cat([x, x]), torch.cat([t, t]), **self._joined)
        return output.tensor_split(2)

    def _inside(self, time: float) -> bool:
        return self._interval is None or self._interval[0] <= time <= self._interval[1]


def _like(name: str, null: Any, value: Any) -> Any:
    """The null value, a tensor expanded to the shape of the condition's."""
    if isinstance(null, Tensor) != isinstance(value, Tensor):
        raise ValueError(f"ClassifierFree: {name} is a tensor in one condition only")
    if not isinstance(null, Tensor):
        return null
    if null.shape == value.shape:
        return null
    if null.shape[1:] != value.shape[1:] or len(null) != 1:
        got, expected = tuple(null.shape), tuple(value.shape)
        raise ValueError(
            f"ClassifierFree: null_condition {name} has shape {got}, expected {expected}"
        )
    return null.expand_as(value)


def _joined(name: str, value: Any, null: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.cat([value, null])
    if value != null:
        raise ValueError(
            f"ClassifierFree: {name} differs between the conditions ({value!r}, {null!r}) and is "
            "no tensor; use batched=False"
        )
    return value
