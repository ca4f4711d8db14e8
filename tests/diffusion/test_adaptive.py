"""Adaptive steps, likelihood and AMED on a mixture whose density and flow are known."""

import math

import pytest
import torch
from mixture import MEANS, STDS, WEIGHTS, exact_denoiser, ode_solution

from suffuse.diffusion import (
    AMED,
    DPM2,
    EDM,
    PREDICTIONS,
    VP,
    AMEDPredictor,
    ClassifierFree,
    Euler,
    Flow,
    StepControl,
    dpm_adaptive,
    edm_preconditioned,
    karras,
    log_likelihood,
    sample,
    sample_adaptive,
    train_amed,
)
from suffuse.diffusion.ode import dormand_prince

HIGH, LOW = 10.0, 0.1
PROCESSES = [EDM(), VP(), Flow()]


def points(count=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return HIGH * torch.randn(count, 2, dtype=torch.float64, generator=generator)


def time_at(process, ratio):
    return float(process.time_of(-math.log(ratio)))


def test_dormand_prince_on_equations_with_known_solutions():
    y, _ = dormand_prince(lambda y, t: -2 * t * y, torch.ones(3, dtype=torch.float64), 0.0, 2.0)
    torch.testing.assert_close(y, torch.full_like(y, math.exp(-4)), rtol=1e-3, atol=1e-5)
    found = []
    for tolerance in (1e-4, 1e-7, 1e-10):
        start = torch.tensor([1.0, 0.0], dtype=torch.float64)
        y, calls = dormand_prince(
            lambda y, t: torch.stack([y[1], -y[0]]),
            start,
            0.0,
            10.0,
            rtol=tolerance,
            atol=tolerance,
        )
        exact = torch.tensor([math.cos(10), -math.sin(10)], dtype=torch.float64)
        found.append(((y - exact).norm().item(), calls))
    assert found[0][0] < 1e-2 and found[1][0] < 1e-5 and found[2][0] < 1e-8
    # Order 5: a thousandth of the error for four times the calls.
    assert 2 < found[2][1] / found[1][1] < 6
    zero, _ = dormand_prince(lambda y, t: torch.ones_like(y), torch.zeros(2), 0.0, 3.0)
    torch.testing.assert_close(zero, torch.full((2,), 3.0))
    back, _ = dormand_prince(
        lambda y, t: y, torch.ones(1, dtype=torch.float64), 1.0, 0.0, rtol=1e-8
    )
    assert back.item() == pytest.approx(math.exp(-1), rel=1e-5)
    with pytest.raises(RuntimeError, match="not finite near"):
        dormand_prince(lambda y, t: y * math.nan if t > 0.5 else y, torch.ones(1), 0.0, 1.0)
    with pytest.raises(RuntimeError, match="in 3 steps"):
        dormand_prince(lambda y, t: y, torch.ones(1), 0.0, 100.0, most=3)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_adaptive_sampling_follows_the_flow(process):
    start, end = time_at(process, HIGH), time_at(process, LOW)
    x, kind = points(), PREDICTIONS["v"]
    denoiser, solution = exact_denoiser(process, kind), ode_solution(x, HIGH, LOW)
    found = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        y, calls = sample_adaptive(
            denoiser, x * process.alpha(start), process, kind, start=start, end=end, denoise=False,
            rtol=tolerance, atol=tolerance,
        )  # fmt: skip
        found.append(((y / process.alpha(end) - solution).norm(dim=1).mean().item(), calls))
    assert found[0][0] < 2e-2 and found[1][0] < 2e-4 and found[2][0] < 5e-6
    assert found[0][1] < found[1][1] < found[2][1] < 400


def test_adaptive_sampling_is_guided_scales_inputs_and_denoises():
    kind, process = edm_preconditioned(0.5), EDM()

    def network(x, t, y):
        assert t.shape == (64,)
        return torch.tanh(x) + y * torch.cos(t)[:, None]

    guided = ClassifierFree(network, {"y": 1.0}, {"y": 0.0}, 2.0, batched=False)
    options = {"start": 10.0, "end": 0.01, "rtol": 1e-8, "atol": 1e-8}
    found, _ = sample_adaptive(guided, points(), process, kind, **options)
    times = torch.cat([karras(process, 400, sigma_min=0.01, sigma_max=10.0), torch.zeros(0)])
    expected = sample(guided, points(), DPM2().plan(process, kind, times))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="expected alpha and sigma > 0"):
        sample_adaptive(guided, points(), process, kind, end=0.0)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_dpm_adaptive_errors_follow_the_tolerance(process, order):
    start, end = time_at(process, HIGH), time_at(process, LOW)
    kind, x = PREDICTIONS["v"], points()
    denoiser, solution = exact_denoiser(process, kind), ode_solution(x, HIGH, LOW)
    found = []
    for tolerance in (0.05, 0.0005):
        y, info = dpm_adaptive(
            denoiser, x * process.alpha(start), process, kind, start=start, end=end, order=order,
            rtol=tolerance, atol=tolerance / 6, control=StepControl(h=0.5),
        )  # fmt: skip
        found.append(((y / process.alpha(end) - solution).norm(dim=1).mean().item(), info))
    assert found[0][0] < 0.1 and found[1][0] < 0.01 * order / 2 and found[1][0] < found[0][0] / 5
    for _, info in found:
        assert info["nfe"] == order * info["steps"]
        assert info["steps"] == info["n_accept"] + info["n_reject"]
    with pytest.raises(ValueError, match="order is 4, expected 2 or 3"):
        dpm_adaptive(denoiser, x, process, kind, start=start, end=end, order=4)
    with pytest.raises(ValueError, match="eta = 0 from data to noise"):
        dpm_adaptive(denoiser, x, process, kind, start=end, end=start, eta=1.0)


