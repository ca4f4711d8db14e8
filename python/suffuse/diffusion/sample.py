"""The sampling loop: one for all solvers, processes and kinds of guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from suffuse.diffusion.guidance import Guidance, Unguided
from suffuse.diffusion.solvers import Plan, Stage
from suffuse.ops import sampler_step, step_coefficients

Callback = Callable[[int, int, float, Tensor], Any]
Noise = Tensor | tuple[int, int] | None


@torch.no_grad()
def sample(
    guided: Guidance | Callable[..., Tensor],
    x: Tensor,
    plan: Plan,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    model_dtype: torch.dtype | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Tensor:
    """Carries x along the plan's times with one fused update a model call. No gradients are kept.

    The sample is held in fp32 (fp64 if x is fp64) whatever the model computes in. All coefficients
    are put on the device before the first step, and nothing waits for the device afterwards.

    Args:
        guided: a guidance object, or a denoiser that is called as denoiser(x, t).
        x: where to start, [B, ...]: noise of standard deviation sigma at the first time (see
            `starting_noise`). It is not changed.
        plan: from `Solver.plan`.
        seed: of the Philox noise that the update itself makes; stage i uses stream i, so that the
            result depends on the seed alone, whatever the device. Default: drawn from torch's
            default generator.
        generator: draws the noise with torch.randn on its device instead, one call for each stage
            whose noise weight is not 0, in order.
        noise: the noise itself, [steps, B, ...]; step i takes noise[i].
            A plan without noise uses none of these three.
        model_dtype: dtype of the model's input; default: x's own.
        callback: called after each step as callback(step, steps, time, x) with the time reached.
        progress: True shows a progress bar.

    Returns:
        The sample at the plan's last time, [B, ...], fp32 or fp64.

    Raises:
        TypeError: x is not floating-point.
        ValueError: more than one of seed, generator and noise, or noise of a wrong shape; guidance
            that gives another number of outputs than of weights.
    """
    if not x.is_floating_point():
        raise TypeError(f"sample: x has dtype {x.dtype}, expected a floating-point tensor")
    guidance = guided if isinstance(guided, Guidance) else Unguided(guided)
    model_dtype = model_dtype or x.dtype
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    draws = _noises(plan, x, seed, generator, noise)
    table = _table(plan.stages, guidance, x)
    model_times = torch.tensor([s.model_time for s in plan.stages], dtype=x.dtype).to(x.device)

    depth = max(len(stage.history) for stage in plan.stages)
    anchor, history = x, list[Tensor]()
    model_input = (x * plan.stages[0].input_scale).to(model_dtype)
    with tqdm(total=plan.steps, disable=not progress, desc=plan.solver) as bar:
        for i, (stage, following) in enumerate(zip_longest(plan.stages, plan.stages[1:])):
            outputs = guidance.outputs(model_input, model_times[i].expand(len(x)), stage.time)
            _check_outputs(guidance, outputs, stage)
            scaled = following and (following.input_scale != 1 or x.dtype != model_dtype)
            result = sampler_step(
                x,
                outputs,
                table[i],
                history=history[: len(stage.history)],
                anchor=anchor if stage.anchor != 0 else None,
                noise=next(draws),
                threshold=stage.threshold,
                converted=stage.keep,
                next_input=model_dtype if scaled else None,
            )
            x = result.sample
            model_input = x if result.next_input is None else result.next_input
            if result.converted is not None:
                history = [result.converted, *history][:depth]
            if following is None or following.step != stage.step:
                anchor = x
                bar.update()
                if callback is not None:
                    callback(stage.step, plan.steps, plan.times[stage.step + 1], x)
    return x


def _table(stages: tuple[Stage, ...], guidance: Guidance, x: Tensor) -> Tensor:
    """The coefficients of all stages [stages, 21] in x's dtype, on its device."""
    weights = [guidance.weights(stage.time) for stage in stages]
    scales = [stage.input_scale for stage in stages[1:]] + [1.0]
    return step_coefficients(
        x=[s.x for s in stages],
        model=[s.model for s in stages],
        data=[s.data for s in stages],
        history=_columns([s.history for s in stages]),
        anchor=[s.anchor for s in stages],
        noise=[s.noise for s in stages],
        data_from_x=[s.data_from_x for s in stages],
        data_from_model=[s.data_from_model for s in stages],
        clip=[s.clip for s in stages],
        converted=_columns([s.kept for s in stages]),
        next_scale=scales,
        guidance=_columns(weights),
        dtype=x.dtype,
    ).to(x.device)


def _columns(rows: list[tuple[float, ...]] | list[tuple[float, float, float]]) -> list[list[float]]:
    """Rows of different lengths as columns, short rows filled up with 0."""
    width = max(len(row) for row in rows)
    return [[row[j] if j < len(row) else 0.0 for row in rows] for j in range(width)]


def _noises(
    plan: Plan,
    x: Tensor,
    seed: int | None,
    generator: torch.Generator | None,
    noise: Tensor | None,
) -> Iterator[Noise]:
    """The noise operand of each stage; None where its weight is 0."""
    given = {"seed": seed, "generator": generator, "noise": noise}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"sample: got {' and '.join(names)}, expected at most one of them")
    if noise is not None and noise.shape != (plan.steps, *x.shape):
        got, expected = tuple(noise.shape), (plan.steps, *x.shape)
        raise ValueError(f"sample: noise has shape {got}, expected {expected} (steps, then x)")
    if not names and plan.needs_noise:
        seed = int(torch.randint(2**63 - 1, ()))
    return (
        _noise(i, stage, x, seed, generator, noise) if stage.noise != 0 else None
        for i, stage in enumerate(plan.stages)
    )


def _noise(
    i: int,
    stage: Stage,
    x: Tensor,
    seed: int | None,
    generator: torch.Generator | None,
    noise: Tensor | None,
) -> Noise:
    if noise is not None:
        return noise[stage.step].to(x)
    if generator is not None:
        z = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        return z.to(x.device)
    assert seed is not None  # drawn by _noises
    return seed, i


def _check_outputs(guidance: Guidance, outputs: tuple[Tensor, ...], stage: Stage) -> None:
    expected = len(guidance.weights(stage.time))
    if len(outputs) != expected:
        kind = type(guidance).__name__
        raise ValueError(f"sample: {kind} gave {len(outputs)} outputs, expected {expected}")
