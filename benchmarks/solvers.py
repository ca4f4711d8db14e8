"""Whole sampling runs beside diffusers: `python -m benchmarks.solvers [--steps 20] [--rounds 9]`.

The model costs nothing, so that what is timed is the sampler: the loop, its updates and its noise. Runs
are compared with diffusers' before they are timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

import diffusers
import torch
from torch import Tensor

from benchmarks.timing import interleaved_medians
from suffuse.diffusion import (
    DDIM,
    DDPM,
    DiscreteVP,
    DPMSolver,
    DPMSolverPP2M,
    Plan,
    SASolver,
    Solver,
    UniPC,
    leading,
    linear_betas,
    linspace,
    sample,
)

SHAPES = ((2, 4, 64, 64), (1, 16, 13, 60, 90), (8, 4, 128, 128))
Run = Callable[[], Tensor]


def model(x: Tensor, t: Tensor) -> Tensor:
    """The noise is predicted as the sample itself: bounded, and free."""
    return x


def runs(steps: int, shape: tuple[int, ...]) -> Iterator[tuple[str, Run, Run]]:
    """Name, our run and diffusers' run of the same numbers."""
    process = DiscreteVP.from_betas(linear_betas())
    multistep = diffusers.DPMSolverMultistepScheduler
    skipping = linspace(process, steps, skip_last=True)
    to_first = linspace(process, steps, skip_last=True, end=0.0)
    yield (
        "DDIM",
        _ours(DDIM(), process, leading(process, steps), shape),
        _theirs(diffusers.DDIMScheduler(clip_sample=False), steps, shape),
    )
    yield (
        "DDPM",
        _ours(DDPM(), process, leading(process, steps), shape),
        _theirs(diffusers.DDPMScheduler(clip_sample=False), steps, shape),
    )
    yield (
        "DPM++ 2M",
        _ours(DPMSolverPP2M(), process, skipping, shape),
        _theirs(multistep(), steps, shape),
    )
    yield (
        "DPM++ 2M SDE",
        _ours(DPMSolver(eta=1.0), process, skipping, shape),
        _theirs(multistep(algorithm_type="sde-dpmsolver++"), steps, shape),
    )
    yield (
        "UniPC",
        _ours(UniPC(lower_order_final=True), process, skipping, shape),
        _theirs(diffusers.UniPCMultistepScheduler(), steps, shape, draws=False),
    )
    yield (
        "SA-Solver",
        _ours(SASolver(tau=_tau, lower_order_final=True), process, to_first, shape),
        _theirs(diffusers.SASolverScheduler(), steps, shape),
    )


def _tau(time: float) -> float:
    return float(200 <= time <= 800)


def _ours(solver: Solver, process: DiscreteVP, times: Tensor, shape: tuple[int, ...]) -> Run:
    plan: Plan = solver.plan(process, "eps", times)

    def run() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=generator)
        return sample(model, x, plan, generator=generator)

    return run


def _theirs(scheduler, steps: int, shape: tuple[int, ...], draws: bool = True) -> Run:  # type: ignore[no-untyped-def]
    def run() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=generator)
        scheduler.set_timesteps(steps)
        options = {"generator": generator} if draws else {}
        for t in scheduler.timesteps:
            output = model(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(output, t, x, return_dict=False, **options)[0]
        return x

    return run


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.solvers", description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    failed = False
    for shape in SHAPES:
        for name, ours, theirs in runs(options.steps, shape):
            a, b = ours(), theirs()
            difference = float((a - b).abs().max() / b.abs().max())
            head = f"{name:<14}{'x'.join(map(str, shape)):<20}"
            if not difference < 1e-4:
                print(f"{head} NOT TIMED: relative difference {difference:.1e}")
                failed = True
                continue
            medians = interleaved_medians(
                {"suffuse": ours, "diffusers": theirs}, rounds=options.rounds
            )
            mine, peer = (medians[key] * 1e3 for key in ("suffuse", "diffusers"))
            print(f"{head}{mine:9.2f} ms {peer:9.2f} ms   {peer / mine:6.2f}x", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
