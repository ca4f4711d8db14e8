"""Loss weights: the same loss whatever the model predicts, and the published formulas."""

import pytest
import torch
from diffusers.training_utils import compute_loss_weighting_for_sd3

from suffuse.diffusion import (
    EDM,
    PREDICTIONS,
    VP,
    Flow,
    SubVP,
    cosmap_weight,
    data_error_weight,
    denoising_loss,
    edm_preconditioned,
    edm_weight,
    inverse_variance_weight,
    min_snr_weight,
    noise_error_weight,
    p2_weight,
    predicted_data,
    predicted_noise,
)

KINDS = [*PREDICTIONS.values(), edm_preconditioned(0.5)]
T = torch.tensor([0.02, 0.1, 0.3, 0.6, 0.95])


def weighted_loss(kind, process, weight):
    x0, noise, output = torch.randn(3, 5, 4, 2).unbind(0)
    loss = denoising_loss(
        lambda x, t: output,
        x0,
        process=process,
        prediction=kind,
        t=T,
        noise=noise,
        weight=weight,
    )
    x = process.add_noise(x0, noise, T)
    data = predicted_data(kind, process, x, output, T)
    eps = predicted_noise(kind, process, x, output, T)
    error = ((data - x0) ** 2).mean((1, 2)), ((eps - noise) ** 2).mean((1, 2))
    return loss, *error, (process.alpha(T) / process.sigma(T)) ** 2


@pytest.mark.parametrize("process", [VP(), SubVP(), Flow()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_weights_are_of_the_error_of_data_or_noise(kind, process):
    def check(weight, on_data, on_noise):
        loss, data, eps, snr = weighted_loss(kind, process, weight)
        expected = (on_data(snr) * data + on_noise(snr) * eps).mean()
        torch.testing.assert_close(loss, expected, rtol=2e-3, atol=0)

    def none(snr):
        return torch.zeros_like(snr)

    check(data_error_weight(kind), torch.ones_like, none)
    check(noise_error_weight(kind), none, torch.ones_like)
    check(min_snr_weight(kind, gamma=5.0), lambda snr: snr.clamp(max=5.0), none)
    check(p2_weight(kind, gamma=0.5, k=2.0), none, lambda snr: (2 + snr) ** -0.5)
    check(edm_weight(kind, 0.5), lambda snr: (1 / snr + 0.25) / (0.25 / snr), none)


def test_edm_weight_of_the_preconditioned_network_is_1():
    sigma = torch.tensor([0.01, 0.5, 30.0], dtype=torch.float64)
    alpha = torch.ones_like(sigma)
    weight = edm_weight(edm_preconditioned(0.7), 0.7)(alpha, sigma)
    torch.testing.assert_close(weight, alpha, rtol=1e-12, atol=0)


def test_min_snr_of_eps_is_the_published_weight():
    process = VP()
    alpha, sigma = process.alpha(T), process.sigma(T)
    snr = (alpha / sigma) ** 2
    expected = torch.minimum(snr, torch.tensor(5.0)) / snr
    torch.testing.assert_close(min_snr_weight("eps")(alpha, sigma), expected)
    # Of v it is min(SNR, gamma) / (SNR + 1).
    torch.testing.assert_close(min_snr_weight("v")(alpha, sigma), snr.clamp(max=5) / (snr + 1))


@pytest.mark.parametrize(
    ("weight", "scheme"), [(cosmap_weight, "cosmap"), (inverse_variance_weight, "sigma_sqrt")]
)
def test_flow_weights_are_those_of_diffusers(weight, scheme):
    peer = compute_loss_weighting_for_sd3(scheme, sigmas=T)
    torch.testing.assert_close(weight(Flow().alpha(T), Flow().sigma(T)), peer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: min_snr_weight("v", gamma=-1.0), "min_snr_weight: gamma is -1.0"),
        (lambda: p2_weight("v", k=0.0), "p2_weight: k, gamma are 0.0, 1.0"),
        (lambda: p2_weight("v", gamma=-1.0), "expected k > 0 and gamma >= 0"),
        (lambda: edm_weight("v", 0.0), "edm_weight: sigma_data is 0.0"),
        (lambda: data_error_weight("x"), "prediction is 'x'"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_edm_process_is_weighted_by_sigma_itself():
    sigma = torch.tensor([0.3, 2.0])
    weight = edm_weight("sample", 0.5)(EDM().alpha(sigma), EDM().sigma(sigma))
    torch.testing.assert_close(weight, (sigma**2 + 0.25) / (0.5 * sigma) ** 2)
