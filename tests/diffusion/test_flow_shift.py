"""Shifts of flow times: the formulas, agreement with diffusers' options, wrong arguments."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from suffuse.diffusion import Flow, resolution_shift, shifted, stretched, uniform

# diffusers' own use of numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def given(steps):
    """Times that diffusers takes as they are."""
    return torch.linspace(1, 1 / steps, steps, dtype=torch.float64)


def peer_times(sigmas, mu=None, **options):
    peer = FlowMatchEulerDiscreteScheduler(**options)
    peer.set_timesteps(sigmas=sigmas.tolist(), mu=mu)
    return peer.sigmas


def with_clean(times):
    return torch.cat([times, times.new_zeros(1)])


def test_shift_is_the_formula_and_its_own_inverse():
    times = uniform(Flow(), 4)
    expected = [3 * t / (1 + 2 * t) for t in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert shifted(times, 3.0).tolist() == pytest.approx(expected)
    torch.testing.assert_close(shifted(shifted(times, 3.0), 1 / 3), times)


def test_a_power_shifts_the_odds():
    times = uniform(Flow(), 5)
    moved = shifted(times, 2.0, power=1.5)
    assert moved[[0, -1]].tolist() == [1, 0]
    odds = (1 / moved[1:-1] - 1) * 2
    torch.testing.assert_close(odds, (1 / times[1:-1] - 1) ** 1.5)
    torch.testing.assert_close(shifted(times, 2.0, power=1 + 1e-12), shifted(times, 2.0))


@pytest.mark.parametrize("steps", [4, 20, 50])
def test_static_and_dynamic_shift_are_those_of_diffusers(steps):
    times = given(steps)
    static = with_clean(shifted(times, 3.0)).float()
    torch.testing.assert_close(static, peer_times(times, shift=3.0), rtol=1e-6, atol=0)
    for kind, shift in (("exponential", math.exp(0.8)), ("linear", 0.8)):
        options = {"use_dynamic_shifting": True, "time_shift_type": kind}
        moved = with_clean(shifted(times, shift)).float()
        torch.testing.assert_close(moved, peer_times(times, mu=0.8, **options), rtol=1e-6, atol=0)


def test_terminal_shift_is_that_of_diffusers():
    times = given(20)
    moved = stretched(with_clean(shifted(times, 2.5)), 0.1)
    peer = peer_times(times, shift=2.5, shift_terminal=0.1)
    torch.testing.assert_close(moved.float(), peer, rtol=1e-5, atol=1e-7)
    assert moved[[0, -2, -1]].tolist() == pytest.approx([1.0, 0.1, 0.0])


def test_resolution_shift_is_linear_in_the_tokens():
    assert resolution_shift(256) == pytest.approx(math.exp(0.5))
    assert resolution_shift(4096) == pytest.approx(math.exp(1.15))
    assert resolution_shift(2176) == pytest.approx(math.exp(0.825))
    assert resolution_shift(10, base_tokens=0, max_tokens=20, base_mu=0, max_mu=2) == pytest.approx(
        math.e
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shifted(uniform(Flow(), 2), 0.0), "shift, power are 0.0, 1.0"),
        (lambda: shifted(uniform(Flow(), 2), 1.0, power=0.0), "shift, power are 1.0, 0.0"),
        (lambda: resolution_shift(0), "tokens, base_tokens, max_tokens are 0, 256, 4096"),
        (lambda: stretched(uniform(Flow(), 3), 1.0), "terminal is 1.0"),
        (lambda: stretched(torch.tensor([1.0, 0.5]), 0.1), "end at 0"),
        (lambda: stretched(torch.tensor([1.0, 0.0]), 0.1), "be below 1 before"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
