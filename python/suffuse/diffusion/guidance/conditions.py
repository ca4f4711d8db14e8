"""Calling one denoiser under several conditions, in one batch or one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from suffuse.diffusion.guidance.base import Denoiser


class Conditions:
    """Named keyword arguments of a denoiser, checked once and joined along the batch.

    Args:
        owner: named in errors.
        denoiser: called as denoiser(x, t, **condition).
        conditions: keyword arguments with the same names. A tensor has the batch first: [B, ...],
            all but the first may be [1, ...]; any other value is passed on as it is.
        labels: what the conditions are called in errors.
        batched: True joins all of them; False makes one call each.

    Raises:
        ValueError: names differ, shapes do not match, or batched values cannot be joined.
    """

    def __init__(
        self,
        owner: str,
        denoiser: Denoiser,
        conditions: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
        batched: bool,
    ) -> None:
        self._owner = owner
        self._denoiser = denoiser
        first = conditions[0]
        for label, other in zip(labels[1:], conditions[1:], strict=True):
            if other.keys() != first.keys():
                got, expected = sorted(other), sorted(first)
                raise ValueError(f"{owner}: {label} has names {got}, expected {expected}")
        self._all = [
            {name: self._like(label, name, value, first[name]) for name, value in given.items()}
            for label, given in zip(labels, conditions, strict=True)
        ]
        self._joined = {name: self._join(name) for name in first} if batched else None

    def one(self, i: int, x: Tensor, t: Tensor) -> Tensor:
        """The output under condition i."""
        return self._denoiser(x, t, **self._all[i])

    def every(self, x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """The outputs under all conditions; of one call they are views of its result."""
        count = len(self._all)
        if self._joined is None:
            return tuple(self.one(i, x, t) for i in range(count))
        for name, value in self._all[0].items():
            if isinstance(value, Tensor) and len(value) != len(x):
                raise ValueError(
                    f"{self._owner}: condition {name} has batch {len(value)}, "
                    f"expected {len(x)} like x"
                )
        output = self._denoiser(torch.cat([x] * count), torch.cat([t] * count), **self._joined)
        return output.tensor_split(count)

    def _like(self, label: str, name: str, value: Any, first: Any) -> Any:
        """The value, a tensor expanded to the shape of the first condition's."""
        if isinstance(value, Tensor) != isinstance(first, Tensor):
            raise ValueError(f"{self._owner}: {name} is a tensor in one condition only")
        if not isinstance(value, Tensor) or value.shape == first.shape:
            return value
        if value.shape[1:] != first.shape[1:] or len(value) != 1:
            got, expected = tuple(value.shape), tuple(first.shape)
            raise ValueError(f"{self._owner}: {label} {name} has shape {got}, expected {expected}")
        return value.expand_as(first)

    def _join(self, name: str) -> Any:
        values = [condition[name] for condition in self._all]
        if isinstance(values[0], Tensor):
            return torch.cat(values)
        for other in values[1:]:
            if other != values[0]:
                raise ValueError(
                    f"{self._owner}: {name} differs between the conditions ({values[0]!r}, "
                    f"{other!r}) and is no tensor; use batched=False"
                )
        return values[0]
