"""Time grids: end points, monotonicity, spacing, agreement with diffusers' tables, wrong arguments."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from suffuse.diffusion import (
    EDM,
    VE,
    VP,
    DiscreteVP,
    Flow,
    karras,
    leading,
    linear_betas,
    linspace,
    shifted,
    trailing,
    uniform,
    uniform_lambda,
)

# diffusers' own use of numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

CHAIN = DiscreteVP.from_betas(linear_betas())
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


def test_shift_is_the_formula_and_its_own_inverse():
    times = uniform(Flow(), 4)
    expected = [3 * t / (1 + 2 * t) for t in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert shifted(times, 3.0).tolist() == pytest.approx(expected)
    torch.testing.assert_close(shifted(shifted(times, 3.0), 1 / 3), times)


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


def test_offset_and_end():
    times = leading(CHAIN, 20, offset=1, end=0.0)
    assert times[[0, -2, -1]].tolist() == [951, 1, 0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: uniform(Flow(), 0), ValueError, "uniform: steps is 0, expected at least 1"),
        (lambda: uniform(VE(), 5), ValueError, "expected finite times"),
        (lambda: shifted(uniform(Flow(), 2), 0.0), ValueError, "shifted: shift is 0.0"),
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
        (lambda: leading(CHAIN, 10, offset=200), ValueError, "last time 1100 is past 999"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