def log_density(x, sigma):
    variance = STDS**2 + sigma**2
    square = ((x[:, None] - MEANS) ** 2).sum(-1)
    log_p = WEIGHTS.log() - torch.log(2 * math.pi * variance) - 0.5 * square / variance
    return torch.logsumexp(log_p, 1)


@pytest.mark.parametrize(
    "process", [EDM(5000.0), VP(beta_max=30.0), Flow()], ids=lambda p: type(p).__name__
)
def test_likelihood_of_the_mixture(process):
    x = MEANS.repeat(4, 1) + 0.4 * torch.randn(12, 2, generator=torch.Generator().manual_seed(1))
    low = 0.01
    start = time_at(process, low)
    kind = PREDICTIONS["flow"]  # finite also where alpha is 0
    alpha = process.alpha(start)

    def denoiser(y, t):
        if process.alpha(t[0]) == 0:
            mean = (WEIGHTS[:, None] * MEANS).sum(0)
            return y - mean
        return exact_denoiser(process, kind)(y, t)

    result = log_likelihood(
        denoiser, alpha * x, process, kind, start=start, rtol=1e-7, atol=1e-7
    )  # fmt: skip
    expected = log_density(x, low) - 2 * alpha.log()
    assert (result.log_prob - expected).abs().max() < 1e-3
    bits = result.bits_per_dim()
    torch.testing.assert_close(bits, -result.log_prob / (2 * math.log(2)))
    std = float(process.sigma(process.t_max))
    assert 0.3 * std < result.latent.std() < 3 * std


def test_estimated_traces_have_the_exact_mean():
    x, kind = MEANS + 0.1, PREDICTIONS["sample"]
    options = {"start": 0.01, "end": 100.0, "rtol": 1e-6, "atol": 1e-6}
    denoiser = exact_denoiser(EDM(), kind)
    exact = log_likelihood(denoiser, x, EDM(), kind, **options)
    # In two dimensions the probes (1, 1) and (1, -1) together give the exact trace.
    many = log_likelihood(
        denoiser, x.repeat(64, 1), EDM(), kind, probes=2,
        generator=torch.Generator().manual_seed(0), **options,
    )  # fmt: skip
    found = many.log_prob.reshape(64, 3)
    error = found.std(0) / 8
    assert (found.mean(0) - exact.log_prob).abs().max() < 4 * error.max() + 1e-4
    assert error.max() > 1e-4
    with pytest.raises(ValueError, match="probes is 0"):
        log_likelihood(denoiser, x, EDM(), kind, probes=0, start=0.01)
    with pytest.raises(ValueError, match="sigma > 0 at the start"):
        log_likelihood(denoiser, x, EDM(), kind, start=0.0)


