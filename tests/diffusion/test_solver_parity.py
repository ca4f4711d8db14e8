"""Every solver beside its diffusers scheduler over 4, 20 and 50 steps, both in double precision.

diffusers computes its tables in float32; here float32 means float64 while it runs, so that only a
formula can make a difference.
"""

import diffusers
import numpy as np
import pytest
import torch
from test_diffusers_parity import TYPES, Model, start

from suffuse.diffusion import DiscreteVP, leading, linspace, sample, trailing
from suffuse.diffusion.solvers import (
    DDPM,
    DEIS,
    DPM2,
    LMS,
    PNDM,
    TCD,
    CogVideoXDPM,
    Consistency,
    DPMSolver,
    DPMSolverGrouped,
    Euler,
    EulerAncestral,
    Heun,
    SASolver,
    UniPC,
)

STEPS = (4, 20, 50)
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array"),
    pytest.mark.filterwarnings("ignore:`"),
    pytest.mark.filterwarnings("ignore:The "),
]


@pytest.fixture(autouse=True)
def double(monkeypatch):
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(np, "float32", np.float64)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


def ours(model, plan, x):
    trajectory = []
    generator = torch.Generator().manual_seed(3)
    sample(model, x, plan, generator=generator, callback=lambda i, n, t, x: trajectory.append(x))
    return trajectory, generator.get_state()


def theirs(model, scheduler, x, draws=True, **options):
    trajectory, generator = [], torch.Generator().manual_seed(3)
    if draws:
        options["generator"] = generator
    for t in scheduler.timesteps:
        output = model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, return_dict=False, **options)[0]
        trajectory.append(x)
    return trajectory, generator.get_state()


def assert_same(ours, theirs, bound=1e-10):
    """Trajectories, and the number of draws from the generator."""
    assert len(ours[0]) == len(theirs[0])
    for x, y in zip(ours[0], theirs[0], strict=True):
        assert y.dtype == torch.float64
        assert ((x - y).abs().max() / y.abs().max()).item() < bound
    assert torch.equal(ours[1], theirs[1])


def made(peer, steps, prediction="eps", **options):
    scheduler = peer(prediction_type=TYPES[prediction], **options)
    scheduler.set_timesteps(steps)
    process = DiscreteVP(scheduler.alphas_cumprod)
    return scheduler, process, Model(process, prediction)


def x_double():
    return start(torch.float64)


def skipping(process, steps, final="zero"):
    return linspace(process, steps, skip_last=True, end=-1.0 if final == "zero" else 0.0)


ALGORITHMS = {
    "dpmsolver++": {"form": "data"},
    "dpmsolver": {"form": "noise"},
    "sde-dpmsolver++": {"form": "data", "eta": 1.0},
    "sde-dpmsolver": {"form": "noise", "eta": 1.0},
}


