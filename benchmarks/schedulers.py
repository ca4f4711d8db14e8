"""Times `step` of the drop-in schedulers against diffusers': `python -m benchmarks.schedulers`.

One call in the middle of a run of 20 steps, with the history that it has there (Heun: both calls of a
step). Options are those of `benchmarks.run`.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.registry import Case, Functions

STEPS, AT = 20, 10
SHAPES = ((2, 4, 64, 64), (1, 16, 128, 128), (1, 16, 13, 60, 90))
# Scheduler -> how many tensors a call has to read and to write.
STREAMS = {
    "DDIMScheduler": 3,
    "DPMSolverMultistepScheduler": 5,
    "UniPCMultistepScheduler": 7,
    "DEISMultistepScheduler": 4,
    "EulerDiscreteScheduler": 3,
    "HeunDiscreteScheduler": 7,
    "LMSDiscreteScheduler": 6,
    "FlowMatchEulerDiscreteScheduler": 3,
}
# What a call changes in a scheduler, here and in diffusers.
STATE = (
    "_step_index", "_history", "_anchor", "model_outputs", "lower_order_nums", "last_sample",
    "timestep_list", "this_order", "derivatives", "prev_derivative", "dt", "sample",
)  # fmt: skip


def cases() -> list[Case]:
    """Every scheduler at every size."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    for name, streams in STREAMS.items():
        for shape in SHAPES:
            size = "x".join(map(str, shape))
            make = partial(_functions, name, shape)
            yield Case(
                "scheduler", f"{name.removesuffix('Scheduler')} {size} float32", make, _same, 0.0,
                streams * 4.0 * math.prod(shape),
            )  # fmt: skip


def _functions(name: str, shape: tuple[int, ...], device: str) -> Functions:
    import diffusers

    from suffuse.compat import diffusers as drop_ins

    x, output = (torch.randn(shape, device=device) for _ in range(2))
    return {
        "suffuse": _call(getattr(drop_ins, name)(), x, output),
        "diffusers": _call(getattr(diffusers, name)(), x, output),
    }


def _call(scheduler: Any, x: Tensor, output: Tensor) -> Callable[[], Tensor]:
    """The call at step AT, again and again from the same state."""
    scheduler.set_timesteps(STEPS, device=x.device)
    timesteps = list(scheduler.timesteps)
    calls = scheduler.order
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for t in timesteps[: AT * calls]:
            if hasattr(scheduler, "is_scale_input_called"):
                scheduler.is_scale_input_called = True
            scheduler.step(output, t, x, return_dict=False)
    state = {k: scheduler.__dict__[k] for k in STATE if k in scheduler.__dict__}
    lists = {k: v for k, v in state.items() if isinstance(v, list) and k != "_history"}
    here = timesteps[AT * calls : (AT + 1) * calls]

    def call() -> Tensor:
        scheduler.__dict__.update(state)
        for attribute, value in lists.items():
            setattr(scheduler, attribute, list(value))
        for t in here:
            result = scheduler.step(output, t, x, return_dict=False)[0]
        return result

    return call


def _same(functions: Functions) -> str | None:
    ours, theirs = (functions[name]() for name in ("suffuse", "diffusers"))
    error = float((ours - theirs).double().norm() / theirs.double().norm())  # type: ignore[operator, attr-defined]
    return None if error <= 1e-5 else f"relative difference {error:.1e} to diffusers, allowed 1e-05"


def main(arguments: list[str] | None = None) -> int:
    from benchmarks import run

    run.cases = cases
    torch.set_grad_enabled(False)
    return run.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
