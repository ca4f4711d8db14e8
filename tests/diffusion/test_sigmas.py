"""Lists of noise levels: formulas of the field, agreement with diffusers, wrong arguments."""

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import AysSchedules
from scipy.stats import beta as beta_distribution

from suffuse.diffusion import (
    ALIGN_YOUR_STEPS,
    align_your_steps_sigmas,
    beta_sigmas,
    exponential_sigmas,
    interpolated_sigmas,
    karras_sigmas,
    kl_optimal_sigmas,
    linear_quadratic_sigmas,
    polyexponential_sigmas,
)
from suffuse.diffusion._beta_quantile import beta_quantile

# diffusers' own use of numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

LISTS = [
    karras_sigmas,
    exponential_sigmas,
    polyexponential_sigmas,
    beta_sigmas,
    kl_optimal_sigmas,
]


@pytest.mark.parametrize("sigmas", LISTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("points", [1, 2, 17])
def test_lists_fall_from_the_largest_to_the_smallest_level(sigmas, points):
    values = sigmas(points, 0.03, 14.6)
    assert values.shape == (points,)
    assert values.dtype == torch.float64
    assert (values.diff() < 0).all()
    ends = [14.6, 0.03] if points > 1 else [14.6, 14.6]
    assert values[[0, -1]].tolist() == pytest.approx(ends, rel=1e-12)


def ramp(points):
    return torch.linspace(0, 1, points, dtype=torch.float64)


def test_published_formulas():
    low, high, u = 0.03, 14.6, ramp(11)
    karras = (high ** (1 / 5) + u * (low ** (1 / 5) - high ** (1 / 5))) ** 5
    torch.testing.assert_close(karras_sigmas(11, low, high, rho=5.0), karras)
    poly = torch.exp((1 - u) ** 2.5 * (math.log(high) - math.log(low)) + math.log(low))
    torch.testing.assert_close(polyexponential_sigmas(11, low, high, rho=2.5), poly)
    torch.testing.assert_close(
        polyexponential_sigmas(11, low, high), exponential_sigmas(11, low, high)
    )
    optimal = torch.tan(u * math.atan(low) + (1 - u) * math.atan(high))
    torch.testing.assert_close(kl_optimal_sigmas(11, low, high), optimal)


@pytest.mark.parametrize(
    ("sigmas", "option"),
    [
        (karras_sigmas, "use_karras_sigmas"),
        (exponential_sigmas, "use_exponential_sigmas"),
        (beta_sigmas, "use_beta_sigmas"),
    ],
)
@pytest.mark.parametrize("steps", [4, 20, 50])
def test_lists_are_those_of_diffusers(sigmas, option, steps):
    peer = EulerDiscreteScheduler(**{option: True})
    full = ((1 - peer.alphas_cumprod.double()) / peer.alphas_cumprod.double()) ** 0.5
    peer.set_timesteps(steps)
    values = sigmas(steps, full[0].item(), full[-1].item())
    torch.testing.assert_close(values.float(), peer.sigmas[:-1], rtol=2e-5, atol=0)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.5), (1, 1), (2, 3), (0.3, 4), (8, 8)])
def test_beta_quantiles_are_those_of_scipy(a, b):
    p = ramp(101)
    expected = torch.from_numpy(beta_distribution.ppf(p.numpy(), a, b))
    torch.testing.assert_close(beta_quantile(p, a, b), expected, rtol=1e-9, atol=1e-14)


def test_beta_quantiles_of_the_arcsine_distribution():
    p = ramp(101)
    expected = torch.sin(math.pi / 2 * p) ** 2
    torch.testing.assert_close(beta_quantile(p, 0.5, 0.5), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("family", "peer"),
    [
        ("stable_diffusion", "StableDiffusionSigmas"),
        ("stable_diffusion_xl", "StableDiffusionXLSigmas"),
        ("stable_video_diffusion", "StableDiffusionVideoSigmas"),
    ],
)
def test_align_your_steps_lists_are_the_published_ones(family, peer):
    values = align_your_steps_sigmas(11, family)
    # diffusers puts clean data in the place of the last level.
    assert values[:-1].tolist() == pytest.approx(AysSchedules[peer][:-1], rel=1e-12)
    assert 0 < values[-1] < values[-2]
    assert set(ALIGN_YOUR_STEPS) == {
        "stable_diffusion",
        "stable_diffusion_xl",
        "stable_video_diffusion",
    }


def test_other_numbers_of_steps_are_interpolated_in_the_logarithm():
    values = align_your_steps_sigmas(21, "stable_diffusion")
    table = torch.tensor(ALIGN_YOUR_STEPS["stable_diffusion"], dtype=torch.float64)
    torch.testing.assert_close(values[::2], table)
    torch.testing.assert_close(values[1::2], (table[1:] * table[:-1]).sqrt())
    assert interpolated_sigmas([8.0, 2.0], 3).tolist() == pytest.approx([8, 4, 2])


def mochi(steps, threshold, linear):
    """The list as its authors write it: i^2, i and constant weights of the quadratic part."""
    difference, rest = linear - threshold * steps, steps - linear
    square = difference / (linear * rest**2)
    slope = threshold / linear - 2 * difference / rest**2
    start = [i * threshold / linear for i in range(linear)]
    end = [square * i**2 + slope * i + square * linear**2 for i in range(linear, steps)]
    return [1 - value for value in start + end]


@pytest.mark.parametrize(("steps", "threshold", "linear"), [(30, 0.025, 15), (13, 0.05, 4)])
def test_linear_quadratic_is_the_published_list(steps, threshold, linear):
    values = linear_quadratic_sigmas(steps, threshold=threshold, linear=linear)
    assert values.tolist() == pytest.approx(mochi(steps, threshold, linear), rel=1e-12)
    scaled = linear_quadratic_sigmas(steps, threshold=threshold, linear=linear, sigma_max=3.0)
    torch.testing.assert_close(scaled, 3 * values)


def test_linear_quadratic_defaults():
    assert linear_quadratic_sigmas(1, sigma_max=2.0).tolist() == [2.0]
    assert linear_quadratic_sigmas(30).tolist() == pytest.approx(mochi(30, 0.025, 15))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: karras_sigmas(0, 0.1, 1.0), "karras_sigmas: points is 0"),
        (lambda: exponential_sigmas(3, 1.0, 0.1), "sigma_min, sigma_max are 1.0, 0.1"),
        (lambda: polyexponential_sigmas(3, 0.1, 1.0, rho=0.0), "rho is 0.0"),
        (lambda: beta_sigmas(3, 0.1, 1.0, a=0.0), "a, b are 0.0, 0.6"),
        (lambda: kl_optimal_sigmas(3, 0.0, 1.0), "kl_optimal_sigmas: sigma_min"),
        (lambda: align_your_steps_sigmas(10, "sd"), "family is 'sd', expected one of stable_diff"),
        (lambda: interpolated_sigmas([1.0, 0.0], 3), "at least 2 positive sigmas"),
        (lambda: interpolated_sigmas([2.0, 1.0], 0), "points is 0"),
        (lambda: linear_quadratic_sigmas(4, linear=4), "linear, threshold are 4, 0.025"),
        (lambda: linear_quadratic_sigmas(4, threshold=1.0), "0 < threshold < 1"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