# Without the third order of SDEs: diffusers has none for "sde-dpmsolver", and for the other a slip of
# sign in its last term (k-diffusion has it right).
FORMS = [
    (algorithm, order)
    for algorithm in ALGORITHMS
    for order in (1, 2, 3)
    if not (algorithm.startswith("sde") and order == 3)
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
@pytest.mark.parametrize(("algorithm", "order"), FORMS)
@pytest.mark.parametrize("prediction", TYPES)
def test_dpm_solver(prediction, algorithm, order, variant, steps):
    final = "zero" if algorithm.endswith("++") else "sigma_min"
    scheduler, process, model = made(
        diffusers.DPMSolverMultistepScheduler,
        steps,
        prediction,
        algorithm_type=algorithm,
        solver_order=order,
        solver_type=variant,
        final_sigmas_type=final,
    )
    solver = DPMSolver(
        order, variant=variant, lower_order_final=steps < 15, **ALGORITHMS[algorithm]
    )
    plan = solver.plan(process, prediction, skipping(process, steps, final))
    assert_same(ours(model, plan, x_double()), theirs(model, scheduler, x_double()))


@pytest.mark.parametrize("steps", [4, 20, 49, 50, 51])
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
@pytest.mark.parametrize(
    ("algorithm", "order"), [*FORMS[:-2], ("sde-dpmsolver++", 3)], ids=lambda v: str(v)
)
def test_dpm_solver_singlestep(algorithm, order, variant, steps):
    if (algorithm, order, variant) == ("sde-dpmsolver++", 3, "heun"):
        variant = "midpoint"  # the other has the slip of sign
    final = "sigma_min" if algorithm == "dpmsolver" else "zero"
    scheduler, process, model = made(
        diffusers.DPMSolverSinglestepScheduler,
        steps,
        algorithm_type=algorithm,
        solver_order=order,
        solver_type=variant,
        final_sigmas_type=final,
        lower_order_final=True,
    )
    solver = DPMSolverGrouped(
        order, variant=variant, lower_order_final=True, **ALGORITHMS[algorithm]
    )
    plan = solver.plan(process, "eps", skipping(process, steps, final))
    assert_same(ours(model, plan, x_double()), theirs(model, scheduler, x_double()))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("kind", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction", TYPES)
def test_unipc(prediction, order, kind, form, steps):
    # Theirs is NaN for bh1 (0 times infinity) where it ends in clean data.
    final = "zero" if form == "data" and kind == "bh2" else "sigma_min"
    scheduler, process, model = made(
        diffusers.UniPCMultistepScheduler,
        steps,
        prediction,
        solver_order=order,
        solver_type=kind,
        predict_x0=form == "data",
        disable_corrector=[2],
        final_sigmas_type=final,
    )
    solver = UniPC(order, kind, form, lower_order_final=True, disable_corrector=(2,))
    plan = solver.plan(process, prediction, skipping(process, steps, final))
    assert_same(ours(model, plan, x_double()), theirs(model, scheduler, x_double(), draws=False))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("corrector", [1, 2, 3, 4])
def test_sa_solver(predictor, corrector, steps):
    scheduler, process, model = made(
        diffusers.SASolverScheduler,
        steps,
        predictor_order=predictor,
        corrector_order=corrector,
    )
    solver = SASolver(
        predictor,
        corrector,
        tau=lambda time: float(200 <= time <= 800),
        lower_order_final=True,
    )
    plan = solver.plan(process, "eps", skipping(process, steps, "sigma_min"))
    assert_same(ours(model, plan, x_double()), theirs(model, scheduler, x_double()))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction", TYPES)
def test_deis(prediction, order, steps):
    scheduler, process, model = made(
        diffusers.DEISMultistepScheduler, steps, prediction, solver_order=order
    )
    solver = DEIS(order, lower_order_final=steps < 15)
    times = torch.cat([skipping(process, steps)[:-1], torch.zeros(1)])
    plan = solver.plan(process, prediction, times)
    assert_same(ours(model, plan, x_double()), theirs(model, scheduler, x_double(), draws=False))


@pytest.mark.parametrize("steps", [5, 20, 50])
@pytest.mark.parametrize("runge_kutta", [False, True])
def test_pndm(runge_kutta, steps):
    # Theirs mixes the model's raw outputs, ours noise estimates: equal for a model that gives those.
    scheduler, process, model = made(
        diffusers.PNDMScheduler,
        steps,
        skip_prk_steps=not runge_kutta,
        set_alpha_to_one=True,
    )
    plan = PNDM(runge_kutta).plan(process, "eps", leading(process, steps))
    peer, state = theirs(model, scheduler, x_double(), draws=False)
    kept = peer[3:12:4] + peer[12:] if runge_kutta else peer[1:]
    assert_same(ours(model, plan, x_double()), (kept, state))


# Those whose sample is x / alpha: compared after the step has scaled it back.


def assert_same_scaled(process, plan, mine, peer, calls=1, bound=1e-10):
    alphas = [process.alpha(t).item() for t in plan.times]
    last = [peer[0][-1]] if calls == 2 else []
    kept = (peer[0][1::2] if calls == 2 else peer[0]) + last
    scaled = [alpha * x for alpha, x in zip(alphas[1:], kept, strict=True)]
    assert_same(mine, (scaled, peer[1]), bound)


SCALED = {
    "euler": (diffusers.EulerDiscreteScheduler, Euler(), {}, 1),
    "heun": (diffusers.HeunDiscreteScheduler, Heun(), {}, 2),
    "lms": (diffusers.LMSDiscreteScheduler, LMS(), {}, 1),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, EulerAncestral(), {}, 1),
    "dpm_2_ancestral": (diffusers.KDPM2AncestralDiscreteScheduler, DPM2(1.0), {}, 2),
    "dpm_2": (diffusers.KDPM2DiscreteScheduler, DPM2(), {}, 2),
}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_samplers_of_k_diffusion(prediction, name, steps):
    peer, solver, options, calls = SCALED[name]
    scheduler, process, model = made(
        peer, steps, prediction, timestep_spacing="trailing", **options
    )
    plan = solver.plan(process, prediction, trailing(process, steps))
    alpha = process.alpha(plan.times[0])
    draws = name.endswith("ancestral")
    raw = theirs(model, scheduler, x_double() / alpha, draws)
    mine = ours(model, plan, x_double())
    assert_same_scaled(process, plan, mine, raw, calls)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("prediction", TYPES)
def test_ddpm(prediction, clip, variance, steps):
    scheduler, process, model = made(
        diffusers.DDPMScheduler,
        steps,
        prediction,
        clip_sample=clip,
        variance_type=f"fixed_{variance}",
    )
    solver = DDPM(variance, clip=1.0) if clip else DDPM(variance)
    plan = solver.plan(process, prediction, leading(process, steps))
    assert_same(ours(model, plan, x_double()), theirs(model, scheduler, x_double()))


@pytest.mark.parametrize("steps", STEPS)
def test_ddpm_with_a_learned_variance(steps):
    scheduler, process, model = made(
        diffusers.DDPMScheduler, steps, clip_sample=True, variance_type="learned_range"
    )

    def twice(x, t):
        return torch.cat([model(x, t), torch.sin(3 * x)], dim=1)

    plan = DDPM("learned_range", clip=1.0).plan(process, "eps", leading(process, steps))
    assert_same(ours(twice, plan, x_double()), theirs(twice, scheduler, x_double()))


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("prediction", TYPES)
def test_lcm(prediction, steps):
    scheduler, process, model = made(diffusers.LCMScheduler, steps, prediction)
    times = torch.cat([scheduler.timesteps.double(), torch.tensor([-1.0])])
    plan = Consistency(sigma_data=0.5).plan(process, prediction, times)
    assert_same(ours(model, plan, x_double()), theirs(model, scheduler, x_double()))


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("prediction", TYPES)
def test_tcd(prediction, gamma, steps):
    scheduler, process, model = made(diffusers.TCDScheduler, steps, prediction)
    times = torch.cat([scheduler.timesteps.double(), torch.zeros(1)])
    plan = TCD(gamma).plan(process, prediction, times)
    assert_same(ours(model, plan, x_double()), theirs(model, scheduler, x_double(), eta=gamma))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", TYPES)
def test_cogvideox(prediction, steps):
    scheduler, process, model = made(diffusers.CogVideoXDPMScheduler, steps, prediction)
    plan = CogVideoXDPM().plan(process, prediction, leading(process, steps))
    generator, x, old, peer = torch.Generator().manual_seed(3), x_double(), None, []
    times = [*scheduler.timesteps.tolist()]
    for i, t in enumerate(times):
        back = times[i - 1] if i > 0 else None
        output = model(x, t)
        x, old = scheduler.step(output, old, t, back, x, generator=generator, return_dict=False)
        peer.append(x)
    assert_same(ours(model, plan, x_double()), (peer, generator.get_state()))
