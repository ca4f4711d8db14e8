"""Time grids: which times a sampler stops at, float64 [steps + 1] from noise to data.

Every grid includes the time it ends at, so that step i goes from entry i to entry i + 1. Grids laid
out by noise level take sigma / alpha of the process, which is sigma itself for VE and EDM.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suffuse.diffusion.discrete import DiscreteVP
from suffuse.diffusion.process import Process


def _check_steps(name: str, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"{name}: steps is {steps}, expected at least 1")


def _linspace(start: float, end: float, points: int) -> Tensor:
    return torch.linspace(start, end, points, dtype=torch.float64)


def uniform(
    process: Process, steps: int, *, start: float | None = None, end: float | None = None
) -> Tensor:
    """Equal steps in time from start (default `process.t_max`) to end (`process.t_clean`)."""
    _check_steps("uniform", steps)
    start = process.t_max if start is None else start
    end = process.t_clean if end is None else end
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"uniform: start, end are {start}, {end}, expected finite times")
    return _linspace(start, end, steps + 1)


def shifted(times: Tensor, shift: float) -> Tensor:
    """Flow times t moved to shift t / (1 + (shift - 1) t); shift > 1 spends more steps on noise.

    Esser et al. 2024, "Scaling Rectified Flow Transformers", eq. 23.
    """
    if not shift > 0:
        raise ValueError(f"shifted: shift is {shift}, expected more than 0")
    return shift * times / (1 + (shift - 1) * times)


def _check_sigmas(name: str, sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"{name}: sigma_min, sigma_max are {sigma_min}, {sigma_max}, "
            "expected 0 < sigma_min < sigma_max"
        )


def _times_of(process: Process, lam: Tensor, clean: bool) -> Tensor:
    times = process.time_of(lam)
    return torch.cat([times, times.new_tensor([process.t_clean])]) if clean else times


def karras(
    process: Process,
    steps: int,
    *,
    sigma_min: float,
    sigma_max: float,
    rho: float = 7.0,
    clean: bool = True,
) -> Tensor:
    """Equal steps in (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5).

    clean: True: the `steps` levels from sigma_max to sigma_min, then clean data. False: the grid
    ends at sigma_min.
    """
    _check_steps("karras", steps)
    _check_sigmas("karras", sigma_min, sigma_max)
    points = steps if clean else steps + 1
    root = _linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), points)
    return _times_of(process, -rho * torch.log(root), clean)


def uniform_lambda(
    process: Process, steps: int, *, sigma_min: float, sigma_max: float, clean: bool = True
) -> Tensor:
    """Equal steps in lambda = log(alpha / sigma) (Lu et al. 2022, "DPM-Solver", section 3.2).

    sigma_min, sigma_max: levels of sigma / alpha; clean: as in `karras`.
    """
    _check_steps("uniform_lambda", steps)
    _check_sigmas("uniform_lambda", sigma_min, sigma_max)
    points = steps if clean else steps + 1
    lam = _linspace(-math.log(sigma_max), -math.log(sigma_min), points)
    return _times_of(process, lam, clean)


def _discrete(name: str, process: Process, steps: int, points: int) -> int:
    """Checks for a grid of integer times; returns their number N."""
    _check_steps(name, steps)
    if not isinstance(process, DiscreteVP):
        kind = type(process).__name__
        raise TypeError(f"{name}: process is {kind}, expected DiscreteVP (integer times)")
    count = int(process.t_max) + 1
    if points > count:
        raise ValueError(f"{name}: steps is {steps}, expected at most {count - points + steps}")
    return count


def _with_end(integers: Tensor, end: float) -> Tensor:
    return torch.cat([integers, integers.new_tensor([end])])


def leading(
    process: Process, steps: int, *, offset: int = 0, skip_last: bool = False, end: float = -1.0
) -> Tensor:
    """Integer times offset + i (N // steps), largest first, then `end`.

    The names leading, linspace and trailing are those of Lin et al. 2024, table 2.
    offset: diffusers' `steps_offset`. skip_last: lay out one point more and leave out the last, as
    diffusers' multistep schedulers do. end: -1 is clean data; 0 is `set_alpha_to_one=False`.
    """
    points = steps + skip_last
    count = _discrete("leading", process, steps, points)
    times = torch.arange(points, dtype=torch.float64) * (count // points) + offset
    if times[-1] > count - 1:
        raise ValueError(
            f"leading: offset is {offset}, last time {times[-1]:g} is past {count - 1}"
        )
    return _with_end(times.flip(0)[:steps], end)


def linspace(process: Process, steps: int, *, skip_last: bool = False, end: float = -1.0) -> Tensor:
    """Integer times nearest to an even division of [0, N - 1], both ends included, then `end`.

    skip_last, end: as in `leading`.
    """
    points = steps + skip_last
    count = _discrete("linspace", process, steps, points)
    return _with_end(_linspace(count - 1, 0, points).round()[:steps], end)


def trailing(process: Process, steps: int, *, end: float = -1.0) -> Tensor:
    """Integer times round(N - i N / steps) - 1 for i < steps, then `end` as in `leading`."""
    count = _discrete("trailing", process, steps, steps)
    times = (count - torch.arange(steps, dtype=torch.float64) * (count / steps)).round() - 1
    return _with_end(times, end)
