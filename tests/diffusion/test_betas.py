"""Tables of betas: closed forms, and agreement with diffusers' schedulers and their options."""

import math

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar

from suffuse.diffusion import (
    betas_of_alpha_bar,
    cosine_betas,
    exponential_betas,
    laplace_betas,
    linear_betas,
    scaled_linear_betas,
    sigmoid_betas,
    snr_shifted_betas,
    zero_terminal_snr,
)

# diffusers' own use of numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.mark.parametrize("n", [10, 1000])
@pytest.mark.parametrize(
    ("name", "betas", "options"),
    [
        ("linear", linear_betas, {}),
        ("scaled_linear", scaled_linear_betas, {"beta_start": 0.00085, "beta_end": 0.012}),
        ("sigmoid", sigmoid_betas, {}),
        ("squaredcos_cap_v2", cosine_betas, {}),
    ],
)
def test_named_tables_are_those_of_diffusers(name, betas, options, n):
    peer = DDPMScheduler(num_train_timesteps=n, beta_schedule=name, **options)
    torch.testing.assert_close(betas(n).float(), peer.betas, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "betas"), [("exp", exponential_betas), ("laplace", laplace_betas)]
)
def test_alpha_bar_tables_are_those_of_diffusers(name, betas):
    for n in (7, 50, 1000):
        peer = betas_for_alpha_bar(n, alpha_transform_type=name)
        torch.testing.assert_close(betas(n).float(), peer, rtol=2e-6, atol=1e-8)


def test_exponential_betas_are_all_equal():
    assert exponential_betas(20, rate=2.0).tolist() == pytest.approx([1 - math.exp(-0.1)] * 20)


def test_closed_forms():
    assert linear_betas(10, 0.1, 0.2)[[0, -1]].tolist() == pytest.approx([0.1, 0.2])
    root = scaled_linear_betas(5, 0.04, 0.16).sqrt()
    torch.testing.assert_close(root.diff(), torch.full((4,), 0.05, dtype=torch.float64))
    cosine = cosine_betas(1000)
    assert cosine.max() == 0.999
    kept = torch.cumprod(1 - cosine, 0)[499].item()
    wanted = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2
    assert kept == pytest.approx(wanted / math.cos(0.008 / 1.008 * math.pi / 2) ** 2, rel=1e-9)


def test_betas_of_alpha_bar_reproduce_it():
    betas = betas_of_alpha_bar(lambda u: 3 * (1 - 0.5 * u), 8)
    kept = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(kept, 1 - torch.arange(1, 9, dtype=torch.float64) / 16)


def test_zero_terminal_snr_keeps_the_first_level_and_is_diffusers_option():
    before = torch.cumprod(1 - linear_betas(), 0)
    after = torch.cumprod(1 - zero_terminal_snr(linear_betas()), 0)
    assert after[-1] == 0
    assert after[0].item() == pytest.approx(before[0].item(), rel=1e-12)
    peer = DDIMScheduler(rescale_betas_zero_snr=True).alphas_cumprod
    torch.testing.assert_close(after.float(), peer, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("zero", [False, True])
def test_snr_shift_divides_every_snr_and_is_that_of_cogvideox(zero):
    before = torch.cumprod(1 - scaled_linear_betas(), 0)
    betas = snr_shifted_betas(scaled_linear_betas(), 3.0)
    after = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(after / (1 - after), before / (1 - before) / 3, rtol=1e-9, atol=0)
    if zero:
        after = torch.cumprod(1 - zero_terminal_snr(betas), 0)
    peer = CogVideoXDDIMScheduler(snr_shift_scale=3.0, rescale_betas_zero_snr=zero)
    torch.testing.assert_close(after, peer.alphas_cumprod, rtol=1e-9, atol=1e-15)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="scale is 0"):
        snr_shifted_betas(linear_betas(), 0)
