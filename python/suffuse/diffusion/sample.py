"""Sampling: one function for all solvers, processes and kinds of guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from suffuse.diffusion.guidance import Guidance
from suffuse.diffusion.loop import Known, Loop, Noise
from suffuse.diffusion.solvers import Plan, Stage

Callback = Callable[[int, int, float, Tensor], Any]
Generators = torch.Generator | Sequence[torch.Generator]


@torch.no_grad()
def sample(
    guided: Guidance | Callable[..., Tensor],
    x: Tensor,
    plan: Plan | Sequence[Plan],
    *,
    seed: int | None = None,
    generator: Generators | None = None,
    noise: Tensor | None = None,
    model_dtype: torch.dtype | None = None,
    assignment: Tensor | None = None,
    known: Known | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Tensor:
    """Carries x along the plan's times with one fused update a model call. No gradients are kept.

    The sample is held in fp32 (fp64 if x is fp64) whatever the model computes in. All coefficients
    are put on the device before the first step, and nothing waits for the device afterwards. `Loop`
    is the same without noise sources and callbacks, for torch.compile and CUDA graphs.

    Args:
        guided: a guidance object, or a denoiser that is called as denoiser(x, t).
        x: where to start, [B, ...]: noise of standard deviation sigma at the first time (see
            `starting_noise`). It is not changed.
        plan: from `Solver.plan`. Or several plans of one solver and number of steps, one for each
            sample or as `assignment` says; `Plan.frozen` makes one that leaves its samples alone.
        seed: of the Philox noise that the update itself makes; stage i uses stream i, so that the
            result depends on the seed alone, whatever the device. Default: drawn from torch's
            default generator.
        generator: draws the noise with torch.randn on its device instead, one call for each stage
            whose noise weight is not 0, in order (`Stage.draws` where a method draws more). A list
            has one generator for every sample.
        noise: the noise itself, [steps, B, ...]; step i takes noise[i]. Plans that add noise more
            than once a step take [stages, B, ...].
            A plan without noise uses none of these three.
        model_dtype: dtype of the model's input; default: x's own.
        assignment: the index of the plan that each sample [B], or each token [B, T] of x [B, T, ...],
            follows; int64. The model then gets times of this shape.
        known: the known part of the picture, for plans that inpaint.
        callback: called after each step as callback(step, steps, time, x) with the time reached.
        progress: True shows a progress bar.

    Returns:
        The sample at the plan's last time, [B, ...], fp32 or fp64.

    Raises:
        TypeError: x is not floating-point.
        ValueError: more than one of seed, generator and noise, or noise of a wrong shape; guidance
            that gives another number of outputs than of weights; plans or `assignment` that do not
            fit x or each other.
        NotImplementedError: see `Loop`.
    """
    if not x.is_floating_point():
        raise TypeError(f"sample: x has dtype {x.dtype}, expected a floating-point tensor")
    plans = (plan,) if isinstance(plan, Plan) else tuple(plan)
    loop = Loop(
        guided,
        plans,
        assignment=_assignment(plans, assignment, x),
        dtype=torch.promote_types(x.dtype, torch.float32),
        device=x.device,
        model_dtype=model_dtype or x.dtype,
        known=known,
    )
    state = loop.begin(x.to(torch.promote_types(x.dtype, torch.float32)))
    draw = noise_source(loop.stages, plans[0], state.x, seed, generator, noise)
    stages = loop.stages
    bar = tqdm(total=_steps(stages), desc=plans[0].solver) if progress else None
    for i, stage in enumerate(stages):
        state = loop.stage(i, state, draw(i, stage))
        following = stages[i + 1] if i + 1 < len(stages) else None
        if following is None or following.step != stage.step:
            if bar is not None:
                bar.update()
            if callback is not None:
                time = plans[0].times[-1] if following is None else following.time
                callback(stage.step, plans[0].steps, time, state.x)
    if bar is not None:
        bar.close()
    return state.x


def _steps(stages: Sequence[Stage]) -> int:
    """Number of steps, those of a plan that goes back and forth counted each time."""
    return 1 + sum(a.step != b.step for a, b in pairwise(stages))


def _assignment(plans: Sequence[Plan], assignment: Tensor | None, x: Tensor) -> Tensor | None:
    if assignment is None:
        if len(plans) == 1:
            return None
        assignment = torch.arange(len(plans))
    shape = tuple(assignment.shape)
    if shape != x.shape[: len(shape)] or not shape:
        raise ValueError(f"sample: assignment has shape {shape}, expected the first of {x.shape}")
    if assignment.numel() and not 0 <= int(assignment.min()) <= int(assignment.max()) < len(plans):
        raise ValueError(f"sample: assignment is outside 0 ... {len(plans) - 1}, one of the plans")
    return assignment


def noise_source(
    stages: Sequence[Stage],
    plan: Plan,
    x: Tensor,
    seed: int | None,
    generator: Generators | None,
    noise: Tensor | None,
) -> Callable[[int, Stage], Noise]:
    """A function of stage index and stage that gives its noise operand, None where it has none."""
    given = {"seed": seed, "generator": generator, "noise": noise}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"sample: got {' and '.join(names)}, expected at most one of them")
    if noise is not None:
        return _from_tensor(stages, plan, x, noise)
    if generator is not None:
        return _from_generator(x, generator)
    if not any(stage.needs_noise for stage in stages):
        return lambda i, stage: None
    key = int(torch.randint(2**63 - 1, ())) if seed is None else seed
    return lambda i, stage: (key, i) if stage.needs_noise else None


def _from_tensor(
    stages: Sequence[Stage], plan: Plan, x: Tensor, noise: Tensor
) -> Callable[[int, Stage], Noise]:
    noisy = [stage.step for stage in stages if stage.needs_noise]
    by_step = len(noisy) == len(set(noisy))
    count, unit = (plan.steps, "steps") if by_step else (len(stages), "stages")
    if noise.shape != (count, *x.shape):
        got, expected = tuple(noise.shape), (count, *x.shape)
        raise ValueError(f"sample: noise has shape {got}, expected {expected} ({unit}, then x)")

    def draw(i: int, stage: Stage) -> Noise:
        return noise[stage.step if by_step else i].to(x) if stage.needs_noise else None

    return draw


def _from_generator(x: Tensor, generator: Generators) -> Callable[[int, Stage], Noise]:
    several = not isinstance(generator, torch.Generator)
    generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
    if several and len(generators) != len(x):
        got, expected = len(generators), len(x)
        raise ValueError(f"sample: generator has {got} entries, expected {expected} like x")
    shape = (1, *x.shape[1:]) if several else x.shape

    def normal() -> Tensor:
        parts = [
            torch.randn(shape, generator=g, device=g.device, dtype=x.dtype) for g in generators
        ]
        return torch.cat(parts).to(x.device)

    def draw(i: int, stage: Stage) -> Noise:
        count = int(stage.needs_noise) if stage.draws is None else stage.draws
        drawn = [normal() for _ in range(count)]
        return drawn[-1] if stage.needs_noise else None

    return draw
