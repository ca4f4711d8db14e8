"""The drop-in schedulers' `step` under torch.compile: no graph break, the same result."""

from __future__ import annotations

import pytest
import torch

from suffuse.compat import diffusers as drop_ins

NAMES = (
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "UniPCMultistepScheduler",
)


def started(name: str):
    """A scheduler after its first step, which finds the place in the schedule; and what came out."""
    scheduler = getattr(drop_ins, name)()
    scheduler.set_timesteps(6)
    generator = torch.Generator().manual_seed(0)
    sample, output = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    if not name.startswith("Flow"):
        sample = scheduler.scale_model_input(sample, scheduler.timesteps[0])
    sample = scheduler.step(output, scheduler.timesteps[0], sample).prev_sample
    return scheduler, sample, output


@pytest.mark.parametrize("name", NAMES)
def test_step_compiles_in_one_graph(name):
    scheduler, sample, output = started(name)
    with torch.no_grad():
        expected = scheduler.step(output, scheduler.timesteps[1], sample, return_dict=False)[0]
        scheduler, sample, output = started(name)

        @torch.compile(backend="aot_eager", fullgraph=True)
        def step(output, timestep, sample):
            return scheduler.step(output, timestep, sample, return_dict=False)[0]

        torch.testing.assert_close(step(output, scheduler.timesteps[1], sample), expected)
