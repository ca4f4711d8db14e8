"""Multistep predictors with a corrector that costs no model call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from suffuse.compat.diffusers._base import KARRAS
from suffuse.compat.diffusers._lambda import OnLambda
from suffuse.compat.diffusers._update import (
    HISTORY,
    HOLD_AFTER,
    NOTHING,
    A,
    Update,
    Weights,
    X,
    Z,
)
from suffuse.diffusion.solvers.exponential import leg


@dataclass(frozen=True)
class Stride:
    """What a predictor did, for the corrector of the same step: orders and weights of both."""

    corrector_nodes: int
    weights: tuple[float, ...]


class Corrected(OnLambda):
    """A multistep predictor, and a corrector that runs once the next model output is there.

    Both differ in the weights of the estimates alone, so the corrected sample is the predicted one
    (which is the anchor) plus differences of weights times estimates.
    """

    _compatibles: ClassVar[list[str]] = KARRAS
    _rule: Any = "exact"

    @property
    def last_sample(self) -> Tensor | None:
        """What the last step gave, which the next one corrects; can be replaced by one like it."""
        return self._anchor

    @last_sample.setter
    def last_sample(self, value: Tensor | None) -> None:
        self._anchor = value

    def _eta(self, i: int) -> float:
        """Strength of the noise of step i."""
        return 0.0

    def _orders(self, i: int, behind: int) -> tuple[int, int]:
        """Nodes of the predictor of step i, and of its corrector (0: none)."""
        raise NotImplementedError

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        updates, before = [], None
        for i in range(begin, len(self.timesteps)):
            update, before = self._correct_and_predict(i, i - begin, before)
            updates.append(update)
        return updates

    def _correct_and_predict(
        self, i: int, behind: int, before: Stride | None
    ) -> tuple[Update, Stride]:
        estimate, values = self._estimate(i), self._values(i)
        x = X if before is None else self._corrected(i, before, values)
        order, nodes = self._orders(i, behind)
        part = leg(self._node(i), self._node(i + 1), self._form, self._eta(i))
        if part.length == 0:
            weights = [0.0] * order
        else:
            rule = self._rule
            weights = part.weights([self._node(i - k) for k in range(order)], rule)
        scaled = tuple(part.scale * w for w in weights)
        terms = sum((w * v for w, v in zip(scaled, values, strict=False)), NOTHING)
        update = Update(
            part.keep * x + terms + part.noise * Z,
            estimate.data,
            converted=estimate.converted,
            keep=estimate.keep,
            hold=HOLD_AFTER,
            draws=self._draws,
        )
        return update, Stride(nodes, scaled)

    def _values(self, i: int) -> tuple[Weights, ...]:
        """The estimates at steps i, i - 1 ... over the operands."""
        return (self._estimate(i).value, *HISTORY)

    _draws = False

    def _corrected(self, i: int, before: Stride, values: tuple[Weights, ...]) -> Weights:
        """The sample at step i after the corrector of step i - 1; values: of i, i - 1 ..."""
        count = before.corrector_nodes
        if count == 0:
            return X
        part = leg(self._node(i - 1), self._node(i), self._form, self._eta(i - 1))
        nodes = [self._node(i - k) for k in range(count)]
        weights = [part.scale * w for w in part.weights(nodes, self._rule)]
        predicted = (0.0, *before.weights)
        size = max(len(weights), len(predicted))
        padded = [*weights, *[0.0] * (size - len(weights))]
        differences = zip(padded, [*predicted, *[0.0] * size], values, strict=False)
        return A + sum(((c - p) * v for c, p, v in differences), NOTHING)
