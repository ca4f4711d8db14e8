"""Losses against their formulas, their optimum on Gaussian data, draws, wrong arguments."""

import math

import pytest
import torch

from suffuse.diffusion import (
    EDM,
    VP,
    Flow,
    cosmap_weight,
    denoising_loss,
    edm_preconditioned,
    flow_matching_loss,
    multiscale_loss,
    optimal_pairing,
    ot_flow_matching_loss,
    prediction_target,
)


def multiscale(model, x0, **options):
    return multiscale_loss(model, x0, process=Flow(), prediction="flow", **options)


class Recorder:
    """A denoiser that keeps what it was called with and returns a fixed tensor."""

    def __init__(self, output):
        self.output = output

    def __call__(self, x, t, **condition):
        self.x, self.t, self.condition = x, t, condition
        return self.output


def data(batch=5):
    return torch.randn(3, batch, 4, 2).unbind(0)


def test_flow_matching_loss_is_its_formula():
    x0, noise, output = data()
    t = torch.rand(5)
    model = Recorder(output)
    loss = flow_matching_loss(model, x0, t=t, noise=noise, label=7)
    u = t[:, None, None]
    torch.testing.assert_close(model.x, (1 - u) * x0 + u * noise)
    assert model.t is t
    assert model.condition == {"label": 7}
    torch.testing.assert_close(loss, ((output - (noise - x0)) ** 2).mean())


