"""An ordinary differential equation with steps of adaptive length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Dormand & Prince 1980, as in Hairer, Norsett & Wanner, "Solving ODEs I", table II.5.2.
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

Slope = Callable[[Tensor, float], Tensor]


def dormand_prince(
    slope: Slope,
    y: Tensor,
    start: float,
    end: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    most: int = 10_000,
) -> tuple[Tensor, int]:
    """dy/dt = slope(y, t) from start to end by the pair of orders 5 and 4 (Dormand & Prince 1980).

    y: any shape. rtol, atol: a step is kept if the root mean square over all numbers of
    error / (atol + rtol |y|) is at most 1. most: steps before it gives up.

    Returns:
        y at `end`, and the number of calls of `slope`.

    Raises:
        RuntimeError: more than `most` steps, or a slope that is not finite.
    """
    first = slope(y, start)
    t, calls = start, 1
    scale = atol + rtol * y.abs()
    reach = float(root_mean_square(y / scale) / root_mean_square(first / scale).clamp(min=1e-10))
    span = abs(end - start)
    h = math.copysign(min(max(0.01 * reach, 1e-6 * span), span), end - start)
    for _ in range(most):
        if abs(end - t) <= 1e-12 * max(abs(end), abs(start)):
            return y, calls
        h = end - t if abs(h) > abs(end - t) else h
        slopes = [first]
        for node, weights in zip(NODES[1:], STAGES[1:], strict=True):
            new = y + h * weighted_sum(weights, slopes)
            slopes.append(slope(new, t + node * h))
        calls += len(NODES) - 1
        size = atol + rtol * torch.maximum(y.abs(), new.abs())
        error = float(root_mean_square(h * weighted_sum(ERROR, slopes) / size))
        if not math.isfinite(error):
            raise RuntimeError(f"dormand_prince: the slope is not finite near {t:g}")
        if error <= 1:
            y, t, first = new, t + h, slopes[-1]
        h *= min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2))
    raise RuntimeError(f"dormand_prince: reached {t:g} of {end:g} in {most} steps")


def weighted_sum(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    return sum(
        (w * k for w, k in zip(weights, tensors, strict=True) if w), start=tensors[0].new_zeros(())
    )


def root_mean_square(x: Tensor) -> Tensor:
    return x.square().mean().sqrt() if x.numel() else x.new_zeros(())