def mixture_denoiser(process, kind):
    """Like `exact_denoiser`, for times that differ by sample."""

    def denoiser(x, t):
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        y, variance = x / alpha, STDS**2 + (sigma / alpha) ** 2
        offset = y[:, None] - MEANS
        log_p = WEIGHTS.log() - variance.log() - 0.5 * (offset**2).sum(-1) / variance
        estimate = MEANS + (STDS**2 / variance)[..., None] * offset
        data = (torch.softmax(log_p, 1)[..., None] * estimate).sum(1)
        weights = kind.target(alpha, sigma)
        return weights[0] * data + weights[1] * (x - alpha * data) / sigma

    return denoiser


@pytest.mark.parametrize("process", [EDM(), VP()], ids=lambda p: type(p).__name__)
def test_untrained_amed_is_dpm2(process):
    kind = PREDICTIONS["v"]
    times = karras(process, 5, sigma_min=LOW, sigma_max=HIGH)
    solver = AMED(mixture_denoiser(process, kind), process, kind, AMEDPredictor().double())
    x = process.alpha(times[0]) * points()
    expected = sample(mixture_denoiser(process, kind), x, DPM2().plan(process, kind, times))
    torch.testing.assert_close(solver.sample(x, times), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", [EDM(), Flow()], ids=lambda p: type(p).__name__)
def test_amed_learns_better_steps(process):
    torch.manual_seed(0)
    kind = PREDICTIONS["flow"]
    times = karras(process, 4, sigma_min=LOW, sigma_max=HIGH, clean=False)
    first, last = process.alpha(times[0]), process.alpha(times[-1])
    denoiser = mixture_denoiser(process, kind)
    predictor = AMEDPredictor().double()
    solver = AMED(denoiser, process, kind, predictor)
    x, solution = points(256), ode_solution(points(256), HIGH, LOW)

    def error(y):
        return (y / last - solution).norm(dim=1).mean().item()

    before = error(solver.sample(first * x, times))
    generator = torch.Generator().manual_seed(5)

    def start():
        z = torch.randn(128, 2, dtype=torch.float64, generator=generator)
        return first * HIGH * z

    losses = train_amed(solver, times, start, iterations=100)
    after = error(solver.sample(first * x, times))
    assert sum(losses[-20:]) < sum(losses[:20])
    assert after < 0.6 * before
    eight = karras(process, 8, sigma_min=LOW, sigma_max=HIGH, clean=False)
    assert after < 0.6 * error(sample(denoiser, first * x, Euler().plan(process, kind, eight)))
    with pytest.raises(TypeError, match="predictor is function, expected a Module"):
        train_amed(AMED(denoiser, process, kind, lambda f, s, t: f), times, start, iterations=1)


def test_amed_takes_guidance_and_ends_in_clean_data():
    kind = edm_preconditioned(0.5)
    guided = ClassifierFree(
        lambda x, t, y: torch.tanh(x) + y * t.cos()[:, None],
        {"y": 1.0},
        {"y": 0.0},
        2.0,
        batched=False,
    )
    times = karras(EDM(), 4, sigma_min=LOW, sigma_max=HIGH)
    solver = AMED(guided, EDM(), kind, AMEDPredictor().double())
    expected = sample(guided, points(), DPM2().plan(EDM(), kind, times))
    torch.testing.assert_close(solver.sample(points(), times), expected, rtol=1e-9, atol=1e-9)
