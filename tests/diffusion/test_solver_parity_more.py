"""Samplers of flows, EDM, score SDEs, consistency models and inpainting beside diffusers, in double."""

import math

import diffusers
import pytest
import torch
from test_diffusers_parity import Model, with_model_times
from test_solver_parity import (
    assert_same,
    double,  # noqa: F401
    ours,
    pytestmark,  # noqa: F401
    theirs,
    x_double,
)

from suffuse.diffusion import EDM, DiscreteVP, Flow, Known, edm_preconditioned, sample
from suffuse.diffusion.consistency import consistency_prediction
from suffuse.diffusion.solvers import (
    Churn,
    Consistency,
    DPMSolver,
    Euler,
    EulerAncestral,
    PredictorCorrector,
    RePaint,
)

STEPS = (4, 20, 50)


def flow_model(x, t):
    t = torch.as_tensor(t).flatten()[0] / 1000
    return 0.6 * torch.tanh(x) + 0.3 * torch.cos(x.roll(1, -1)) * t - 0.4


@pytest.mark.parametrize("steps", STEPS)
def test_stochastic_flow(steps):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(steps)
    plan = Consistency().plan(Flow(), "flow", scheduler.sigmas)
    plan = with_model_times(plan, scheduler.timesteps)
    mine, _ = ours(flow_model, plan, x_double())
    # Theirs draws from the default generator of the device where no generator is passed on.
    generator, x, peer = torch.Generator().manual_seed(3), x_double(), []
    for t in scheduler.timesteps:
        output = flow_model(x, t)
        x = scheduler.step(output, t, x, generator=generator, return_dict=False)[0]
        peer.append(x)
    for a, b in zip(mine, peer, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_rectified_euler_ancestral(eta, steps):
    scheduler = diffusers.LTXEulerAncestralRFScheduler(eta=eta)
    sigmas = torch.linspace(0.98, 0, steps + 1).tolist()
    scheduler.set_timesteps(sigmas=sigmas)
    plan = EulerAncestral(eta, rectified=True).plan(Flow(), "flow", scheduler.sigmas)
    times = scheduler.timesteps[:-1]  # theirs has one more, where nothing is left to do
    plan = with_model_times(plan, times)
    mine, _ = ours(flow_model, plan, x_double())
    generator, x = torch.Generator().manual_seed(3), x_double()
    for t, y in zip(times, mine, strict=True):
        x = scheduler.step(flow_model(x, t), t, x, generator=generator, return_dict=False)[0]
        torch.testing.assert_close(y, x, rtol=1e-9, atol=1e-9)


def edm_network(x, t):
    t = torch.as_tensor(t).flatten()[0]
    return torch.tanh(x) * torch.exp(0.1 * t) + 0.3 * torch.cos(x.roll(1, -1))


@pytest.mark.parametrize("steps", STEPS)
def test_edm_dpm_solver(steps):
    scheduler = diffusers.EDMDPMSolverMultistepScheduler()
    scheduler.set_timesteps(steps)
    solver = DPMSolver(2, lower_order_final=steps < 15)
    plan = solver.plan(EDM(), edm_preconditioned(0.5), scheduler.sigmas)
    x = 80 * x_double()
    assert_same(ours(edm_network, plan, x), theirs(edm_network, scheduler, x, draws=False))


@pytest.mark.parametrize("steps", STEPS)
def test_edm_euler_with_churn(steps):
    # Theirs keeps the time of the level before the churn for the network, so that it is told nothing.
    def network(x, t):
        return edm_network(x, 0.0)

    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(steps)
    churn = Churn(3.0, 0.05, 50.0, 1.007)
    times = scheduler.sigmas
    plan = Euler(churn).plan(EDM(), "sample", times)
    generator, x = torch.Generator().manual_seed(3), 80 * x_double()

    def denoiser(y, sigma):
        return network(y, sigma)

    mine = ours(denoiser, plan, x)[0]
    scheduler.precondition_outputs = lambda sample, output, sigma: output
    for t, y in zip(scheduler.timesteps, mine, strict=True):
        scheduler._step_index = scheduler.index_for_timestep(t)
        sigma = scheduler.sigmas[scheduler._step_index]
        gamma = min(3.0 / steps, math.sqrt(2) - 1) if 0.05 <= sigma <= 50.0 else 0.0
        state = generator.get_state()
        noise = torch.randn(x.shape, generator=generator) if gamma else torch.zeros_like(x)
        generator.set_state(state)
        seen = x + noise * 1.007 * (sigma * math.sqrt((1 + gamma) ** 2 - 1))
        scheduler.is_scale_input_called = True
        x = scheduler.step(
            network(seen, t), t, x, s_churn=3.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.007,
            generator=generator, return_dict=False,
        )[0]  # fmt: skip
        torch.testing.assert_close(y, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_consistency_models(steps):
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=True)
    scheduler.set_timesteps(steps)
    kind = consistency_prediction()
    solver = Consistency(sigma_min=0.002, clip=1.0)
    plan = solver.plan(EDM(), kind, scheduler.sigmas)
    x = 80 * x_double()
    mine, _ = ours(edm_network, plan, x)
    peer, _ = theirs(edm_network, scheduler, x)
    for a, b in zip(mine, peer, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", STEPS)
def test_score_sde_with_corrector(steps):
    scheduler = diffusers.ScoreSdeVeScheduler(num_train_timesteps=steps, correct_steps=2)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    levels = [*scheduler.discrete_sigmas.flip(0).tolist(), 0.0]

    def model(x, t):
        level = torch.sqrt(0.25 + torch.as_tensor(t).flatten()[0] ** 2)
        return -(x / level) * (1 + 0.1 * torch.cos(x / level)) / level

    solver = PredictorCorrector(0.15, corrections=2, noisy_end=True)
    plan = solver.plan(EDM(), "score", levels)
    generator, x, peer = torch.Generator().manual_seed(3), levels[0] * x_double(), []
    mine, _ = ours(model, plan, x)
    for i, t in enumerate(scheduler.timesteps):
        for _ in range(2):
            x = scheduler.step_correct(model(x, levels[i]), x, generator=generator).prev_sample
        x = scheduler.step_pred(model(x, levels[i]), t, x, generator=generator).prev_sample
        peer.append(x)
    for a, b in zip(mine, peer, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", STEPS)
def test_repaint(steps, eta):
    scheduler = diffusers.RePaintScheduler(eta=eta, clip_sample=True)
    scheduler.set_timesteps(steps, jump_length=2, jump_n_sample=3)
    process = DiscreteVP(scheduler.alphas_cumprod)
    model = Model(process, "eps")
    data, mask = torch.tanh(x_double().roll(3, -1)), torch.zeros(2, 1, 16, 16)
    mask[:, :, :8] = 1.0
    solver = RePaint(eta, jump_length=2, jump_count=3, clip=1.0)
    times = torch.cat([scheduler.timesteps.unique().flip(0), torch.tensor([-1])])
    plan = solver.plan(process, "eps", times)
    order = [stage.model_time for stage in plan.stages if stage.calls_model]
    down, last = [], scheduler.timesteps[0].item() + 1
    for t in scheduler.timesteps.tolist():
        down += [t] if t < last else []
        last = t
    assert order == down
    generator, x = torch.Generator().manual_seed(3), x_double()
    mine = sample(
        model, x, plan, generator=torch.Generator().manual_seed(3), known=Known(data, mask)
    )
    for stage in plan.stages:  # theirs goes back by other betas than those of the levels
        if stage.calls_model:
            t = torch.tensor(int(stage.model_time))
            x = scheduler.step(model(x, t), t, x, data, mask, generator).prev_sample
        else:
            x = stage.x * x + stage.noise * torch.randn(x.shape, generator=generator)
    torch.testing.assert_close(mine, x, rtol=1e-9, atol=1e-9)
