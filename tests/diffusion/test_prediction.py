"""Every kind of prediction on every process: round trips in float64, finiteness at the ends."""

import pytest
import torch

from suffuse.diffusion import (
    EDM,
    PREDICTIONS,
    VE,
    VP,
    Cosine,
    DiscreteVE,
    DiscreteVP,
    Flow,
    SubVP,
    converted_prediction,
    edm_preconditioned,
    exponential_sigmas,
    linear_betas,
    predicted_data,
    predicted_noise,
    prediction_target,
    zero_terminal_snr,
)
from suffuse.diffusion.prediction import as_prediction

ZERO_SNR = DiscreteVP.from_betas(zero_terminal_snr(linear_betas()))
CHAIN = DiscreteVP.from_betas(linear_betas())
GEOMETRIC = DiscreteVE(exponential_sigmas(50, 0.01, 50.0).flip(0))
PROCESSES = [VP(), SubVP(), VE(), Flow(), EDM(), Cosine(), CHAIN, ZERO_SNR, GEOMETRIC]
KINDS = [*PREDICTIONS.values(), edm_preconditioned(0.7)]


def name(value):
    return getattr(value, "name", None) or type(value).__name__


def pair(batch):
    return torch.randn(2, batch, 5, 3, dtype=torch.float64).unbind(0)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_target_gives_back_data_and_noise(process, kind):
    t = process.t_max * torch.tensor([0.01, 0.3, 0.8, 0.97], dtype=torch.float64)
    x0, noise = pair(4)
    x = process.add_noise(x0, noise, t)
    target = prediction_target(kind, process, x0, noise, t)
    data = predicted_data(kind, process, x, target, t)
    back = predicted_noise(kind, process, x, target, t)
    torch.testing.assert_close(data, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back, noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
@pytest.mark.parametrize("target", KINDS, ids=name)
@pytest.mark.parametrize("source", KINDS, ids=name)
def test_every_kind_is_converted_to_every_other(source, target, process):
    t = process.t_max * torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64)
    x0, noise = pair(3)
    x = process.add_noise(x0, noise, t)
    output = prediction_target(source, process, x0, noise, t)
    wanted = prediction_target(target, process, x0, noise, t)
    converted = converted_prediction(source, target, process, x, output, t)
    torch.testing.assert_close(converted, wanted, rtol=1e-8, atol=1e-8)


def test_a_wrong_output_is_converted_consistently():
    # Of an output that is no clean target, the estimates stay the same in every kind.
    process, t = VP(), torch.tensor([0.4, 0.7], dtype=torch.float64)
    x, output = pair(2)
    data = predicted_data("v", process, x, output, t)
    for kind in KINDS:
        other = converted_prediction("v", kind, process, x, output, t)
        torch.testing.assert_close(predicted_data(kind, process, x, other, t), data)


@pytest.mark.parametrize(
    "kind", [PREDICTIONS["sample"], PREDICTIONS["v"], KINDS[3], KINDS[-1]], ids=name
)
@pytest.mark.parametrize("process", [Flow(), ZERO_SNR], ids=name)
def test_pure_noise_has_finite_estimates(kind, process):
    t = torch.full((2,), process.t_max, dtype=torch.float64)
    assert (process.alpha(t) == 0).all()
    x0, noise = pair(2)
    x = process.add_noise(x0, noise, t)
    target = prediction_target(kind, process, x0, noise, t)
    torch.testing.assert_close(predicted_data(kind, process, x, target, t), x0)
    torch.testing.assert_close(predicted_noise(kind, process, x, target, t), noise)


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
def test_clean_data_have_finite_estimates(kind):
    t = torch.zeros(2, dtype=torch.float64)
    x0, noise = pair(2)
    target = prediction_target(kind, Flow(), x0, noise, t)
    torch.testing.assert_close(predicted_data(kind, Flow(), x0, target, t), x0)
    torch.testing.assert_close(predicted_noise(kind, Flow(), x0, target, t), noise)


def test_targets_are_the_textbook_ones():
    process, t = VP(), torch.tensor([0.4], dtype=torch.float64)
    alpha, sigma = process.alpha(t).item(), process.sigma(t).item()
    x0, noise = pair(1)
    expected = {
        "eps": noise,
        "sample": x0,
        "v": alpha * noise - sigma * x0,
        "flow": noise - x0,
        "score": -noise / sigma,
    }
    assert expected.keys() == PREDICTIONS.keys()
    for kind, value in expected.items():
        target = prediction_target(kind, process, x0, noise, t)
        torch.testing.assert_close(target, value, rtol=1e-13, atol=1e-13)


def test_score_is_the_gradient_of_the_gaussian_log_density():
    process, t = VE(), torch.tensor([0.3], dtype=torch.float64)
    x0, noise = pair(1)
    x = process.add_noise(x0, noise, t).requires_grad_()
    log_p = -((x - process.alpha(t) * x0) ** 2).sum() / (2 * process.sigma(t) ** 2)
    (gradient,) = torch.autograd.grad(log_p, x)
    target = prediction_target("score", process, x0, noise, t)
    torch.testing.assert_close(target, gradient, rtol=1e-10, atol=1e-10)


def test_edm_preconditioning_is_table_1_of_the_paper():
    d, sigma = 0.5, torch.tensor(1.7, dtype=torch.float64)
    kind, one = edm_preconditioned(d), torch.ones((), dtype=torch.float64)
    total = sigma**2 + d**2
    c_skip, c_out = d**2 / total, sigma * d / total.sqrt()
    data = torch.stack(kind.data(one, sigma))
    torch.testing.assert_close(data, torch.stack([c_skip, c_out]), rtol=1e-14, atol=0)
    torch.testing.assert_close(kind.input_scale(one, sigma), 1 / total.sqrt(), rtol=1e-14, atol=0)
    torch.testing.assert_close(kind.model_time(one, sigma), sigma.log() / 4, rtol=1e-14, atol=0)


@pytest.mark.parametrize("process", [EDM(), VP(), Flow()], ids=name)
def test_edm_input_and_target_have_unit_variance(process):
    kind, t = edm_preconditioned(0.5), torch.tensor(0.6, dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    scale = kind.input_scale(alpha, sigma)
    on_data, on_noise = kind.target(alpha, sigma)
    assert (scale**2 * ((0.5 * alpha) ** 2 + sigma**2)).item() == pytest.approx(1, rel=1e-12)
    assert ((0.5 * on_data) ** 2 + on_noise**2).item() == pytest.approx(1, rel=1e-12)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="prediction is 'epsilon', expected one of eps, sample"):
        as_prediction("epsilon")
    with pytest.raises(ValueError, match="sigma_data is 0"):
        edm_preconditioned(0)
