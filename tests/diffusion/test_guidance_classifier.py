"""Classifier guidance against the closed form on Gaussian classes."""

import math

import pytest
import torch

from suffuse.diffusion import (
    EDM,
    PREDICTIONS,
    VP,
    ClassifierFree,
    ClassifierGuided,
    Composed,
    DPMSolverPP2M,
    Euler,
    Flow,
    Heun,
    Projected,
    converted_prediction,
    edm_preconditioned,
    sample,
    uniform_lambda,
)

MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
STD = 0.5
KINDS = [*PREDICTIONS.values(), edm_preconditioned(0.5)]


class Classes:
    """Two Gaussian classes of equal weight: exact scores, and the exact classifier at any time."""

    def __init__(self, process):
        self.process = process

    def log_densities(self, x, time):
        alpha, sigma = self.process.alpha(time), self.process.sigma(time)
        variance = (alpha * STD) ** 2 + sigma**2
        square = ((x[:, None] - alpha * MEANS) ** 2).sum(-1)
        return -0.5 * square / variance - torch.log(2 * math.pi * variance)

    def score(self, x, time, label=None):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_p = self.log_densities(x, time)
            value = torch.logsumexp(log_p, 1) if label is None else log_p[:, label]
            return torch.autograd.grad(value.sum(), x)[0]

    def log_probability(self, x, time, label):
        return self.log_densities(x, time).log_softmax(1)[:, label]

    def output(self, kind, x, time, label=None):
        """The exact model output of this kind, at x_t."""
        t = torch.full((len(x),), time, dtype=x.dtype)
        score = self.score(x, time, label)
        return converted_prediction("score", kind, self.process, x, score, t)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
@pytest.mark.parametrize("process", [VP(), Flow(), EDM()], ids=lambda p: type(p).__name__)
def test_the_guided_score_is_the_conditional_one(process, kind):
    classes, time = Classes(process), 0.4 * process.t_max
    x = torch.randn(5, 2, dtype=torch.float64) * process.sigma(time)
    alpha, sigma = process.alpha(time), process.sigma(time)
    scale = 1.0 if kind.input_scale is None else kind.input_scale(alpha, sigma)
    guided = ClassifierGuided(
        lambda x_in, t: classes.output(kind, x_in / scale, time),
        lambda x_t, t: classes.log_probability(x_t, time, 0),
        1.0,
        process=process,
        prediction=kind,
    )
    t = torch.full((5,), time, dtype=torch.float64)
    result, weights = guided.outputs(x * scale, t, time), guided.weights(time)
    combined = sum(w * f for w, f in zip(weights, result.outputs, strict=True))
    expected = classes.output(kind, x, time, label=0)
    torch.testing.assert_close(combined, expected, rtol=1e-6, atol=1e-6)


def guided_model(process, weight, **options):
    """Takes times from the model's own argument, so that it can be sampled."""
    classes = Classes(process)
    return ClassifierGuided(
        lambda x, t: classes.output("eps", x, t[0].item()),
        lambda x, t: classes.log_probability(x, t[0].item(), 0),
        weight,
        process=process,
        prediction="eps",
        **options,
    )


@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMSolverPP2M()], ids=lambda s: s.name)
def test_sampling_with_the_classifier_is_sampling_of_the_class(solver):
    process = VP()
    times = uniform_lambda(process, 12, sigma_min=0.05, sigma_max=20.0)
    plan = solver.plan(process, "eps", times)
    x = torch.randn(6, 2, dtype=torch.float64)
    classes = Classes(process)
    result = sample(guided_model(process, 1.0), x, plan)
    expected = sample(lambda x, t: classes.output("eps", x, t[0].item(), label=0), x, plan)
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)
    plain = sample(guided_model(process, 0.0), x, plan)
    more = sample(guided_model(process, 3.0), x, plan)
    distance = [(y - MEANS[0]).norm(dim=1).mean() for y in (plain, result, more)]
    assert distance[0] > distance[1] > distance[2]


def test_outside_the_interval_the_classifier_is_not_called():
    guided = guided_model(VP(), 2.0, interval=(0.3, 0.6))
    x = torch.randn(2, 2, dtype=torch.float64)
    for time, count in ((0.2, 1), (0.3, 2), (0.6, 2), (0.7, 1)):
        t = torch.full((2,), time, dtype=torch.float64)
        assert len(guided.outputs(x, t, time).outputs) == len(guided.weights(time)) == count


@pytest.mark.parametrize("combine", [None, Projected(eta=0.3, momentum=0.5)])
def test_the_gradient_joins_other_guidance(combine):
    process, time = VP(), 0.4
    classes = Classes(process)

    def denoiser(x, t, *, label):
        return classes.output("eps", x, time, label)

    inner = ClassifierFree(
        denoiser, {"label": 1}, {"label": None}, 2.0, batched=False, combine=combine
    )
    guided = ClassifierGuided(
        inner,
        lambda x, t: classes.log_probability(x, time, 0),
        1.5,
        process=process,
        prediction="eps",
    )
    x, t = torch.randn(3, 2, dtype=torch.float64), torch.full((3,), time, dtype=torch.float64)
    alone, joined = inner.outputs(x, t, time), guided.outputs(x, t, time)
    assert len(joined.outputs) == len(alone.outputs) + 1
    torch.testing.assert_close(joined.outputs[:-1], alone.outputs)
    gradient = classes.score(x, time, 0) - classes.score(x, time)
    torch.testing.assert_close(joined.outputs[-1], gradient)
    own = -1.5 * process.sigma(time).item()
    if combine is None:
        assert guided.weights(time) == pytest.approx((2.0, -1.0, own))
    else:
        assert guided.weights(time) is None
        torch.testing.assert_close(joined.weights[:, :-1], alone.weights)
        assert joined.weights[:, -1].tolist() == pytest.approx([own] * 3)
        assert joined.state is not None


def test_classifier_errors():
    options = {"process": VP(), "prediction": "eps"}
    plus_plus = ClassifierFree(lambda x, t: x, {}, {}, 0.6, null_noise=True)
    with pytest.raises(NotImplementedError, match="separate_noise"):
        ClassifierGuided(plus_plus, lambda x, t: x[:, 0], 1.0, **options)
    with pytest.raises(ValueError, match=r"interval is \(0.6, 0.2\)"):
        ClassifierGuided(plus_plus.outputs, lambda x, t: x, 1.0, interval=(0.6, 0.2), **options)
    x, t = torch.randn(2, 3), torch.full((2,), 0.5)
    wrong = ClassifierGuided(lambda x, t: x, lambda x, t: x, 1.0, **options)
    with pytest.raises(ValueError, match=r"log_probability has shape \(2, 3\), expected \(2,\)"):
        wrong.outputs(x, t, 0.5)
    four = Composed(lambda x, t: x, [{}] * 4, [0.25] * 4)
    full = ClassifierGuided(four, lambda x, t: x[:, 0], 1.0, **options)
    with pytest.raises(ValueError, match="guided has 4 outputs, expected at most 3"):
        full.outputs(x, t, 0.5)
    flow = ClassifierGuided(
        lambda x, t: x, lambda x, t: x[:, 0], 1.0, process=Flow(), prediction="v"
    )
    with pytest.raises(ValueError, match="prediction 'v' has no noise estimate at time 1"):
        flow.weights(1.0)
