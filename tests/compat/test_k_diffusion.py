"""Every sample_* function beside the recorded results of k-diffusion itself."""

import json
import math
from pathlib import Path

import pytest
import torch
from k_diffusion_cases import CASES, RANGED, SIGMAS, model, numbers, outcome, start

from suffuse.compat import k_diffusion
from suffuse.compat.k_diffusion import BrownianPath

RECORDED = json.loads(Path(__file__).with_name("k_diffusion.json").read_text())


def names(case):
    return " ".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])


@pytest.mark.parametrize("case", CASES + RANGED, ids=names)
def test_results_callbacks_and_noise(case, monkeypatch):
    found = outcome(k_diffusion, *case, monkeypatch)
    peer = RECORDED["cases"][json.dumps(list(case))]
    bound = 1e-11
    largest = max(map(abs, peer["result"]))
    assert found["result"] == pytest.approx(peer["result"], abs=bound * largest)
    assert found["drawn"] == peer["drawn"]
    assert found["noise"] == [pytest.approx(pair, rel=1e-9, abs=0) for pair in peer["noise"]]
    assert len(found["callback"]) == len(peer["callback"])
    for mine, theirs in zip(found["callback"], peer["callback"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-9)


def test_every_sampler_is_recorded():
    functions = {name for name in vars(k_diffusion) if name.startswith("sample_")}
    assert functions == {f"sample_{name}" for name, _ in CASES + RANGED}


def test_sigma_lists():
    peer = RECORDED["sigmas"]
    found = {
        "karras": k_diffusion.get_sigmas_karras(5, 0.1, 10.0),
        "exponential": k_diffusion.get_sigmas_exponential(5, 0.1, 10.0),
        "polyexponential": k_diffusion.get_sigmas_polyexponential(5, 0.1, 10.0, rho=1.5),
        "vp": k_diffusion.get_sigmas_vp(5),
    }
    for name, sigmas in found.items():
        assert sigmas.dtype == torch.float32
        assert sigmas.tolist() == pytest.approx(peer[name], rel=1e-6), name


def test_low_precision_samples_keep_their_dtype():
    sigmas = k_diffusion.get_sigmas_karras(**SIGMAS)

    def half(x, sigma):
        assert x.dtype == sigma.dtype == torch.bfloat16
        return model(x, sigma, 0.0)

    x = start().bfloat16()
    result = k_diffusion.sample_dpmpp_2m(half, x, sigmas.bfloat16(), disable=True)
    assert result.dtype == torch.bfloat16


def test_brownian_paths():
    x = torch.zeros(4000, 2, dtype=torch.float64)
    path = BrownianPath(x, seed=1)
    levels = [torch.tensor(s, dtype=torch.float64) for s in (8.0, 4.0, 2.0, 1.0)]
    whole, first, second = path(levels[0], levels[2]), path(*levels[:2]), path(*levels[1:3])
    total = math.sqrt(4) * first + math.sqrt(2) * second
    torch.testing.assert_close(math.sqrt(6) * whole, total)
    for z in (whole, first, second, path(*levels[2:])):
        assert z.std().item() == pytest.approx(1, abs=0.04)
    assert abs((first * second).mean().item()) < 0.04
    again = BrownianPath(x, seed=1)
    assert torch.equal(again(levels[0], levels[2]), whole)


def test_stochastic_samplers_have_their_own_noise():
    sigmas = k_diffusion.get_sigmas_karras(**SIGMAS).double()
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(
            k_diffusion.sample_dpmpp_sde(
                model, start(), sigmas, extra_args={"shift": 0.0}, disable=True
            )
        )
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_likelihood_of_gaussian_data():
    def denoiser(x, sigma):
        return x / (1 + sigma[:, None] ** 2)  # of standard normal data

    x = numbers((4, 3), 1)
    torch.manual_seed(0)
    found, info = k_diffusion.log_likelihood(denoiser, x, 1e-2, 1e3, atol=1e-7, rtol=1e-7)
    expected = -0.5 * x.square().sum(1) / (1 + 1e-4) - 1.5 * math.log(2 * math.pi * (1 + 1e-4))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert info["fevals"] > 20


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_wrong_levels_are_named(name):
    function = getattr(k_diffusion, f"sample_{name}")
    options = {"n": 6} if name == "dpm_fast" else {}
    with pytest.raises(ValueError, match=rf"sample_{name}: sigma_min, sigma_max are 0.0, 10.0"):
        function(model, start(), 0.0, 10.0, **options)
