"""Trajectories of 20 steps beside diffusers' schedulers: within 1e-6 in float32, 1e-13 in float64."""

import dataclasses

import diffusers
import pytest
import torch

from suffuse.diffusion import (
    DDIM,
    DiscreteVP,
    DPMSolverPP2M,
    Euler,
    Flow,
    Heun,
    karras,
    leading,
    linspace,
    sample,
    trailing,
)
from suffuse.diffusion.prediction import as_prediction

STEPS = 20
TYPES = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


class Model:
    """Predicts from a data estimate that is bounded, nonlinear and mixes neighbours, as a trained one is.

    process: gives alpha and sigma at scale * t, t being whatever the scheduler passes.
    """

    def __init__(self, process, prediction, scale=1.0):
        self.process, self.prediction, self.scale = process, as_prediction(prediction), scale

    def __call__(self, x, t):
        time = self.scale * torch.as_tensor(t).flatten()[0].item()
        alpha, sigma = self.process.alpha(time), self.process.sigma(time)
        data, noise = (w.item() for w in self.prediction.target(alpha, sigma))
        alpha, sigma = alpha.item(), sigma.item()
        estimate = 0.6 * torch.tanh(x) + 0.3 * torch.cos(x.roll(1, -1)) + 0.4
        return (data - noise * alpha / sigma) * estimate + (noise / sigma) * x


def start(dtype=torch.float32):
    return torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)


def ours(model, plan, x, **options):
    trajectory = []
    sample(model, x, plan, callback=lambda i, n, t, x: trajectory.append(x), **options)
    return trajectory


def theirs(model, scheduler, x, **options):
    trajectory = []
    for t in scheduler.timesteps:
        output = model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, return_dict=False, **options)[0]
        trajectory.append(x)
    return trajectory


def assert_same(ours, theirs, bound=1e-6):
    assert len(ours) == len(theirs) == STEPS
    for x, y in zip(ours, theirs, strict=True):
        assert ((x - y).abs().max() / y.abs().max()).item() < bound


