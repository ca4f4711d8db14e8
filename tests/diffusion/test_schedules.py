"""Time grids: end points, monotonicity, spacing, agreement with diffusers' tables, wrong arguments."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from scipy.stats import beta as beta_distribution

from suffuse.diffusion import (
    EDM,
    VE,
    VP,
    DiscreteVE,
    DiscreteVP,
    Flow,
    beta_integers,
    beta_sigmas,
    ddim_uniform,
    exponential_sigmas,
    karras,
    karras_sigmas,
    kl_optimal_sigmas,
    leading,
    levels,
    linear_betas,
    linear_quadratic_sigmas,
    linspace,
    normal,
    sgm_uniform,
    shifted,
    simple,
    trailing,
    uniform,
    uniform_lambda,
)

# diffusers' own use of numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

CHAIN = DiscreteVP.from_betas(linear_betas())
LEVELS = DiscreteVE(exponential_sigmas(50, 0.01, 100.0).flip(0))
GRIDS = {
    "uniform-flow": (Flow(), uniform(Flow(), 13)),
    "uniform-vp": (VP(), uniform(VP(), 13)),
    "karras-edm": (EDM(), karras(EDM(), 13, sigma_min=0.002, sigma_max=80.0)),
    "karras-ve": (VE(), karras(VE(), 13, sigma_min=0.01, sigma_max=1348.0)),
    "karras-chain": (CHAIN, karras(CHAIN, 13, sigma_min=0.02, sigma_max=100.0)),
    "lambda-vp": (VP(), uniform_lambda(VP(), 13, sigma_min=0.01, sigma_max=100.0)),
    "lambda-flow": (Flow(), uniform_lambda(Flow(), 13, sigma_min=0.01, sigma_max=50.0)),
    "shifted": (Flow(), shifted(uniform(Flow(), 13), 3.0)),
    "leading": (CHAIN, leading(CHAIN, 13)),
    "linspace": (CHAIN, linspace(CHAIN, 13)),
    "trailing": (CHAIN, trailing(CHAIN, 13)),
    "simple": (CHAIN, simple(CHAIN, 13)),
    "beta-integers": (CHAIN, beta_integers(CHAIN, 13)),
    "normal-chain": (CHAIN, normal(CHAIN, 13)),
    "normal-flow": (Flow(), normal(Flow(), 13, last=0.001)),
    "sgm-uniform": (CHAIN, sgm_uniform(CHAIN, 13)),
    "beta-chain": (CHAIN, levels(CHAIN, beta_sigmas(13, 0.02, 100.0))),
    "kl-optimal-ve": (VE(), levels(VE(), kl_optimal_sigmas(13, 0.01, 1000.0))),
    "linear-quadratic": (Flow(), levels(Flow(), linear_quadratic_sigmas(13), ratio=False)),
    "leading-ve": (LEVELS, leading(LEVELS, 13)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_grids_fall_from_noise_to_clean_data(name):
    process, times = GRIDS[name]
    assert times.shape == (14,)
    assert times.dtype == torch.float64
    assert times[-1] == process.t_clean
    assert times[0] <= process.t_max * (1 + 1e-12)
    assert (times.diff() < 0).all()
    assert (process.lam(times).diff() > 0).all()


def test_karras_levels_are_even_in_their_root():
    times = karras(EDM(), 7, sigma_min=0.1, sigma_max=10.0, rho=7.0, clean=False)
    assert times.shape == (8,)
    steps = (times ** (1 / 7)).diff()
    torch.testing.assert_close(steps, steps[:1].expand(7))
    assert times[[0, -1]].tolist() == pytest.approx([10.0, 0.1])


def test_uniform_lambda_is_even_in_lambda():
    times = uniform_lambda(VP(), 5, sigma_min=0.05, sigma_max=20.0, clean=False)
    lam = VP().lam(times)
    torch.testing.assert_close(lam.diff(), lam.diff()[:1].expand(5))
    assert lam[[0, -1]].tolist() == pytest.approx([-math.log(20), -math.log(0.05)])


@pytest.mark.parametrize("steps", [2, 3, 7, 20, 50, 1000])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_integer_grids_are_those_of_diffusers(spacing, steps):
    peer = DDIMScheduler(timestep_spacing=spacing)
    peer.set_timesteps(steps)
    times = {"leading": leading, "linspace": linspace, "trailing": trailing}[spacing](CHAIN, steps)
    assert times[:-1].tolist() == peer.timesteps.tolist()


@pytest.mark.parametrize(("grid", "first"), [(leading, 0), (linspace, 999), (trailing, 999)])
def test_one_step_grids(grid, first):
    assert grid(CHAIN, 1).tolist() == [first, -1]


@pytest.mark.parametrize(("grid", "spacing"), [(leading, "leading"), (linspace, "linspace")])
def test_skip_last_is_the_grid_of_multistep_schedulers(grid, spacing):
    peer = DPMSolverMultistepScheduler(timestep_spacing=spacing)
    peer.set_timesteps(20)
    assert grid(CHAIN, 20, skip_last=True)[:-1].tolist() == peer.timesteps.tolist()


@pytest.mark.parametrize("steps", [1, 7, 20, 30])
def test_comfyui_grids(steps):
    """The tables of a chain with N levels, written with indices counted from either end."""
    count = 1000
    back = [count - 1 - int(i * (count / steps)) for i in range(steps)]
    assert simple(CHAIN, steps).tolist() == [*back, -1]
    strided = list(range(1, count, count // steps))
    assert ddim_uniform(CHAIN, steps).tolist() == [*strided[::-1], -1]
    even = torch.linspace(count - 1, 0, steps, dtype=torch.float64)
    assert normal(CHAIN, steps).tolist() == [*even.tolist(), -1]
    more = torch.linspace(count - 1, 0, steps + 1, dtype=torch.float64)
    assert sgm_uniform(CHAIN, steps).tolist() == [*more[:-1].tolist(), -1]


@pytest.mark.parametrize(("steps", "a", "b"), [(20, 0.6, 0.6), (7, 2.0, 1.0), (900, 0.6, 0.6)])
def test_beta_integers_are_rounded_quantiles_without_repetition(steps, a, b):
    even = 1 - np.linspace(0, 1, steps, endpoint=False)
    expected = np.rint(beta_distribution.ppf(even, a, b) * 999)
    kept = [t for t, before in zip(expected, [None, *expected], strict=False) if t != before]
    assert beta_integers(CHAIN, steps, a=a, b=b).tolist() == [*kept, -1]
    assert len(kept) == steps or steps == 900


def test_levels_are_reached_as_ratio_or_as_sigma():
    sigmas = karras_sigmas(6, 0.05, 0.9)
    times = levels(VP(), sigmas)
    torch.testing.assert_close((VP().sigma(times) / VP().alpha(times))[:-1], sigmas)
    assert times[-1] == 0
    assert levels(Flow(), sigmas, ratio=False)[:-1].tolist() == pytest.approx(sigmas.tolist())
    assert levels(Flow(), [1.0, 0.5], ratio=False, clean=False).tolist() == [1.0, 0.5]
    same = karras(EDM(), 6, sigma_min=0.05, sigma_max=0.9)
    torch.testing.assert_close(levels(EDM(), sigmas), same)


def test_offset_and_end():
    times = leading(CHAIN, 20, offset=1, end=0.0)
    assert times[[0, -2, -1]].tolist() == [951, 1, 0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: uniform(Flow(), 0), ValueError, "uniform: steps is 0, expected at least 1"),
        (lambda: uniform(VE(), 5), ValueError, "expected finite times"),
        (
            lambda: karras(EDM(), 5, sigma_min=0.0, sigma_max=80.0),
            ValueError,
            "karras: sigma_min, sigma_max are 0.0, 80.0",
        ),
        (
            lambda: uniform_lambda(VP(), 5, sigma_min=2.0, sigma_max=1.0),
            ValueError,
            "uniform_lambda: sigma_min, sigma_max are 2.0, 1.0",
        ),
        (lambda: leading(Flow(), 5), TypeError, "process is Flow, expected DiscreteVP"),
        (lambda: trailing(CHAIN, 1001), ValueError, "steps is 1001, expected at most 1000"),
        (lambda: normal(Flow(), 5), ValueError, "normal: last is None"),
        (lambda: sgm_uniform(Flow(), 0), ValueError, "sgm_uniform: steps is 0"),
        (lambda: levels(VP(), [1.0, 2.0]), ValueError, "expected positive, falling numbers"),
        (lambda: levels(VP(), [1.0, 0.5], ratio=False), ValueError, "ratio is False for VP"),
        (lambda: levels(Flow(), [1.5, 0.5], ratio=False), ValueError, "sigmas up to 1.5"),
        (lambda: simple(CHAIN, 1001), ValueError, "simple: steps is 1001"),
        (lambda: ddim_uniform(EDM(), 5), TypeError, "ddim_uniform: process is EDM"),
        (lambda: beta_integers(CHAIN, 5, a=0.0), ValueError, "a, b are 0.0, 0.6"),
        (lambda: leading(CHAIN, 10, offset=200), ValueError, "last time 1100 is past 999"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
