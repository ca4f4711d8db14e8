"""Cases of the sampler's update and of guidance."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

import suffuse
from benchmarks.case import Case, Functions, described, same
from suffuse.diffusion import DDIM, DiscreteVP, DPMSolverPP2M, leading, linear_betas, linspace

# guidance_gram


def gram_cases() -> Iterator[Case]:
    for shape in ((2, 4, 64, 64), (1, 16, 13, 60, 90), (32, 4, 512, 512)):
        yield _gram(shape, torch.float32)
    yield _gram((32, 4, 512, 512), torch.bfloat16)


def _gram(shape: tuple[int, ...], dtype: torch.dtype) -> Case:
    def make(device: str) -> Functions:
        first, second = (torch.randn(shape, device=device).to(dtype) for _ in range(2))

        def eager() -> Tensor:  # sums in float32, where ours are in float64
            a, b = first.flatten(1).float(), second.flatten(1).float()
            off = (a * b).sum(1)
            return torch.stack((a.square().sum(1), off, off, b.square().sum(1)), 1).view(-1, 2, 2)

        return {
            "suffuse": lambda: suffuse.guidance_gram([first, second]).gram,
            "eager torch": eager,
        }

    size = torch.empty(0, dtype=dtype).element_size()
    return Case("guidance_gram", f"2 outputs {described(shape)} {str(dtype)[6:]}", make, same(1e-4), 0.0,
                2.0 * size * math.prod(shape))  # fmt: skip


# sampler_step


def sampler_cases() -> Iterator[Case]:
    for shape in ((2, 4, 64, 64), (1, 16, 13, 60, 90)):
        for variant in ("dpmpp_2m", "ddim"):
            yield _against_diffusers(shape, variant)
    for shape in ((2, 4, 64, 64), (1, 16, 13, 60, 90), (32, 4, 512, 512)):
        yield _streams(shape, torch.float32, histories=0)
        yield _streams(shape, torch.float32, histories=2)
    yield _streams((32, 4, 512, 512), torch.bfloat16, histories=2)
    yield _noise((1, 16, 13, 60, 90))


def _against_diffusers(shape: tuple[int, ...], variant: str) -> Case:
    second_order = variant == "dpmpp_2m"

    def make(device: str) -> Functions:
        import diffusers

        steps, at = 20, 10
        x, model_output = (torch.randn(shape, device=device) for _ in range(2))
        process = DiscreteVP.from_betas(linear_betas())
        if second_order:
            peer = diffusers.DPMSolverMultistepScheduler()
            solver, times = DPMSolverPP2M(), linspace(process, steps, skip_last=True)
        else:
            peer = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
            solver, times = DDIM(), leading(process, steps)
        peer.set_timesteps(steps, device=device)
        plan = solver.plan(process, "eps", times)
        for i in range(at):  # fills the peer's history
            peer.step(model_output, peer.timesteps[i], x)
        stage, timestep = plan.stages[at], peer.timesteps[at]
        coefficients = suffuse.step_coefficients(
            x=stage.x, model=stage.model, data=stage.data, history=stage.history,
            data_from_x=stage.data_from_x, data_from_model=stage.data_from_model,
            converted=stage.kept, device=device,
        )  # fmt: skip
        history = [peer.model_outputs[-1].clone()] if second_order else []
        kept = list(peer.model_outputs) if second_order else []

        def theirs() -> Tensor:
            if second_order:
                peer._step_index, peer.model_outputs = at, list(kept)
            return peer.step(model_output, timestep, x, return_dict=False)[0]

        def ours() -> Tensor:
            return suffuse.sampler_step(
                x, [model_output], coefficients, history=history, converted=second_order
            ).sample

        name = "DPMSolverMultistepScheduler" if second_order else "DDIMScheduler"
        return {"suffuse": ours, f"diffusers {name}": theirs}

    # Read x, F (and one history); write x' (and the converted output for the next step).
    streams = 5 if second_order else 3
    return Case("sampler_step", f"{variant} {described(shape)} float32", make, same(1e-5), 0.0,
                streams * 4.0 * math.prod(shape))  # fmt: skip


def _streams(shape: tuple[int, ...], dtype: torch.dtype, histories: int) -> Case:
    def make(device: str) -> Functions:
        tensors = [torch.randn(shape, device=device).to(dtype) for _ in range(2 + histories)]
        x, model_output, *history = tensors
        weights = [0.3, -0.2][:histories]
        table = suffuse.step_coefficients(
            x=0.7, model=0.2, data=0.4, history=weights, data_from_x=1.1, data_from_model=-0.6, clip=1.0,
            device=device,
        )  # fmt: skip

        def ours() -> tuple[Tensor, ...]:
            return suffuse.sampler_step(x, [model_output], table, history=history)[:2]  # type: ignore[return-value]

        def eager() -> tuple[Tensor, ...]:
            data = (1.1 * x - 0.6 * model_output).clamp(-1.0, 1.0)
            new = 0.7 * x + 0.2 * model_output + 0.4 * data
            for weight, h in zip(weights, history, strict=True):
                new = new + weight * h
            return new, data

        return {"suffuse": ours, "eager torch": eager}

    size = torch.empty(0, dtype=dtype).element_size()
    return Case("sampler_step", f"{4 + histories} streams {described(shape)} {str(dtype)[6:]}", make,
                same(1e-5 if dtype == torch.float32 else 2e-2), 0.0,
                (4.0 + histories) * size * math.prod(shape))  # fmt: skip


def _noise(shape: tuple[int, ...]) -> Case:
    def make(device: str) -> Functions:
        x, model_output = (torch.randn(shape, device=device) for _ in range(2))
        table = suffuse.step_coefficients(x=0.9, model=-0.1, noise=0.2, device=device)

        def ours() -> object:
            return suffuse.sampler_step(x, [model_output], table, noise=(1, 2), converted=False)[0]

        def eager() -> object:
            return 0.9 * x - 0.1 * model_output + 0.2 * torch.randn_like(x)

        return {"suffuse": ours, "eager torch": eager}

    return Case("sampler_step", f"noise made inside {described(shape)} float32", make, None, 0.0,
                3 * 4.0 * math.prod(shape))  # fmt: skip
