"""Solvers with noise reach the distribution of the data: moments and kernel distance of a mixture."""

import math

import pytest
import torch
from mixture import MEANS, STDS, WEIGHTS, exact_denoiser

from suffuse.diffusion import (
    DDIM,
    DDPM,
    DPM2,
    EDM,
    PREDICTIONS,
    VP,
    Churn,
    Consistency,
    DPMSolver,
    DPMSolverSDE,
    DPMSolverSinglestep,
    Euler,
    EulerAncestral,
    Flow,
    Heun,
    Langevin,
    PredictorCorrector,
    ReverseSDE,
    SASolver,
    karras,
    sample,
)

COUNT = 3000
FLOOR = 1.5e-3
MEAN = (WEIGHTS[:, None] * MEANS).sum(0)
SECOND = (WEIGHTS[:, None] * (MEANS**2 + STDS[:, None] ** 2)).sum(0)


def data(count, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
    z = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return MEANS[parts] + STDS[parts, None] * z


def kernel_distance(x, y):
    """Maximum mean discrepancy (squared) with a Gaussian kernel of width 1 / 2, unbiased."""

    def total(a, b):
        return torch.exp(-2.0 * torch.cdist(a, b) ** 2).sum()

    n, m = len(x), len(y)
    own = (total(x, x) - n) / (n * (n - 1)) + (total(y, y) - m) / (m * (m - 1))
    return (own - 2 * total(x, y) / (n * m)).item()


SOLVED = {
    "ddim": (DDIM(eta=1.0), EDM(20.0)),
    "ddpm": (DDPM(), VP()),
    "ddpm_large": (DDPM("large"), VP()),
    "euler_ancestral": (EulerAncestral(), EDM(20.0)),
    "euler_ancestral_half": (EulerAncestral(eta=0.5), VP()),
    "euler_ancestral_rectified": (EulerAncestral(rectified=True), Flow()),
    "euler_churn": (Euler(Churn(amount=40.0, high=5.0)), EDM(20.0)),
    "heun_churn": (Heun(Churn(amount=40.0, high=5.0)), EDM(20.0)),
    "dpm_2_ancestral": (DPM2(eta=1.0), EDM(20.0)),
    "dpm_2_ancestral_flow": (DPM2(eta=1.0), Flow()),
    "2s_ancestral": (DPMSolverSinglestep(eta=1.0), VP()),
    "dpmpp_sde": (DPMSolverSDE(), EDM(20.0)),
    "dpmpp_sde_half": (DPMSolverSDE(eta=0.5), Flow()),
    "2m_sde": (DPMSolver(eta=1.0), VP()),
    "2m_sde_noise": (DPMSolver(eta=0.5, form="noise"), EDM(20.0)),
    "3m_sde": (DPMSolver(3, eta=1.0), EDM(20.0)),
    "sa_solver": (SASolver(tau=1.0), VP()),
    "sa_solver_3_4": (SASolver(3, 4, tau=lambda t: float(0.2 < t < 2)), EDM(20.0)),
    "reverse_sde": (ReverseSDE(), VP()),
    "reverse_sde_twice": (ReverseSDE(strength=2.0), EDM(20.0)),
    "reverse_sde_flow": (ReverseSDE(diffusion="sigma"), Flow()),
    "predictor_corrector": (PredictorCorrector(snr=0.1), EDM(20.0)),
}


@pytest.mark.parametrize("name", SOLVED)
def test_the_samples_have_the_law_of_the_data(name):
    solver, process = SOLVED[name]
    low, steps = (
        0.02,
        160 if name.startswith(("reverse", "predictor", "ddpm_large", "euler_churn")) else 80,
    )
    times = karras(process, steps, sigma_min=low, sigma_max=20.0)
    start = float(process.sigma(times[0]))
    generator = torch.Generator().manual_seed(1)
    x = start * torch.randn(COUNT, 2, dtype=torch.float64, generator=generator)
    kind = PREDICTIONS["v"]
    denoiser = exact_denoiser(process, kind)
    got = sample(denoiser, x, solver.plan(process, kind, times), generator=generator)
    # Four standard errors of means over COUNT numbers of this spread, and a step error.
    assert (got.mean(0) - MEAN).abs().max() < 4 * 1.3 / math.sqrt(COUNT) + 0.02
    assert (got.square().mean(0) / SECOND - 1).abs().max() < 0.1
    assert kernel_distance(got, data(COUNT, 4)) < FLOOR


def test_the_kernel_distance_tells_a_wider_mixture():
    assert abs(kernel_distance(data(COUNT, 2), data(COUNT, 3))) < FLOOR / 2
    assert kernel_distance(data(COUNT, 5) * 1.15, data(COUNT, 4)) > FLOOR


def test_langevin_reaches_the_data_from_anywhere():
    process = EDM(3.0)
    times = karras(process, 12, sigma_min=0.1, sigma_max=3.0)
    generator = torch.Generator().manual_seed(1)
    x = torch.zeros(4000, 2, dtype=torch.float64)
    plan = Langevin(step_size=2e-3, repeats=40).plan(process, "score", times)
    denoiser = exact_denoiser(process, PREDICTIONS["score"])
    got = sample(denoiser, x, plan, generator=generator)
    assert kernel_distance(got, data(4000, 4)) < 5e-3
    assert plan.calls == 12 * 40 + 1


def test_consistency_needs_the_data_itself():
    """With a model that knows x0, one step and several end there."""
    point = torch.tensor([0.3, -2.0])
    for count in (1, 4):
        times = torch.linspace(1, 0, count + 1)
        plan = Consistency().plan(Flow(), "sample", times)
        got = sample(lambda x, t: point.expand_as(x), torch.randn(4, 2), plan, seed=1)
        torch.testing.assert_close(got, point.expand(4, 2))


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_noise_of_two_legs_is_of_one_path(eta):
    """For Gaussian data the model is linear: the correlated form has the smaller error of variance."""
    s, found = 0.5, {}
    for correlated in (True, False):
        solver = DPMSolverSDE(eta=eta, correlated=correlated)
        times = karras(EDM(), 24, sigma_min=0.05, sigma_max=20.0, clean=False)
        variance = 20.0**2 + s**2
        stages = solver.plan(EDM(), "sample", times).stages
        for first, second in zip(stages[::2], stages[1::2], strict=True):
            gain = [s**2 / (s**2 + stage.time**2) for stage in (first, second)]
            mid = first.x + first.data * gain[0]
            late = second.x + second.data * gain[1]
            whole = second.anchor + second.history[0] * gain[0] + late * mid
            variance = whole**2 * variance + (late * first.noise) ** 2 + second.noise**2
        found[correlated] = abs(variance - (s**2 + 0.05**2))
    assert found[True] < 0.5 * found[False]
