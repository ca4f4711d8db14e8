"""Guidance from several conditions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from suffuse.diffusion.guidance.base import Denoiser, Guidance, Guided
from suffuse.diffusion.guidance.conditions import Conditions
from suffuse.ops import guidance_gram

MAX_CONDITIONS = 4


def parallel_weights(*weights: float) -> tuple[float, ...]:
    """Weights of (F_1, ..., F_n, F_null) in F_null + sum_i weights_i (F_i - F_null).

    Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models", eq. 11; a
    negative weight moves away from its prompt.
    """
    return (*weights, 1.0 - sum(weights))


def nested_weights(*weights: float) -> tuple[float, ...]:
    """Weights of (F_n, ..., F_1, F_null) in F_null + w_1 (F_1 - F_null) + w_2 (F_2 - F_1) + ...

    Each condition adds to the one before, and `weights` are (w_n, ..., w_1): the richest first.
    InstructPix2Pix (Brooks et al. 2023, eq. 3) has (text, image) weights for the conditions (text
    and image, image, none).
    """
    between = (inner - outer for outer, inner in pairwise(weights))
    return (weights[0], *between, 1.0 - weights[-1])


class Composed(Guidance):
    """F = sum_i weights_i F(condition_i) for 1 to 4 conditions, in one call of the model.

    Two prompts: `parallel_weights` or `nested_weights`, and the null condition last.

    Args:
        denoiser: called as denoiser(x, t, **condition).
        conditions: keyword arguments with the same names. A tensor has the batch first ([B, ...];
            all but the first may be [1, ...]); any other value is passed on as it is.
        weights: one for each condition.
        batched: True runs all in one call, False one by one.

    Raises:
        ValueError: the counts differ or are too large, or as in `ClassifierFree`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditions: Sequence[Mapping[str, Any]],
        weights: Sequence[float],
        *,
        batched: bool = True,
    ) -> None:
        if len(weights) != len(conditions) or not 1 <= len(conditions) <= MAX_CONDITIONS:
            raise ValueError(
                f"Composed: got {len(conditions)} conditions and {len(weights)} weights, expected "
                f"1 to {MAX_CONDITIONS} of each"
            )
        labels = [f"conditions[{i}]" for i in range(len(conditions))]
        self._conditions = Conditions("Composed", denoiser, conditions, labels, batched)
        self._weights = tuple(float(weight) for weight in weights)

    def weights(self, time: float, step: int = 0) -> tuple[float, ...]:
        return self._weights

    def outputs(
        self, x: Tensor, t: Tensor, time: float, step: int = 0, state: Any = None
    ) -> Guided:
        return Guided(self._conditions.every(x, t))


class PerpendicularNegative(Guidance):
    """Guidance with a negative prompt that only acts where it does not contradict the positive one.

    With p = F_cond - F_null and n = F_negative - F_null,
    F = F_null + weight (p - negative_weight (n - (<n, p> / <p, p>) p)) per sample (Armandpour et
    al. 2023, "Perp-Neg", algorithm 1).

    Args:
        denoiser: called as denoiser(x, t, **condition).
        condition, negative_condition, null_condition: as in `ClassifierFree`.
        weight: guidance weight.
        negative_weight: strength of the negative prompt, as a share of `weight`.
        batched: True runs all three in one call, False one by one.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        condition: Mapping[str, Any],
        negative_condition: Mapping[str, Any],
        null_condition: Mapping[str, Any],
        weight: float,
        *,
        negative_weight: float = 1.0,
        batched: bool = True,
    ) -> None:
        labels = ("condition", "negative_condition", "null_condition")
        given = (condition, negative_condition, null_condition)
        self._conditions = Conditions("PerpendicularNegative", denoiser, given, labels, batched)
        self._weight = float(weight)
        self._negative = float(negative_weight)

    def weights(self, time: float, step: int = 0) -> None:
        return None

    def outputs(
        self, x: Tensor, t: Tensor, time: float, step: int = 0, state: Any = None
    ) -> Guided:
        outputs = self._conditions.every(x, t)
        products, _ = guidance_gram(outputs)
        # Products of p and n from those of (F_cond, F_negative, F_null).
        shifted = products[:, :, :2] - products[:, :, 2:]
        shifted = shifted[:, :2] - shifted[:, 2:]
        square = shifted[:, 0, 0]
        safe = torch.where(square > 0, square, torch.ones_like(square))
        along = torch.where(square > 0, shifted[:, 0, 1] / safe, torch.zeros_like(square))
        positive = self._weight * (1 + self._negative * along)
        negative = torch.full_like(positive, -self._weight * self._negative)
        weights = torch.stack((positive, negative, 1 - positive - negative), dim=1)
        return Guided(outputs, weights)
