"""The variational bound: its terms, its value on data of known likelihood, what it trains."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from suffuse.diffusion import (
    VP,
    DiscreteVP,
    bits_per_dimension,
    cosine_betas,
    denoising_loss,
    discretized_log_likelihood,
    hybrid_loss,
    learned_range_std,
    linear_betas,
    posterior,
    prior_bits,
    uniform_lambda_times,
    variational_term,
)
from suffuse.diffusion.variational import gaussian_kl

CHAIN = DiscreteVP.from_betas(linear_betas(100, 1e-3, 0.15))
STD = 0.3


def levels(*shape, seed=0):
    """Gaussian data in 256 levels on [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    x = STD * torch.randn(shape, generator=generator, dtype=torch.float64)
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def best_guess(process, std=STD):
    """E[x0 | x_t] for data N(0, std^2), as a "sample" prediction."""

    def denoiser(x, t):
        alpha = process.alpha(t.double()).reshape(-1, *(1,) * (x.dim() - 1))
        sigma = process.sigma(t.double()).reshape(alpha.shape)
        return alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x

    return denoiser


def test_kl_is_that_of_two_gaussians():
    mean, other = torch.randn(2, 5, dtype=torch.float64).unbind(0)
    std, other_std = torch.rand(2, 5, dtype=torch.float64).add(0.1).unbind(0)
    expected = kl_divergence(Normal(mean, std), Normal(other, other_std))
    torch.testing.assert_close(gaussian_kl(mean, std, other, other_std), expected)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.9, 0.02), (-3.0, 0.5), (0.2, 1e-3)])
def test_masses_of_all_levels_add_up_to_1(mean, std):
    x = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mean, std = torch.full_like(x, mean), torch.full_like(x, std)
    masses = discretized_log_likelihood(x, mean, std).exp()
    assert masses.sum().item() == pytest.approx(1, rel=1e-9)
    near = Normal(mean, std)
    inner = near.cdf(x + 1 / 255) - near.cdf(x - 1 / 255)
    torch.testing.assert_close(masses[1:-1], inner[1:-1], rtol=1e-6, atol=1e-12)


def test_far_levels_have_a_finite_likelihood_and_gradient():
    x = torch.tensor([-1.0, 0.5, 1.0], dtype=torch.float64)
    mean = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    std = torch.full((3,), 1e-3, dtype=torch.float64, requires_grad=True)
    value = discretized_log_likelihood(x, mean, std)
    value.sum().backward()
    assert value.isfinite().all()
    assert mean.grad.isfinite().all()
    assert std.grad.isfinite().all()
    # The tail of a Gaussian: -(distance / std)^2 / 2 to leading order.
    assert value[1].item() == pytest.approx(-0.5 * ((0.5 - 1 / 255) / 1e-3) ** 2, rel=1e-3)


@pytest.mark.parametrize("choice", ["small", "large", "learned"])
def test_terms_are_divergences_of_the_posterior(choice):
    t = torch.tensor([1.0, 40.0, 99.0])
    x0, noise, output = torch.randn(3, 3, 2, 4, dtype=torch.float64).unbind(0)
    x_t, values = CHAIN.add_noise(x0, noise, t), torch.rand(3, 2, 4) * 2 - 1
    step = posterior(CHAIN, t.double(), t.double() - 1)
    on_x, on_data, small, large = (v[:, None, None] for v in step)
    std = {
        "small": small.sqrt(),
        "large": large.sqrt(),
        "learned": learned_range_std(values, small, large),
    }[choice]
    expected = kl_divergence(
        Normal(on_x * x_t + on_data * x0, small.sqrt()),
        Normal(on_x * x_t + on_data * output, std),
    )
    term = variational_term(
        CHAIN,
        "sample",
        x0,
        x_t,
        t,
        output,
        values=values if choice == "learned" else None,
        large=choice == "large",
    )
    expected = expected.mean((1, 2)) / math.log(2)
    torch.testing.assert_close(term, expected.to(term.dtype), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("large", [False, True])
def test_the_last_term_is_the_likelihood_of_a_level(large):
    t, x0 = torch.zeros(2), levels(2, 6)
    noise, output = torch.randn(2, 2, 6, dtype=torch.float64).unbind(0)
    output = 2 * output  # partly outside [-1, 1]
    term = variational_term(
        CHAIN, "sample", x0, CHAIN.add_noise(x0, noise, t), t, output, large=large, clip=1.0
    )
    std = posterior(CHAIN, 1.0, 0.0).small.sqrt()
    expected = discretized_log_likelihood(x0, output.clamp(-1, 1), std.expand_as(x0))
    torch.testing.assert_close(term, -expected.mean(1) / math.log(2))


def test_prior_is_what_is_left_of_the_data():
    x0 = levels(3, 10)
    alpha, sigma = CHAIN.alpha(99.0), CHAIN.sigma(99.0)
    one = torch.ones_like(x0)
    expected = kl_divergence(Normal(alpha * x0, sigma * one), Normal(0 * x0, one))
    torch.testing.assert_close(prior_bits(CHAIN, x0), expected.mean(1) / math.log(2))


def entropy_bits():
    """Of one level of the data, in bits."""
    x = torch.linspace(-1, 1, 256, dtype=torch.float64)
    log_p = discretized_log_likelihood(x, torch.zeros_like(x), torch.full_like(x, STD))
    return -(log_p.exp() * log_p).sum().item() / math.log(2)


def exact_step(process):
    """Prediction and variance values of the true reverse step of Gaussian data, a Gaussian too."""

    def denoiser(x, t):
        times = t.double()
        alpha, sigma = process.alpha(times), process.sigma(times)
        left = STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)  # variance of x0 given x_t
        step = posterior(process, times, times - 1)
        small = posterior(process, times.clamp(min=1), times.clamp(min=1) - 1).small
        variance = step.small + step.data**2 * left
        fraction = (variance / small).log() / (step.large / small).log()
        guess = best_guess(process)(x, t)
        values = (2 * fraction - 1).reshape(-1, *(1,) * (x.dim() - 1)).expand_as(guess)
        return torch.cat([guess, values], dim=1)

    return denoiser


