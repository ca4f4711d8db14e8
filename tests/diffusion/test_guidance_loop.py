"""Guidance inside the sampling loop: step by step by hand, thresholds, CFG++, no waiting."""

import math
from itertools import pairwise

import pytest
import torch

from suffuse.diffusion import (
    DDIM,
    EDM,
    VP,
    ClassifierFree,
    Euler,
    Flow,
    Heun,
    MagnitudeAware,
    Projected,
    Tangential,
    ZeroStar,
    karras,
    predicted_data,
    predicted_noise,
    sample,
    uniform,
)


class Denoiser:
    """Depends on input, time and condition."""

    def __call__(self, x, t, *, y):
        return torch.tanh(x + y[:, None] * t[:, None])


Y, NULL = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-0.5])


@pytest.mark.parametrize(
    "options",
    [
        {"rescale": 0.7},
        {"combine": Projected(eta=0.2, norm=2.0, momentum=-0.4), "rescale": 0.3},
        {"combine": ZeroStar(zero_steps=1)},
        {"combine": Tangential(), "interval": (0.2, 0.7)},
    ],
    ids=["rescale", "apg", "zero-star", "tcfg"],
)
def test_the_sampling_loop_combines_as_one_tensor_would_be(options):
    """Against Euler's method with the guided output formed outside, step by step."""
    x = torch.randn(3, 8)
    guided = ClassifierFree(Denoiser(), {"y": Y}, {"y": NULL}, 3.0, **options)
    process, steps = Flow(), 10
    times = uniform(process, steps)
    result = sample(guided, x, Euler().plan(process, "flow", times))
    state = None
    for step in range(steps):
        time, h = times[step].item(), (times[step + 1] - times[step]).item()
        call = guided.outputs(x, torch.full((3,), time), time, step, state)
        state = call.state
        weights = call.weights
        if weights is None:
            weights = torch.tensor(guided.weights(time, step)).expand(3, -1)
        velocity = sum(weights[:, i, None] * f for i, f in enumerate(call.outputs))
        x = (x + h * velocity).float()
    torch.testing.assert_close(result, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "combine",
    [
        None,
        Projected(eta=0.2, norm=2.0),
        Projected(norm=2.0, momentum=-0.4),
        ZeroStar(),
        Tangential(),
        MagnitudeAware(),
    ],
)
def test_weights_are_found_without_leaving_the_graph(combine):
    """A value read on the host would break the graph: on a GPU it would wait for the device."""
    guided = ClassifierFree(
        Denoiser(), {"y": Y}, {"y": NULL}, torch.tensor(3.0), combine=combine, rescale=0.5
    )

    def two_steps(x, t):
        first = guided.outputs(x, t, 0.5, 1)
        return first.weights, guided.outputs(x, t, 0.4, 2, first.state).weights

    x, t = torch.randn(3, 8), torch.full((3,), 0.5)
    compiled = torch.compile(two_steps, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t), two_steps(x, t))


@pytest.mark.parametrize("bound", [{"clip": 0.7}, {"threshold": (0.9, 1.5)}])
def test_static_and_dynamic_thresholds_bound_the_guided_data_estimate(bound):
    """Saharia et al. 2022, section 2.3, on top of rescaled guidance."""
    x = torch.randn(3, 40)
    guided = ClassifierFree(Denoiser(), {"y": Y}, {"y": NULL}, 6.0, rescale=0.5)
    process, times = VP(), uniform(VP(), 5, start=0.9)
    result = sample(guided, x, DDIM(**bound).plan(process, "v", times))
    for s, t in pairwise(times.tolist()):
        now = torch.full((3,), s)
        output = combined_rows(guided.outputs(x, now, s))
        data = predicted_data("v", process, x, output, now)
        noise = predicted_noise("v", process, x, output, now)
        if "clip" in bound:
            data = data.clamp(-0.7, 0.7)
        else:
            size = data.abs().quantile(0.9, dim=1, keepdim=True).clamp(1, 1.5)
            data = data.clamp(-size, size) / size
        x = (process.alpha(t) * data + process.sigma(t) * noise).float()
    torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-5)


def combined_rows(result):
    return torch.einsum("bi,ibn->bn", result.weights.float(), torch.stack(result.outputs))


@pytest.mark.parametrize("kind", ["eps", "v", "sample"])
@pytest.mark.parametrize("clip", [math.inf, 0.8])
def test_cfg_plus_plus_renoises_with_the_null_output(kind, clip):
    """Chung et al. 2024, algorithm 2: x_t = alpha_t D(F_guided) + sigma_t eps(F_null)."""
    process, weight, model = VP(), 0.6, Denoiser()
    times = uniform(process, 6, start=0.9, end=0.0)
    x = torch.randn(3, 4)
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, weight, null_noise=True)
    result = sample(guided, x, DDIM(clip=clip).plan(process, kind, times))
    for s, t in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        now = torch.full((3,), s)
        strong, weak = model(x, now, y=Y), model(x, now, y=NULL.expand(3))
        data = predicted_data(kind, process, x, weak + weight * (strong - weak), now)
        eps = predicted_noise(kind, process, x, weak, now)
        x = process.alpha(t) * data.clamp(-clip, clip) + process.sigma(t) * eps
        x = x.float()
    torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-5)


def test_cfg_plus_plus_with_ancestral_noise():
    process, model = EDM(), Denoiser()
    times = karras(process, 5, sigma_min=0.1, sigma_max=10.0)
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, 0.6, null_noise=True)
    start, noise = 10 * torch.randn(3, 4), torch.randn(5, 3, 4)
    result = sample(guided, start, DDIM(eta=1.0).plan(process, "sample", times), noise=noise)
    x = start
    for i, (s, t) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        now = torch.full((3,), s)
        strong, weak = model(x, now, y=Y), model(x, now, y=NULL.expand(3))
        up = math.sqrt(t**2 * (s**2 - t**2) / s**2)
        data = weak + 0.6 * (strong - weak)
        x = data + math.sqrt(t**2 - up**2) * (x - weak) / s + up * noise[i]
    torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-4)


def test_cfg_plus_plus_outside_its_interval_is_the_conditional_model():
    model = Denoiser()
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, 0.6, null_noise=True, interval=(2.0, 3.0))
    x = torch.randn(3, 4)
    plan = DDIM().plan(VP(), "eps", uniform(VP(), 5, start=0.9))
    expected = sample(lambda x, t: model(x, t, y=Y), x, plan)
    torch.testing.assert_close(sample(guided, x, plan), expected)


def test_solvers_without_a_noise_part_refuse_cfg_plus_plus():
    guided = ClassifierFree(Denoiser(), {"y": Y}, {"y": NULL}, 0.6, null_noise=True)
    plan = Heun().plan(VP(), "eps", uniform(VP(), 5, start=0.9, end=0.1))
    with pytest.raises(NotImplementedError, match="heun has no noise part"):
        sample(guided, torch.randn(3, 4), plan)
