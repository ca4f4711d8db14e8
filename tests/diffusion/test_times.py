"""Laws of training times: moments and densities, draws equal to diffusers', wrong arguments."""

import math

import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from suffuse.diffusion import (
    EDM,
    VP,
    cosmap_times,
    cosmap_weight,
    log_normal_times,
    logit_normal_times,
    mode_times,
    uniform_lambda_times,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_logit_normal_times():
    t = logit_normal_times(50_000, mean=0.5, std=2.0, generator=seeded())
    logits = torch.logit(t.double())
    assert t.dtype == torch.float32
    assert ((t > 0) & (t < 1)).all()
    assert logits.mean().item() == pytest.approx(0.5, abs=0.03)
    assert logits.std().item() == pytest.approx(2.0, abs=0.03)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 1.6)])
def test_logit_normal_draws_are_those_of_diffusers(mean, std):
    peer = compute_density_for_timestep_sampling(
        "logit_normal", 64, logit_mean=mean, logit_std=std, generator=seeded(3)
    )
    ours = logit_normal_times(64, mean=mean, std=std, generator=seeded(3))
    torch.testing.assert_close(ours, peer)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.81, 1.29])
def test_mode_draws_are_those_of_diffusers(scale):
    peer = compute_density_for_timestep_sampling("mode", 64, mode_scale=scale, generator=seeded(3))
    ours = mode_times(64, scale=scale, generator=seeded(3))
    torch.testing.assert_close(ours, peer)
    assert ((ours >= 0) & (ours <= 1)).all()


def test_mode_times_with_scale_0_are_uniform_and_else_favour_the_middle():
    spread = [mode_times(50_000, scale=s, generator=seeded()).std().item() for s in (-1, 0, 1.29)]
    assert spread[1] == pytest.approx(1 / math.sqrt(12), rel=0.01)
    assert spread[0] > 1.1 * spread[1] > 1.3 * spread[2]


def test_cosmap_times_have_their_density():
    t = cosmap_times(200_000, generator=seeded())
    edges = torch.linspace(0, 1, 21)
    counts = torch.histogram(t, edges).hist / len(t) * 20
    middle = 0.5 * (edges[1:] + edges[:-1])
    density = 2 / (math.pi * (1 - 2 * middle + 2 * middle**2))
    torch.testing.assert_close(counts, density, rtol=0.04, atol=0)
    torch.testing.assert_close(cosmap_weight(1 - middle, middle), density)
    assert ((t >= 0) & (t <= 1)).all()


def test_log_normal_times_are_those_of_edm():
    t = log_normal_times(50_000, mean=-0.4, std=1.5, generator=seeded())
    assert t.log().mean().item() == pytest.approx(-0.4, abs=0.03)
    assert t.log().std().item() == pytest.approx(1.5, abs=0.03)
    law = EDM().random_times(50_000, generator=seeded(1)).log()
    default = log_normal_times(50_000, generator=seeded(2)).log()
    for q in (0.1, 0.5, 0.9):
        assert default.quantile(q).item() == pytest.approx(law.quantile(q).item(), abs=0.04)


def test_uniform_lambda_times_are_even_in_lambda():
    t = uniform_lambda_times(VP(), 50_000, sigma_min=0.02, sigma_max=50.0, generator=seeded())
    lam = VP().lam(t.double())
    low, high = -math.log(50), -math.log(0.02)
    assert t.dtype == torch.float32
    assert lam.min() > low - 0.01
    assert lam.max() < high + 0.01
    assert lam.mean().item() == pytest.approx(0, abs=0.04)
    assert lam.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: logit_normal_times(3, std=0.0), "logit_normal_times: std is 0.0"),
        (lambda: log_normal_times(3, std=-1.0), "log_normal_times: std is -1.0"),
        (lambda: mode_times(3, scale=2.0), "mode_times: scale is 2.0"),
        (
            lambda: uniform_lambda_times(VP(), 3, sigma_min=1.0, sigma_max=0.5),
            "sigma_min, sigma_max are 1.0, 0.5",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
