"""The posterior step of any process, and learned variances, against closed forms and diffusers."""

import pytest
import torch
from diffusers import DDPMScheduler

from suffuse.diffusion import (
    EDM,
    VP,
    DiscreteVP,
    Flow,
    SubVP,
    learned_range_std,
    linear_betas,
    posterior,
    split_learned,
    zero_terminal_snr,
)

# diffusers' own use of numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

CHAIN = DiscreteVP.from_betas(linear_betas())


@pytest.mark.parametrize("process", [VP(), SubVP(), Flow(), EDM(), CHAIN], ids=lambda p: type(p))
def test_posterior_is_that_of_the_joint_gaussian(process):
    # For given x0, (x_t, x_s) are jointly normal; conditioning x_t on x_s must give the step.
    t, s = 0.3 * process.t_max, 0.7 * process.t_max
    step = posterior(process, s, t)
    alpha_t, var_t = process.alpha(t), process.sigma(t) ** 2
    alpha_s, var_s = process.alpha(s), process.sigma(s) ** 2
    covariance = alpha_s / alpha_t * var_t  # x_s = (alpha_s / alpha_t) x_t + independent noise
    gain = covariance / var_s
    torch.testing.assert_close(step.x, gain, rtol=1e-12, atol=0)
    torch.testing.assert_close(step.data, alpha_t - gain * alpha_s, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(step.small, var_t - gain * covariance, rtol=1e-9, atol=0)
    added = var_s - (alpha_s / alpha_t) ** 2 * var_t
    torch.testing.assert_close(step.large, added, rtol=1e-12, atol=0)


def test_posterior_of_neighbours_has_the_variances_of_ddpm():
    t = torch.arange(1, 1000, dtype=torch.float64)
    step = posterior(CHAIN, t, t - 1)
    betas = linear_betas()
    torch.testing.assert_close(step.large, betas[1:], rtol=1e-9, atol=0)
    kept = torch.cumprod(1 - betas, 0)
    small = (1 - kept[:-1]) / (1 - kept[1:]) * betas[1:]
    torch.testing.assert_close(step.small, small, rtol=1e-9, atol=0)


def test_posterior_is_finite_at_both_ends():
    first = posterior(CHAIN, 0.0, -1.0)
    assert (first.x, first.data, first.small) == (0, 1, 0)
    zero = DiscreteVP.from_betas(zero_terminal_snr(linear_betas()))
    last = posterior(zero, 999.0, 998.0)
    assert last.x == 0
    torch.testing.assert_close(last.data, zero.alpha(998.0))
    assert last.large == 1


@pytest.mark.parametrize("t", [1, 400, 999])
def test_learned_range_is_that_of_diffusers(t):
    peer = DDPMScheduler(variance_type="learned_range")
    values = torch.linspace(-1, 1, 9).reshape(1, 1, 3, 3)
    peer_log = peer._get_variance(t, predicted_variance=values)
    step = posterior(CHAIN, float(t), float(t - 1))
    std = learned_range_std(values, step.small, step.large)
    torch.testing.assert_close(2 * std.log(), peer_log, rtol=1e-4, atol=1e-6)
    same = learned_range_std(values, step.small.item(), step.large.item())
    torch.testing.assert_close(same, std)


def test_learned_range_is_between_its_bounds_in_low_precision():
    values = torch.tensor([-1.0, 0.0, 1.0]).bfloat16()
    std = learned_range_std(values, 0.01, 0.04)
    assert std.dtype == torch.float32
    assert std.tolist() == pytest.approx([0.1, 0.02**0.5, 0.2])


def test_split_learned_halves_the_channels():
    x = torch.zeros(2, 3, 4)
    output = torch.arange(48.0).reshape(2, 6, 4)
    prediction, values = split_learned(output, x)
    assert torch.equal(torch.cat([prediction, values], 1), output)
    assert prediction.shape == x.shape
    with pytest.raises(ValueError, match=r"output has shape \(2, 3, 4\), expected \(2, 6, 4\)"):
        split_learned(x, x)
