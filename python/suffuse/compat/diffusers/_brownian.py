"""Noise from increments of Brownian paths, with the numbers that torchsde makes of a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from suffuse.compat.diffusers._base import Generator


def seeds_of(generator: Generator) -> int | list[int] | None:
    """The seed of a path, or one for each sample."""
    if generator is None:
        return None
    if isinstance(generator, torch.Generator):
        return generator.initial_seed()
    return [one.initial_seed() for one in generator]


class BrownianTree:
    """Standardised increments W(b) - W(a) of paths like x, for levels between low and high.

    seed: one for all of x, or a list with one for each sample; None: from torch's generator.
    """

    def __init__(
        self, x: Tensor, low: float, high: float, seed: int | Sequence[int] | None = None
    ) -> None:
        try:
            from torchsde import BrownianInterval
        except ImportError:
            raise ImportError("Brownian noise needs torchsde: pip install torchsde") from None
        if seed is None:
            seed = int(torch.randint(0, 2**63 - 1, []))
        self._batched = not isinstance(seed, int)
        seeds = [seed] if isinstance(seed, int) else list(seed)
        if self._batched and len(seeds) != len(x):
            raise ValueError(
                f"step: got {len(seeds)} seeds, expected one for each of {len(x)} samples"
            )
        start = torch.zeros_like(x[0] if self._batched else x)
        options: dict[str, Any] = {"tol": 1e-6, "pool_size": 24, "halfway_tree": True}
        self._paths = [
            BrownianInterval(
                torch.as_tensor(low),
                torch.as_tensor(high),
                size=start.shape,
                dtype=start.dtype,
                device=start.device,
                entropy=one,
                **options,
            )
            for one in seeds
        ]

    def __call__(self, level: Any, following: Any) -> Tensor:
        """The increment from one level to the next over the root of their distance."""
        a, b = torch.as_tensor(level), torch.as_tensor(following)
        sign = 1.0 if a < b else -1.0
        parts = [path(torch.minimum(a, b), torch.maximum(a, b)) for path in self._paths]
        increments = torch.stack(parts) * sign
        return (increments if self._batched else increments[0]) / (b - a).abs().sqrt()
