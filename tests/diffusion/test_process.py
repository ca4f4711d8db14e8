"""The processes: closed forms, inverses, the SDE of each, tables of betas, wrong arguments."""

import math

import pytest
import torch

from suffuse.diffusion import (
    EDM,
    VE,
    VP,
    Cosine,
    DiscreteVE,
    DiscreteVP,
    Flow,
    SubVP,
    exponential_sigmas,
    linear_betas,
    scaled_linear_betas,
    starting_noise,
    zero_terminal_snr,
)

LINEAR = DiscreteVP.from_betas(linear_betas())
ZERO_SNR = DiscreteVP.from_betas(zero_terminal_snr(linear_betas()))
GEOMETRIC = DiscreteVE(exponential_sigmas(100, 0.01, 50.0).flip(0))
CONTINUOUS = [VP(), SubVP(), VE(), Flow(), EDM(), Cosine.for_size(256), Cosine.interpolated(128)]
PROCESSES = [*CONTINUOUS, LINEAR, ZERO_SNR, GEOMETRIC]
FRACTIONS = torch.tensor([0.003, 0.1, 0.37, 0.62, 0.9, 0.99], dtype=torch.float64)


def times(process):
    return FRACTIONS * process.t_max


def ids(process):
    return type(process).__name__


@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_time_of_inverts_lambda(process):
    t = times(process)
    torch.testing.assert_close(process.time_of(process.lam(t)), t, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_drift_and_diffusion_are_the_derivatives_of_alpha_and_lambda(process):
    t, h = times(process), 1e-7 * process.t_max
    if isinstance(process, DiscreteVP | DiscreteVE):
        t = torch.cat([t, t.new_tensor([-0.4, process.t_max - 0.4])])  # the intervals at the ends
    d_log_alpha = (process.alpha(t + h).log() - process.alpha(t - h).log()) / (2 * h)
    d_lam = (process.lam(t + h) - process.lam(t - h)) / (2 * h)
    g_squared = -2 * process.sigma(t) ** 2 * d_lam
    torch.testing.assert_close(process.drift(t), d_log_alpha, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(process.diffusion(t) ** 2, g_squared, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_clean_data_are_where_the_process_says(process):
    assert process.alpha(process.t_clean) == 1
    assert process.sigma(process.t_clean) == 0
    assert process.lam(process.t_clean) == math.inf


@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_moments_follow_the_sde(process):
    # dx = f x dt + g dw: d mean/dt = f mean and d var/dt = 2 f var + g^2, from a time near the data.
    start, end, steps = 0.01 * process.t_max, 0.9 * process.t_max, 20000
    if isinstance(process, EDM):
        start, end = 0.5, 3.0
    mean, var = process.alpha(start), process.sigma(start) ** 2
    grid = torch.linspace(start, end, 2 * steps + 1, dtype=torch.float64)
    f, g2 = process.drift(grid).tolist(), (process.diffusion(grid) ** 2).tolist()
    mean, var, h = mean.item(), var.item(), (end - start) / steps
    for i in range(0, 2 * steps, 2):  # midpoint rule
        half_mean = mean + 0.5 * h * f[i] * mean
        half_var = var + 0.5 * h * (2 * f[i] * var + g2[i])
        mean += h * f[i + 1] * half_mean
        var += h * (2 * f[i + 1] * half_var + g2[i + 1])
    assert mean == pytest.approx(process.alpha(end).item(), rel=1e-4)
    assert var == pytest.approx(process.sigma(end).item() ** 2, rel=1e-4)


@pytest.mark.parametrize(
    "process", [VP(), LINEAR, ZERO_SNR, Cosine(), Cosine.interpolated(64)], ids=ids
)
def test_variance_is_preserved(process):
    t = times(process)
    total = process.alpha(t) ** 2 + process.sigma(t) ** 2
    torch.testing.assert_close(total, torch.ones_like(t), rtol=1e-14, atol=0)


def test_vp_is_the_integral_of_its_betas():
    process, t = VP(0.3, 12.0), 0.7
    u = torch.linspace(0, t, 20001, dtype=torch.float64)
    integral = torch.trapezoid(0.3 + u * 11.7, u)
    assert process.alpha(t).item() == pytest.approx(math.exp(-0.5 * integral.item()), rel=1e-9)


def test_flow_edm_and_ve_closed_forms():
    assert (Flow().alpha(0.25), Flow().sigma(0.25)) == (0.75, 0.25)
    assert (EDM().alpha(3.0), EDM().sigma(3.0)) == (1.0, 3.0)
    assert VE(0.5, 8.0).sigma(0.5).item() == pytest.approx(2.0)


def test_discrete_chain_hits_its_table_and_keeps_the_dtype_of_times():
    table = torch.cumprod(1 - scaled_linear_betas(), 0)
    process = DiscreteVP(table)
    i = torch.arange(1000)
    alpha = process.alpha(i.double())
    torch.testing.assert_close(alpha**2, table, rtol=1e-13, atol=0)
    assert process.alpha(i).dtype == torch.float32
    assert process.alpha(i.half()).dtype == torch.float16


def test_discrete_chain_is_linear_in_lambda_between_integers():
    middle = 0.5 * (LINEAR.lam(400.0) + LINEAR.lam(401.0))
    assert LINEAR.lam(400.5).item() == pytest.approx(middle.item(), rel=1e-12)


def test_discrete_chain_is_finite_and_monotone_next_to_infinite_lambda():
    for low, high in ((-1.0, 0.0), (998.0, 999.0)):
        t = torch.linspace(low, high, 11, dtype=torch.float64)
        alpha, lam = ZERO_SNR.alpha(t), ZERO_SNR.lam(t)
        assert (alpha.diff() < 0).all()
        assert lam[1:-1].isfinite().all()
    assert ZERO_SNR.alpha(999.0) == 0
    assert ZERO_SNR.lam(999.0) == -math.inf


def test_sub_vp_is_the_published_sde():
    t = FRACTIONS
    integral = 0.1 * t + 0.5 * t**2 * 19.9
    alpha, beta = torch.exp(-0.5 * integral), 0.1 + 19.9 * t
    torch.testing.assert_close(SubVP().alpha(t), alpha, rtol=1e-13, atol=0)
    torch.testing.assert_close(SubVP().sigma(t), 1 - torch.exp(-integral), rtol=1e-12, atol=0)
    g_squared = beta * (1 - torch.exp(-2 * integral))
    torch.testing.assert_close(SubVP().diffusion(t) ** 2, g_squared, rtol=1e-12, atol=0)
    assert (SubVP().sigma(t) < VP().sigma(t)).all()


def test_discrete_ve_hits_its_table():
    sigmas = exponential_sigmas(100, 0.01, 50.0).flip(0)
    i = torch.arange(100)
    torch.testing.assert_close(GEOMETRIC.sigma(i.double()), sigmas, rtol=1e-13, atol=0)
    assert (GEOMETRIC.alpha(i) == 1).all()
    middle = GEOMETRIC.sigma(40.5).item()
    assert middle == pytest.approx(math.sqrt(sigmas[40] * sigmas[41]), rel=1e-12)
    assert GEOMETRIC.sigma(-0.5).item() == pytest.approx(0.005, rel=1e-3)


def half_logsnr(t, logsnr_max=15.0, logsnr_min=-15.0):
    low, high = math.atan(math.exp(-0.5 * logsnr_max)), math.atan(math.exp(-0.5 * logsnr_min))
    return -torch.log(torch.tan(low + t * (high - low)))


def test_cosine_runs_between_its_bounds_and_is_shifted_by_the_size():
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    plain = half_logsnr(t)
    assert (2 * plain[[0, -1]]).tolist() == pytest.approx([15, -15])
    torch.testing.assert_close(Cosine().lam(t), plain, rtol=1e-9, atol=1e-9)
    shifted = Cosine.for_size(256).lam(t)
    torch.testing.assert_close(shifted, plain + math.log(64 / 256), rtol=1e-9, atol=1e-9)
    between = Cosine.interpolated(256, noisy_base=32).lam(t)
    torch.testing.assert_close(between, plain + t * math.log(32 / 256), rtol=1e-9, atol=1e-9)
    wide = Cosine(logsnr_max=20.0, logsnr_min=-10.0).lam(t)
    torch.testing.assert_close(wide, half_logsnr(t, 20.0, -10.0), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_single_precision_times_give_single_precision_levels(process):
    t = times(process).float()
    for values in (process.alpha, process.sigma, process.drift, process.diffusion):
        assert values(t).dtype == torch.float32
        torch.testing.assert_close(values(t).double(), values(t.double()), rtol=2e-5, atol=1e-7)
    assert process.time_of(process.lam(t)).dtype == torch.float32


def test_averaged_pictures_have_the_noise_of_the_base_size():
    # Averaging 4 x 4 pixels divides the noise by 4 and keeps a constant picture.
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    large, base = Cosine.for_size(256), Cosine.for_size(64)
    ratio = large.sigma(t) / 4 / large.alpha(t)
    torch.testing.assert_close(ratio, base.sigma(t) / base.alpha(t), rtol=1e-9, atol=0)
    noise = torch.randn(1, 1, 1024, 1024, generator=torch.Generator().manual_seed(0))
    pooled = torch.nn.functional.avg_pool2d(noise, 4)
    assert pooled.std().item() == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("process", PROCESSES, ids=ids)
def test_random_times_are_training_times(process):
    t = process.random_times(20000, generator=torch.Generator().manual_seed(1))
    again = process.random_times(20000, generator=torch.Generator().manual_seed(1))
    assert t.dtype == torch.float32
    assert torch.equal(t, again)
    if isinstance(process, EDM):
        logs = t.log()
        assert logs.mean().item() == pytest.approx(-1.2, abs=0.03)
        assert logs.std().item() == pytest.approx(1.2, abs=0.03)
    else:
        assert (t >= 0).all()
        assert (t <= process.t_max).all()
        assert t.mean().item() == pytest.approx(0.5 * process.t_max, rel=0.02)
    if isinstance(process, DiscreteVP | DiscreteVE):
        assert torch.equal(t, t.round())
        assert t.unique().numel() == process.t_max + 1


def test_add_noise_is_the_weighted_sum_per_sample():
    x0, noise = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    t = torch.tensor([0.0, 0.25, 1.0])
    expected = torch.stack([x0[0], 0.75 * x0[1] + 0.25 * noise[1], noise[2]])
    torch.testing.assert_close(Flow().add_noise(x0, noise, t), expected, rtol=1e-6, atol=1e-7)
    assert Flow().add_noise(x0.bfloat16(), noise, t).dtype == torch.bfloat16


def test_starting_noise_has_the_noise_level():
    generator = torch.Generator().manual_seed(0)
    x = starting_noise(EDM(), (4, 5000), 80.0, generator=generator)
    assert x.std().item() == pytest.approx(80, rel=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP(0.0, 1.0), "VP: beta_min, beta_max are 0.0, 1.0"),
        (lambda: VP(2.0, 1.0), "expected 0 < beta_min <= beta_max"),
        (lambda: VE(1.0, 1.0), "VE: sigma_min, sigma_max are 1.0, 1.0"),
        (lambda: EDM(0.0), "EDM: t_max, log_std are 0.0"),
        (lambda: SubVP(0.0, 1.0), "SubVP: beta_min, beta_max are 0.0, 1.0"),
        (lambda: Cosine(logsnr_min=20.0), "logsnr_max, logsnr_min are 15.0, 20.0"),
        (lambda: Cosine(logsnr_max=math.inf), "expected finite numbers"),
        (lambda: Cosine(0.0, 20.0), "noisy_shift - clean_shift is 20"),
        (lambda: DiscreteVE(torch.tensor([1.0, 0.5])), "must increase"),
        (lambda: DiscreteVE(torch.tensor([0.0, 0.5])), "must increase from above 0"),
        (lambda: DiscreteVE(torch.ones(2, 2)), r"sigmas has shape \(2, 2\)"),
        (lambda: DiscreteVP(torch.ones(2, 2)), r"alphas_cumprod has shape \(2, 2\)"),
        (lambda: DiscreteVP(torch.tensor([0.5, 0.6])), "must decrease"),
        (lambda: DiscreteVP(torch.tensor([math.nan])), "must decrease"),
        (
            lambda: Flow().add_noise(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2)),
            r"noise has shape \(2, 4\), expected \(2, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
