"""Time grids: which times a sampler stops at, float64 [steps + 1] from noise to data.

Every grid includes the time it ends at, so that step i goes from entry i to entry i + 1. Grids laid
out by noise level take sigma / alpha of the process, which is sigma itself for VE and EDM. The
integer grids of tabulated processes are in `integer_times`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suffuse.diffusion.discrete import DiscreteProcess
from suffuse.diffusion.process import Process
from suffuse.diffusion.sigmas import check_sigmas, exponential_sigmas, karras_sigmas


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


def _last_level(name: str, process: Process, last: float | None) -> float:
    if last is not None:
        return last
    if isinstance(process, DiscreteProcess):
        return 0.0
    kind = type(process).__name__
    raise ValueError(f"{name}: last is None, expected the last time above clean data for {kind}")


def normal(process: Process, steps: int, *, last: float | None = None) -> Tensor:
    """`steps` times, even from `process.t_max` to `last`, then clean data (ComfyUI's "normal").

    last: default 0 for tabulated processes, whose times between integers are interpolated.
    """
    _check_steps("normal", steps)
    last = _last_level("normal", process, last)
    return _ended(process, _linspace(process.t_max, last, steps))


def sgm_uniform(process: Process, steps: int, *, last: float | None = None) -> Tensor:
    """`normal` with one point more, of which the last is left out (ComfyUI's "sgm_uniform")."""
    _check_steps("sgm_uniform", steps)
    last = _last_level("sgm_uniform", process, last)
    return _ended(process, _linspace(process.t_max, last, steps + 1)[:-1])


def _ended(process: Process, times: Tensor) -> Tensor:
    return torch.cat([times, times.new_tensor([process.t_clean])])


def levels(
    process: Process,
    sigmas: Sequence[float] | Tensor,
    *,
    clean: bool = True,
    ratio: bool = True,
) -> Tensor:
    """The times of `process` at the given noise levels: any list of `suffuse.diffusion.sigmas`.

    Args:
        sigmas: [steps] (or [steps + 1] for clean=False), positive and falling.
        clean: True adds clean data at the end.
        ratio: True: sigmas are sigma / alpha. False: they are sigma itself, as lists for flow
            models usually are; only for processes with alpha + sigma = 1, at most 1.

    Raises:
        ValueError: sigmas do not fall, or ratio=False for another process.
    """
    table = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    if table.dim() != 1 or len(table) == 0 or not (table > 0).all() or (table.diff() >= 0).any():
        raise ValueError(f"levels: sigmas is {table.tolist()}, expected positive, falling numbers")
    if not ratio:
        if not process.straight or table[0] > 1:
            kind = type(process).__name__
            raise ValueError(
                f"levels: ratio is False for {kind} with sigmas up to {table[0]:g}, expected a "
                "flow process and sigmas up to 1"
            )
        table = table / (1 - table)  # inf at sigma = 1, which is pure noise
    times = process.time_of(-torch.log(table))
    return _ended(process, times) if clean else times


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
    points = steps if clean else steps + 1
    check_sigmas("karras", points, sigma_min, sigma_max)
    return levels(process, karras_sigmas(points, sigma_min, sigma_max, rho), clean=clean)


def uniform_lambda(
    process: Process, steps: int, *, sigma_min: float, sigma_max: float, clean: bool = True
) -> Tensor:
    """Equal steps in lambda = log(alpha / sigma) (Lu et al. 2022, "DPM-Solver", section 3.2).

    Also known as exponential. sigma_min, sigma_max: levels of sigma / alpha; clean: as in `karras`.
    """
    _check_steps("uniform_lambda", steps)
    points = steps if clean else steps + 1
    check_sigmas("uniform_lambda", points, sigma_min, sigma_max)
    return levels(process, exponential_sigmas(points, sigma_min, sigma_max), clean=clean)
