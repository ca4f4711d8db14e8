"""Score matching: the losses share their minimiser, and agree on a Gaussian up to a constant."""

import pytest
import torch

from suffuse.diffusion import (
    denoising_score_matching_loss,
    explicit_score_matching_loss,
    implicit_score_matching_loss,
    sliced_score_matching_loss,
)

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64)


def gaussian(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return MEAN + z @ torch.linalg.cholesky(COVARIANCE).T


def true_score(x, covariance=COVARIANCE):
    return -(x - MEAN) @ torch.linalg.inv(covariance)


def linear_model(values):
    """A score that is linear in x: 4 weights and 2 offsets."""
    return lambda x: x @ values[:4].reshape(2, 2).T + values[4:]


def gradient(loss_of):
    values = torch.tensor([-0.7, 0.1, 0.3, -0.4, 0.2, -0.1], dtype=torch.float64)
    values.requires_grad_()
    (found,) = torch.autograd.grad(loss_of(linear_model(values)), values)
    return found


def test_explicit_and_implicit_losses_have_the_same_gradient():
    x = gaussian(400_000)
    explicit = gradient(lambda s: explicit_score_matching_loss(s, x, true_score(x)))
    implicit = gradient(lambda s: implicit_score_matching_loss(s, x))
    torch.testing.assert_close(implicit, explicit, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("exact_norm", [True, False])
def test_sliced_loss_has_the_gradient_of_the_implicit_one(exact_norm):
    x = gaussian(200_000)
    implicit = gradient(lambda s: implicit_score_matching_loss(s, x))
    sliced = gradient(
        lambda s: sliced_score_matching_loss(
            s, x, exact_norm=exact_norm, generator=torch.Generator().manual_seed(1)
        )
    )
    torch.testing.assert_close(sliced, implicit, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("weighted", [True, False])
def test_denoising_loss_has_the_gradient_of_the_noised_density(weighted):
    sigma, x = 0.8, gaussian(400_000)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    noised = x + sigma * noise
    target = true_score(noised, COVARIANCE + sigma**2 * torch.eye(2))
    explicit = gradient(lambda s: explicit_score_matching_loss(s, noised, target))
    denoising = gradient(
        lambda s: denoising_score_matching_loss(s, x, sigma, noise=noise, weighted=weighted)
    )
    factor = sigma**2 if weighted else 1.0
    torch.testing.assert_close(denoising, factor * explicit, rtol=0.02, atol=0.02)


def test_the_conditional_target_averages_to_the_score():
    # E[-z / sigma | x + sigma z] is the score of the noised density: regress one on the other.
    sigma, x = 0.7, gaussian(400_000)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    noised = x + sigma * noise
    features = torch.cat([noised, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    found = torch.linalg.lstsq(features, -noise / sigma).solution
    inverse = torch.linalg.inv(COVARIANCE + sigma**2 * torch.eye(2))
    torch.testing.assert_close(found[:2], -inverse, rtol=0.02, atol=0.01)
    torch.testing.assert_close(found[2], MEAN @ inverse, rtol=0.02, atol=0.01)


def curved(x):
    """A score model with a full Jacobian that depends on x."""
    return torch.tanh(x.roll(1, -1)) * x - 0.3 * x**3


def test_losses_are_their_formulas_on_a_curved_score():
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    value = curved(x)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(curved, row).reshape(6, 6) for row in x]
    )
    trace = jacobians.diagonal(dim1=1, dim2=2).sum(1)
    square = (value**2).sum((1, 2))
    implicit = implicit_score_matching_loss(curved, x)
    torch.testing.assert_close(implicit, (trace + 0.5 * square).mean())
    v = torch.randn(3, 4, 2, 3, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
    flat = v.flatten(2)
    bent = torch.einsum("kbi,bij,kbj->kb", flat, jacobians, flat)
    for exact_norm in (True, False):
        norm = square if exact_norm else (flat * value.flatten(1)).sum(-1) ** 2
        loss = sliced_score_matching_loss(
            curved,
            x,
            directions=3,
            exact_norm=exact_norm,
            generator=torch.Generator().manual_seed(5),
        )
        torch.testing.assert_close(loss, (bent + 0.5 * norm).mean())


def test_denoising_loss_takes_a_level_for_each_sample():
    x, noise = torch.randn(2, 3, 2, 2).unbind(0)
    sigma = torch.tensor([0.1, 0.5, 2.0])
    level = sigma[:, None, None]
    error = curved(x + level * noise) + noise / level
    square = 0.5 * (error**2).sum((1, 2))
    loss = denoising_score_matching_loss(curved, x, sigma, noise=noise)
    torch.testing.assert_close(loss, square.mean())
    weighted = denoising_score_matching_loss(curved, x, sigma, noise=noise, weighted=True)
    torch.testing.assert_close(weighted, (square * sigma**2).mean())
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(6))
    again = denoising_score_matching_loss(
        curved, x, sigma, generator=torch.Generator().manual_seed(6)
    )
    torch.testing.assert_close(again, denoising_score_matching_loss(curved, x, sigma, noise=drawn))


@torch.no_grad()
def test_values_are_found_without_gradients_too():
    x = torch.randn(3, 2, dtype=torch.float64)
    assert implicit_score_matching_loss(curved, x).isfinite()


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explicit_score_matching_loss(curved, X, X[:1]), r"target has shape \(1, 2\)"),
        (lambda: implicit_score_matching_loss(lambda x: x[:1], X), r"the score has shape \(1, 2\)"),
        (lambda: sliced_score_matching_loss(curved, X, directions=0), "directions is 0"),
        (lambda: denoising_score_matching_loss(curved, X, torch.ones(2)), r"shape \(2,\)"),
        (lambda: denoising_score_matching_loss(curved, X, 0.0), "sigma is 0.0"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
