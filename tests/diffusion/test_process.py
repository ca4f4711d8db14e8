"""The processes: closed forms, inverses, the SDE of each, tables of betas, wrong arguments."""

import math

import pytest
import torch

from suffuse.diffusion import (
    EDM,
    VE,
    VP,
    DiscreteVP,
    Flow,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    starting_noise,
    zero_terminal_snr,
)

LINEAR = DiscreteVP.from_betas(linear_betas())
ZERO_SNR = DiscreteVP.from_betas(zero_terminal_snr(linear_betas()))
PROCESSES = [VP(), VE(), Flow(), EDM(), LINEAR, ZERO_SNR]
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
    if isinstance(process, DiscreteVP):
        t = torch.cat([t, t.new_tensor([-0.4, 998.6])])  # the intervals at the ends
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


@pytest.mark.parametrize("process", [VP(), LINEAR, ZERO_SNR], ids=ids)
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


def test_betas():
    assert linear_betas(10, 0.1, 0.2)[[0, -1]].tolist() == pytest.approx([0.1, 0.2])
    root = scaled_linear_betas(5, 0.04, 0.16).sqrt()
    torch.testing.assert_close(root.diff(), torch.full((4,), 0.05, dtype=torch.float64))
    cosine = cosine_betas(1000)
    assert cosine.max() == 0.999
    kept = torch.cumprod(1 - cosine, 0)[499].item()
    wanted = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2
    assert kept == pytest.approx(wanted / math.cos(0.008 / 1.008 * math.pi / 2) ** 2, rel=1e-9)
    before = torch.cumprod(1 - linear_betas(), 0)
    after = torch.cumprod(1 - zero_terminal_snr(linear_betas()), 0)
    assert after[-1] == 0
    assert after[0].item() == pytest.approx(before[0].item(), rel=1e-12)


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
    if isinstance(process, DiscreteVP):
        assert torch.equal(t, t.round())
        assert t.unique().numel() == 1000


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
