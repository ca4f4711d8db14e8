"""Losses against their formulas, their optimum on Gaussian data, times, weights, wrong arguments."""

import math

import pytest
import torch

from suffuse.diffusion import (
    EDM,
    PREDICTIONS,
    VP,
    Flow,
    denoising_loss,
    edm_preconditioned,
    flow_matching_loss,
    logit_normal_times,
    min_snr_weight,
    predicted_data,
    prediction_target,
)


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


@pytest.mark.parametrize(
    "kind", [*PREDICTIONS, edm_preconditioned(0.5)], ids=lambda k: getattr(k, "name", k)
)
def test_min_snr_weight_bounds_the_error_of_the_data_estimate(kind):
    x0, noise, output = data()
    t = torch.tensor([0.02, 0.1, 0.3, 0.6, 0.95])
    process = VP()
    loss = denoising_loss(
        Recorder(output),
        x0,
        process=process,
        prediction=kind,
        t=t,
        noise=noise,
        weight=min_snr_weight(kind, gamma=5.0),
    )
    estimate = predicted_data(kind, process, process.add_noise(x0, noise, t), output, t)
    snr = (process.alpha(t) / process.sigma(t)) ** 2
    weight = snr.clamp(max=5.0)
    error = ((estimate - x0) ** 2).mean((1, 2))
    torch.testing.assert_close(loss, (weight * error).mean(), rtol=1e-3, atol=0)


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


def test_logit_normal_times():
    t = logit_normal_times(50_000, mean=0.5, std=2.0, generator=torch.Generator().manual_seed(0))
    logits = torch.logit(t.double())
    assert t.dtype == torch.float32
    assert ((t > 0) & (t < 1)).all()
    assert logits.mean().item() == pytest.approx(0.5, abs=0.03)
    assert logits.std().item() == pytest.approx(2.0, abs=0.03)


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
        (lambda m, x: logit_normal_times(3, std=0.0), "std is 0.0"),
        (lambda m, x: min_snr_weight("v", gamma=-1.0), "gamma is -1.0"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    x0, _, output = data()
    with pytest.raises(ValueError, match=message):
        call(Recorder(output), x0)
