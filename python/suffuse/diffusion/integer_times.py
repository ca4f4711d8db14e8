"""Time grids of integers, for processes given by a table of N levels: float64, from noise to data.

Each has [steps + 1] entries with the end included. The names leading, linspace and trailing are
those of Lin et al. 2024, table 2; simple, ddim_uniform and beta_integers are ComfyUI's "simple",
"ddim_uniform" and "beta".
"""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse.diffusion._beta_quantile import beta_quantile
from suffuse.diffusion.discrete import DiscreteProcess
from suffuse.diffusion.process import Process


def _count(name: str, process: Process, steps: int, points: int) -> int:
    """Checks for a grid of integer times; returns their number N."""
    if steps < 1:
        raise ValueError(f"{name}: steps is {steps}, expected at least 1")
    if not isinstance(process, DiscreteProcess):
        kind = type(process).__name__
        raise TypeError(f"{name}: process is {kind}, expected DiscreteVP or DiscreteVE")
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

    offset: diffusers' `steps_offset`. skip_last: lay out one point more and leave out the last, as
    diffusers' multistep schedulers do. end: -1 is clean data; 0 is `set_alpha_to_one=False`.
    """
    points = steps + skip_last
    count = _count("leading", process, steps, points)
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
    count = _count("linspace", process, steps, points)
    even = torch.linspace(count - 1, 0, points, dtype=torch.float64)
    return _with_end(even.round()[:steps], end)


def trailing(process: Process, steps: int, *, end: float = -1.0) -> Tensor:
    """Integer times round(N - i N / steps) - 1 for i < steps, then `end` as in `leading`."""
    count = _count("trailing", process, steps, steps)
    times = (count - torch.arange(steps, dtype=torch.float64) * (count / steps)).round() - 1
    return _with_end(times, end)


def simple(process: Process, steps: int, *, end: float = -1.0) -> Tensor:
    """Integer times N - 1 - floor(i N / steps) for i < steps, then `end` as in `leading`."""
    count = _count("simple", process, steps, steps)
    back = torch.floor(torch.arange(steps, dtype=torch.float64) * (count / steps))
    return _with_end(count - 1 - back, end)


def ddim_uniform(process: Process, steps: int, *, end: float = -1.0) -> Tensor:
    """All integer times 1 + i (N // steps) below N, largest first, then `end` as in `leading`.

    The spacing of the original DDIM code. Where `steps` does not divide N the table may hold more
    of these times than steps: the grid is then longer, and reaches the noisy end.
    """
    count = _count("ddim_uniform", process, steps, steps)
    if count < 2:
        raise ValueError("ddim_uniform: process has 1 level, expected at least 2")
    times = torch.arange(1, count, count // steps, dtype=torch.float64)
    return _with_end(times.flip(0), end)


def beta_integers(
    process: Process, steps: int, *, a: float = 0.6, b: float = 0.6, end: float = -1.0
) -> Tensor:
    """Integer times nearest to N - 1 times the even quantiles of beta(a, b), then `end`.

    Lee et al. 2024, "Beta Sampling is All You Need": the quantiles 1 - i / steps for i < steps.
    Equal neighbours are taken once, so that the grid may have fewer steps than asked for.
    """
    count = _count("beta_integers", process, steps, steps)
    if not (a > 0 and b > 0):
        raise ValueError(f"beta_integers: a, b are {a}, {b}, expected more than 0")
    even = 1 - torch.arange(steps, dtype=torch.float64) / steps
    times = (beta_quantile(even, a, b) * (count - 1)).round()
    return _with_end(torch.unique_consecutive(times), end)