@pytest.mark.parametrize("shape", [(3, 2, 16, 16), (3, 16, 24), (2, 3, 4, 8, 8)])
def test_multiscale_loss_is_the_sum_over_sides(shape):
    x0, noise, output = torch.randn(3, *shape).unbind(0)
    t, weight = torch.linspace(0.2, 0.8, shape[0]), torch.arange(1.0, shape[0] + 1)
    loss = multiscale_loss(
        Recorder(output),
        x0,
        process=VP(),
        prediction="v",
        smallest=4,
        t=t,
        noise=noise,
        weight=lambda alpha, sigma: weight,
    )
    error = output - prediction_target("v", VP(), x0, noise, t)
    expected, side = torch.zeros(()), min(shape[-2:])
    for factor in (1, 2, 4):
        if side // factor >= 4:
            h, w = shape[-2] // factor, shape[-1] // factor
            blocks = error.reshape(*shape[:-2], h, factor, w, factor).mean((-3, -1))
            square = (blocks**2).flatten(1).mean(1)
            expected = expected + (weight * square).mean() / (side // factor)
    torch.testing.assert_close(loss, expected)


def test_multiscale_loss_of_one_side_is_the_denoising_loss():
    x0, noise, output = torch.randn(3, 2, 1, 8, 8).unbind(0)
    given = {"process": Flow(), "prediction": "flow", "t": torch.rand(2), "noise": noise}
    loss = multiscale_loss(Recorder(output), x0, smallest=8, **given)
    torch.testing.assert_close(loss, denoising_loss(Recorder(output), x0, **given) / 8)


def test_ot_flow_matching_pairs_noise_with_data():
    x0, noise, output = torch.randn(3, 32, 3).unbind(0)
    t = torch.rand(32)
    model = Recorder(output)
    loss = ot_flow_matching_loss(model, x0, t=t, noise=noise, label=7)
    paired = noise[optimal_pairing(x0, noise)]
    torch.testing.assert_close(model.x, (1 - t[:, None]) * x0 + t[:, None] * paired)
    torch.testing.assert_close(loss, ((output - (paired - x0)) ** 2).mean())
    assert model.condition == {"label": 7}
    assert (paired - x0).square().sum() < (noise - x0).square().sum()


def test_ot_flow_matching_draws_times_then_noise():
    x0, _, output = data()
    model, generator = Recorder(output), torch.Generator().manual_seed(4)
    ot_flow_matching_loss(model, x0, generator=torch.Generator().manual_seed(4))
    t = torch.rand(5, generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    assert torch.equal(model.t, t)
    paired = noise[optimal_pairing(x0, noise)]
    torch.testing.assert_close(model.x, Flow().add_noise(x0, paired, t))


def test_flow_matching_loss_takes_weights():
    x0, noise, output = data()
    t = torch.rand(5)
    loss = flow_matching_loss(Recorder(output), x0, t=t, noise=noise, weight=cosmap_weight)
    weight = 2 / (math.pi * (1 - 2 * t + 2 * t**2))
    square = ((output - (noise - x0)) ** 2).mean((1, 2))
    torch.testing.assert_close(loss, (weight * square).mean())


def test_times_then_noise_are_drawn_from_the_generator():
    x0, _, output = data()
    model = Recorder(output)
    flow_matching_loss(model, x0, generator=torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    t = torch.rand(5, generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    assert torch.equal(model.t, t)
    torch.testing.assert_close(model.x, Flow().add_noise(x0, noise, t))


@pytest.mark.parametrize("kind", ["eps", "sample", "v", "flow", "score"])
def test_denoising_loss_is_its_formula_with_weights(kind):
    x0, noise, output = data()
    t = torch.linspace(0.1, 0.9, 5)
    weight = torch.arange(1.0, 6.0)
    loss = denoising_loss(
        Recorder(output),
        x0,
        process=VP(),
        prediction=kind,
        t=t,
        noise=noise,
        weight=lambda alpha, sigma: weight,
    )
    target = prediction_target(kind, VP(), x0, noise, t)
    per_sample = ((output - target) ** 2).mean((1, 2))
    torch.testing.assert_close(loss, (weight * per_sample).mean())


def test_edm_loss_is_equation_8_of_the_paper():
    x0, noise, output = data()
    sigma = torch.tensor([0.05, 0.3, 1.0, 4.0, 30.0])
    model, kind = Recorder(output), edm_preconditioned(0.5)
    loss = denoising_loss(model, x0, process=EDM(), prediction=kind, t=sigma, noise=noise)
    s = sigma[:, None, None]
    x = x0 + s * noise
    q = torch.sqrt(s**2 + 0.25)
    torch.testing.assert_close(model.x, x / q)
    torch.testing.assert_close(model.t, sigma.log() / 4)
    denoised = 0.25 / q**2 * x + 0.5 * s / q * output
    paper = (q / (0.5 * s)) ** 2 * (denoised - x0) ** 2
    torch.testing.assert_close(loss, paper.mean(), rtol=1e-4, atol=0)


def test_gaussian_data_have_the_known_optimum():
    # For x0 ~ N(0, s^2), E[noise - x0 | x_t] = ((t - (1 - t) s^2) / v) x_t, v = (1-t)^2 s^2 + t^2,
    # and what is left of the loss is s^2 / v.
    s, t_value, batch = 0.6, 0.35, 400_000
    generator = torch.Generator().manual_seed(0)
    x0 = s * torch.randn(batch, 1, generator=generator, dtype=torch.float64)
    t = torch.full((batch,), t_value, dtype=torch.float64)
    v = (1 - t_value) ** 2 * s**2 + t_value**2
    slope = torch.tensor(
        (t_value - (1 - t_value) * s**2) / v, dtype=torch.float64, requires_grad=True
    )
    loss = flow_matching_loss(lambda x, t: slope * x, x0, t=t, generator=generator)
    (gradient,) = torch.autograd.grad(loss, slope)
    assert loss.item() == pytest.approx(s**2 / v, rel=0.01)
    assert abs(gradient.item()) < 0.01


def test_low_precision_data_give_a_float32_loss():
    x0, noise, output = (v.bfloat16() for v in data())
    model = Recorder(output)
    loss = flow_matching_loss(model, x0, t=torch.rand(5), noise=noise)
    assert model.x.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ((output.float() - (noise.float() - x0.float())) ** 2).mean())


def test_loss_trains_the_denoiser():
    x0, _, output = data()
    output.requires_grad_()
    flow_matching_loss(Recorder(output), x0).backward()
    assert output.grad.abs().sum() > 0
    assert math.isfinite(output.grad.abs().sum())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, x: flow_matching_loss(m, x, t=torch.rand(4)),
            r"t has shape \(4,\), expected \(5,\)",
        ),
        (lambda m, x: flow_matching_loss(m, x, noise=x[:2]), r"noise has shape \(2, 4, 2\)"),
        (lambda m, x: flow_matching_loss(lambda x, t: x[:, :1], x), r"returned shape \(5, 1, 2\)"),
        (lambda m, x: denoising_loss(m, x, process=VP(), prediction="x"), "prediction is 'x'"),
        (lambda m, x: ot_flow_matching_loss(m, x, noise=x[:2]), r"noise has shape \(2, 4, 2\)"),
        (lambda m, x: multiscale(m, x, smallest=3), r"x0 has shape \(5, 4, 2\), expected \[B, ..."),
        (lambda m, x: multiscale(m, x, smallest=2, t=torch.rand(4)), "multiscale_loss: t has"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    x0, _, output = data()
    with pytest.raises(ValueError, match=message):
        call(Recorder(output), x0)