def in_double(scheduler):
    """The scheduler with the same tables in float64, so that only the formulas can differ."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    return scheduler


def ddim(prediction, **options):
    scheduler = diffusers.DDIMScheduler(prediction_type=TYPES[prediction], **options)
    scheduler.set_timesteps(STEPS)
    return scheduler


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_ddim(prediction, eta, clip):
    scheduler = ddim(prediction, clip_sample=clip)
    process = DiscreteVP(scheduler.alphas_cumprod)
    model = Model(process, prediction)
    solver = DDIM(eta=eta, clip=1.0) if clip else DDIM(eta=eta)
    plan = solver.plan(process, prediction, leading(process, STEPS))
    mine = ours(model, plan, start(), generator=torch.Generator().manual_seed(3))
    peer = theirs(model, scheduler, start(), eta=eta, generator=torch.Generator().manual_seed(3))
    assert_same(mine, peer)


@pytest.mark.parametrize("prediction", TYPES)
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("bound", ["clip", "threshold", "none"])
def test_ddim_formulas(prediction, corrected, bound):
    clip, dynamic = bound == "clip", bound == "threshold"
    scheduler = ddim(prediction, clip_sample=clip, thresholding=dynamic, sample_max_value=1.5)
    process = DiscreteVP(in_double(scheduler).alphas_cumprod)
    model = Model(process, prediction)
    options = {"clip": {"clip": 1.0}, "threshold": {"threshold": (0.995, 1.5)}, "none": {}}[bound]
    solver = DDIM(eta=0.5, use_clipped_model_output=corrected, **options)
    plan = solver.plan(process, prediction, leading(process, STEPS))
    x = start(torch.float64)
    mine = ours(model, plan, x, generator=torch.Generator().manual_seed(3))
    peer = theirs(
        model,
        scheduler,
        x,
        eta=0.5,
        generator=torch.Generator().manual_seed(3),
        use_clipped_model_output=corrected,
    )
    assert_same(mine, peer, 1e-13)


def test_ddim_with_zero_terminal_snr_and_stable_diffusion_options():
    scheduler = ddim(
        "v",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
    )
    process = DiscreteVP(scheduler.alphas_cumprod)
    model = Model(process, "v")
    assert process.alpha(999.0) == 0
    plan = DDIM().plan(process, "v", trailing(process, STEPS, end=0.0))
    assert_same(ours(model, plan, start()), theirs(model, scheduler, start()))


def multistep(prediction, **options):
    kind = TYPES.get(prediction, "flow_prediction")
    scheduler = diffusers.DPMSolverMultistepScheduler(prediction_type=kind, **options)
    scheduler.set_timesteps(STEPS)
    return scheduler


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_dpmpp_2m(prediction):
    scheduler = multistep(prediction)
    process = DiscreteVP(scheduler.alphas_cumprod)
    model = Model(process, prediction)
    plan = DPMSolverPP2M().plan(process, prediction, linspace(process, STEPS, skip_last=True))
    assert_same(ours(model, plan, start()), theirs(model, scheduler, start()))


@pytest.mark.parametrize("end", [-1.0, 0.0], ids=["to-clean", "to-sigma-min"])
@pytest.mark.parametrize("options", [{}, {"threshold": (0.995, 1.5)}], ids=["plain", "threshold"])
@pytest.mark.parametrize("prediction", TYPES)
def test_dpmpp_2m_formulas(prediction, options, end):
    scheduler = multistep(prediction, thresholding=bool(options), sample_max_value=1.5)
    process = DiscreteVP(in_double(scheduler).alphas_cumprod)
    model = Model(process, prediction)
    times = linspace(process, STEPS, skip_last=True, end=end)
    plan = DPMSolverPP2M(**options).plan(process, prediction, times)
    scheduler.sigmas = torch.exp(-process.lam(times))
    x = start(torch.float64)
    mine, peer = ours(model, plan, x), theirs_in_double(model, scheduler, x)
    assert_same(mine, peer, 1e-13)


def theirs_in_double(model, scheduler, x):
    """The updates that `step` of the multistep scheduler calls, without its cast to float32."""
    trajectory, estimates = [], []
    for i, t in enumerate(scheduler.timesteps):
        scheduler._step_index = i
        estimates.append(scheduler.convert_model_output(model(x, t), sample=x))
        if i == 0 or scheduler.sigmas[i + 1] == 0:
            x = scheduler.dpm_solver_first_order_update(estimates[-1], sample=x)
        else:
            x = scheduler.multistep_dpm_solver_second_order_update(estimates[-2:], sample=x)
        trajectory.append(x)
    return trajectory


def test_dpmpp_2m_with_karras_levels():
    scheduler = multistep("v", use_karras_sigmas=True)
    process = DiscreteVP(scheduler.alphas_cumprod)
    model = Model(process, "v")
    low, high = (torch.exp(-process.lam(t)).item() for t in (0.0, 999.0))
    plan = DPMSolverPP2M().plan(process, "v", karras(process, STEPS, sigma_min=low, sigma_max=high))
    # diffusers rounds the time that the model sees, and not the noise level that belongs to it.
    assert_same(ours(model, rounded(plan), start()), theirs(model, scheduler, start()))


def rounded(plan):
    stages = (dataclasses.replace(s, model_time=float(round(s.model_time))) for s in plan.stages)
    return dataclasses.replace(plan, stages=tuple(stages))


def with_model_times(plan, times):
    """diffusers gives flow models 1000 t, some schedulers without the fraction."""
    stages = zip(plan.stages, times, strict=True)
    return dataclasses.replace(
        plan, stages=tuple(dataclasses.replace(s, model_time=float(t)) for s, t in stages)
    )


def test_dpmpp_2m_on_a_flow():
    scheduler = multistep("flow", use_flow_sigmas=True, flow_shift=3.0)
    model = Model(Flow(), "flow", 1e-3)
    plan = DPMSolverPP2M().plan(Flow(), "flow", scheduler.sigmas.double())
    plan = with_model_times(plan, scheduler.timesteps)
    assert_same(ours(model, plan, start()), theirs(model, scheduler, start()))


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize(
    ("solver", "peer"),
    [(Euler(), diffusers.EulerDiscreteScheduler), (Heun(), diffusers.HeunDiscreteScheduler)],
    ids=["euler", "heun"],
)
def test_euler_and_heun(solver, peer, prediction):
    scheduler = peer(prediction_type=TYPES[prediction], timestep_spacing="trailing")
    scheduler.set_timesteps(STEPS)
    process = DiscreteVP(scheduler.alphas_cumprod)
    model = Model(process, prediction)
    plan = solver.plan(process, prediction, trailing(process, STEPS))
    # Theirs run in x / alpha and scale the model's input back.
    alphas = [process.alpha(t).item() for t in plan.times]
    raw = theirs(model, scheduler, start() / alphas[0])
    steps = raw if solver.name == "euler" else [*raw[1::2], raw[-1]]
    peers = [alpha * x for alpha, x in zip(alphas[1:], steps, strict=True)]
    assert_same(ours(model, plan, start()), peers)


@pytest.mark.parametrize(
    ("solver", "peer"),
    [
        (Euler(), diffusers.FlowMatchEulerDiscreteScheduler),
        (Heun(), diffusers.FlowMatchHeunDiscreteScheduler),
    ],
    ids=["euler", "heun"],
)
def test_euler_and_heun_on_a_flow(solver, peer):
    scheduler = peer(shift=3.0)
    scheduler.set_timesteps(STEPS)
    model = Model(Flow(), "flow", 1e-3)
    times = scheduler.sigmas.double().unique().flip(0)
    plan = with_model_times(solver.plan(Flow(), "flow", times), scheduler.timesteps)
    raw = theirs_on_a_flow(model, scheduler, start())
    steps = raw if solver.name == "euler" else [*raw[1::2], raw[-1]]
    assert_same(ours(model, plan, start()), steps)


def theirs_on_a_flow(model, scheduler, x):
    trajectory = []
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x, return_dict=False)[0]
        trajectory.append(x)
    return trajectory