def test_the_bound_of_the_true_reverse_chain_is_the_entropy():
    x0 = levels(64, 100)
    options = {"process": CHAIN, "prediction": "sample"}
    bounds = [
        bits_per_dimension(
            denoiser,
            x0,
            learned=learned,
            large=large,
            generator=torch.Generator().manual_seed(1),
            **options,
        )
        for denoiser, learned, large in (
            (exact_step(CHAIN), True, False),
            (best_guess(CHAIN), False, True),
            (best_guess(CHAIN), False, False),
        )
    ]
    assert bounds[0].shape == (64,)
    exact, large, small = (bound.mean().item() for bound in bounds)
    assert exact == pytest.approx(entropy_bits(), abs=0.03)
    assert large > exact + 0.01
    assert small > exact + 0.01


def test_learned_variances_are_counted():
    def learned(x, t):
        guess = best_guess(CHAIN)(x, t)
        return torch.cat([guess, torch.full_like(guess, -1.0)], dim=1)

    x0 = levels(8, 50)
    options = {"process": CHAIN, "prediction": "sample"}
    small = bits_per_dimension(
        best_guess(CHAIN), x0, generator=torch.Generator().manual_seed(1), **options
    )
    same = bits_per_dimension(
        learned, x0, learned=True, generator=torch.Generator().manual_seed(1), **options
    )
    torch.testing.assert_close(same, small, rtol=1e-5, atol=1e-6)


def test_uniform_lambda_times_give_the_bound_in_continuous_time():
    # Kingma et al. 2021: log(sigma_max / sigma_min) E |eps - guess|^2, which for the best guess of
    # Gaussian data is log(1 + std^2 e^{2 lambda}) / 2 between the ends.
    process, low, high = VP(), 0.01, 20.0
    x0 = STD * torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    t = uniform_lambda_times(
        process,
        len(x0),
        sigma_min=low,
        sigma_max=high,
        generator=torch.Generator().manual_seed(1),
    )

    def noise_guess(x, t):
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        return sigma / (alpha**2 * STD**2 + sigma**2) * x

    loss = denoising_loss(
        noise_guess,
        x0,
        process=process,
        prediction="eps",
        t=t,
        generator=torch.Generator().manual_seed(2),
    )
    nats = math.log(high / low) * loss.item()
    expected = 0.5 * (math.log1p((STD / low) ** 2) - math.log1p((STD / high) ** 2))
    assert nats == pytest.approx(expected, rel=0.01)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.prediction = torch.nn.Parameter(torch.randn(2, 1, 4))
        self.values = torch.nn.Parameter(torch.zeros(2, 1, 4))

    def forward(self, x, t):
        return torch.cat([self.prediction, self.values], 1)


def test_hybrid_loss_is_the_sum_and_trains_the_variance_by_the_bound_alone():
    chain = DiscreteVP.from_betas(cosine_betas(50))
    network, x0 = Network(), levels(2, 1, 4).float()
    noise, t = torch.randn_like(x0), torch.tensor([0.0, 30.0])
    given = {"process": chain, "prediction": "eps", "t": t, "noise": noise}
    loss = hybrid_loss(network, x0, bound_weight=0.01, **given)
    loss.backward()
    simple = ((network.prediction - noise) ** 2).mean()
    (slope,) = torch.autograd.grad(simple, network.prediction)
    torch.testing.assert_close(network.prediction.grad, slope)
    x_t = chain.add_noise(x0, noise, t)
    term = variational_term(
        chain, "eps", x0, x_t, t, network.prediction.detach(), values=network.values
    )
    torch.testing.assert_close(loss, simple + 0.01 * 50 * term.mean())
    (slope,) = torch.autograd.grad(0.5 * term.mean(), network.values)
    torch.testing.assert_close(network.values.grad, slope)
    assert slope.abs().min() > 0


@pytest.mark.parametrize(
    "call",
    [
        lambda x: prior_bits(VP(), x),
        lambda x: hybrid_loss(Network(), x, process=VP(), prediction="eps"),
        lambda x: bits_per_dimension(Network(), x, process=VP(), prediction="eps"),
        lambda x: variational_term(VP(), "eps", x, x, torch.zeros(2), x),
    ],
)
def test_wrong_processes_are_named(call):
    with pytest.raises(TypeError, match="process is VP, expected DiscreteVP"):
        call(torch.zeros(2, 1, 4))


def test_outputs_without_variance_are_named():
    with pytest.raises(ValueError, match=r"expected \(2, 2, 4\)"):
        hybrid_loss(lambda x, t: x, torch.zeros(2, 1, 4), process=CHAIN, prediction="eps")
