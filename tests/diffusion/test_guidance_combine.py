"""Guidance in the span of its outputs: against diffusers' guiders."""

import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    MagnitudeAwareGuidance,
    TangentialClassifierFreeGuidance,
)
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

from suffuse.diffusion import (
    AutoGuidance,
    ClassifierFree,
    MagnitudeAware,
    PerpendicularNegative,
    Projected,
    Tangential,
    ZeroStar,
)

SHAPE = (3, 4, 6, 5)
X, T = torch.zeros(SHAPE), torch.full((3,), 0.5)
CONDITIONS = {"which": 0}, {"which": 1}


class Fixed:
    """A denoiser that returns given tensors: with the condition, without it."""

    def __init__(self, *outputs):
        self.outputs = outputs
        self.calls = 0

    def __call__(self, x, t, *, which):
        self.calls += 1
        return self.outputs[which]


def pair(shift=0.0, dtype=torch.float32):
    strong, weak = torch.randn(2, *SHAPE).unbind(0)
    return (strong + 0.5 * weak + shift).to(dtype), weak.to(dtype)


def guided_by(outputs, weight, **options):
    return ClassifierFree(Fixed(*outputs), *CONDITIONS, weight, batched=False, **options)


def combined(result):
    weights = result.weights[..., None, None, None]
    stacked = torch.stack([output.to(weights.dtype) for output in result.outputs], 1)
    return (weights * stacked).sum(1).float()


KINDS = {
    "apg": (
        Projected(eta=0.3, norm=5.0),
        AdaptiveProjectedGuidance,
        {"eta": 0.3, "adaptive_projected_guidance_rescale": 5.0},
    ),
    "apg-without-bound": (
        Projected(),
        AdaptiveProjectedGuidance,
        {"eta": 0.0, "adaptive_projected_guidance_rescale": 0.0},
    ),
    "zero-star": (ZeroStar(), ClassifierFreeZeroStarGuidance, {}),
    "tcfg": (Tangential(), TangentialClassifierFreeGuidance, {}),
    "mambo": (MagnitudeAware(decay=0.7), MagnitudeAwareGuidance, {"alpha": 0.7}),
    "plain": (None, ClassifierFreeGuidance, {}),
}


def peer_of(kind, weight, rescale=0.0, original=False, **options):
    guider = KINDS[kind][1](
        guidance_scale=weight,
        guidance_rescale=rescale,
        use_original_formulation=original,
        **KINDS[kind][2],
        **options,
    )
    guider.set_state(3, 20, None)
    return guider


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_combinations_are_those_of_diffusers(kind, rescale, original):
    outputs = pair(shift=0.3)
    options = {"combine": KINDS[kind][0], "rescale": rescale, "original": original}
    guided = guided_by(outputs, 4.0, **options)
    result = guided.outputs(X, T, 0.5, step=3)
    if kind == "plain" and rescale == 0:
        assert guided.weights(0.5, 3) == ((5.0, -4.0) if original else (4.0, -3.0))
        return
    assert guided.weights(0.5, 3) is None
    # One of the peers takes norms over at most two dimensions.
    flat = [output.flatten(2) for output in outputs]
    expected = peer_of(kind, 4.0, rescale, original).forward(*flat).pred.reshape(SHAPE)
    torch.testing.assert_close(combined(result), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_tangential_guidance_takes_either_output_as_the_longer_one(order):
    outputs = pair(shift=0.3)
    outputs = (outputs[0] * 3.0**order, outputs[1])
    result = guided_by(outputs, 4.0, combine=Tangential()).outputs(X, T, 0.5)
    expected = peer_of("tcfg", 4.0).forward(*outputs).pred
    torch.testing.assert_close(combined(result), expected, rtol=1e-4, atol=1e-5)


def test_rescaled_guidance_has_the_deviation_of_the_conditional_output():
    outputs = pair(shift=2.0)
    result = combined(guided_by(outputs, 5.0, rescale=1.0).outputs(X, T, 0.5))
    std = outputs[0].flatten(1).std(1)
    torch.testing.assert_close(result.flatten(1).std(1), std, rtol=1e-5, atol=0)


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("rescale", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_momentum_runs_over_the_steps_of_one_run(dtype, rescale, original):
    rule = Projected(eta=0.3, norm=5.0, momentum=-0.5)
    guider = peer_of("apg", 4.0, rescale, original)
    guider.momentum_buffer = MomentumBuffer(-0.5)
    state = None
    for step in range(4):
        outputs = pair(dtype=dtype)
        guided = guided_by(outputs, 4.0, combine=rule, rescale=rescale, original=original)
        result = guided.outputs(X, T, 0.5, step, state)
        state = result.state
        assert len(result.outputs) == 3
        assert {output.dtype for output in result.outputs} == {dtype}
        assert state.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        expected = guider.forward(*(output.double() for output in outputs)).pred
        tolerance = 0.03 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(
            combined(result), expected.float(), rtol=tolerance, atol=tolerance
        )


def test_a_new_run_starts_without_momentum():
    rule, outputs = Projected(momentum=0.9), pair()
    guided = guided_by(outputs, 4.0, combine=rule)
    first = guided.outputs(X, T, 0.5)
    guided.outputs(X, T, 0.5, state=first.state)
    torch.testing.assert_close(combined(guided.outputs(X, T, 0.5)), combined(first))


def test_zero_star_stands_still_in_its_first_steps_without_a_model_call():
    model = Fixed(*pair())
    guided = ClassifierFree(model, *CONDITIONS, 4.0, batched=False, combine=ZeroStar(zero_steps=2))
    for step in (0, 1):
        result = guided.outputs(X, T, 0.9, step)
        assert guided.weights(0.9, step) == (1.0,)
        assert not result.outputs[0].any()
    assert model.calls == 0
    assert guided.weights(0.9, 2) is None
    assert len(guided.outputs(X, T, 0.9, 2).outputs) == 2


def test_identical_or_empty_outputs_give_finite_weights():
    same = torch.randn(SHAPE)
    for strong, weak in ((same, same), (torch.zeros(SHAPE), torch.zeros(SHAPE))):
        for combine in (Projected(norm=1.0), ZeroStar(), Tangential(), MagnitudeAware()):
            guided = guided_by((strong, weak), 4.0, combine=combine, rescale=0.5)
            result = combined(guided.outputs(X, T, 0.5, step=1))
            torch.testing.assert_close(result, strong, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("combine", [None, ZeroStar(), Projected(norm=3.0)])
def test_autoguidance_takes_the_same_rules(combine):
    strong, weak = pair()
    options = {"combine": combine, "rescale": 0.4}
    both = AutoGuidance(lambda x, t: strong, lambda x, t: weak, {}, 3.0, **options)
    expected = guided_by((strong, weak), 3.0, **options).outputs(X, T, 0.5, step=1)
    result = both.outputs(X, T, 0.5, step=1)
    torch.testing.assert_close(combined(result), combined(expected))


def test_weights_of_single_samples_go_through_the_rules():
    outputs, weight = pair(), torch.tensor([1.0, 2.0, 5.0])
    for combine in (Projected(norm=3.0), ZeroStar(), Tangential(), MagnitudeAware(), None):
        options = {"combine": combine, "rescale": 0.5}
        together = guided_by(outputs, weight, **options).outputs(X, T, 0.5, step=1).weights
        for i, w in enumerate(weight.tolist()):
            alone = guided_by(outputs, w, **options).outputs(X, T, 0.5, step=1).weights
            torch.testing.assert_close(together[i], alone[i])


def test_perpendicular_negative_prompts():
    positive, negative, null = torch.randn(3, *SHAPE, dtype=torch.float64).unbind(0)
    negative = negative + 0.8 * positive
    guided = PerpendicularNegative(
        Fixed(positive, negative, null),
        {"which": 0},
        {"which": 1},
        {"which": 2},
        4.0,
        negative_weight=0.6,
        batched=False,
    )
    p, n = positive - null, negative - null
    along = (n * p).sum((1, 2, 3), keepdim=True) / (p * p).sum((1, 2, 3), keepdim=True)
    expected = null + 4.0 * (p - 0.6 * (n - along * p))
    result = guided.outputs(X.double(), T, 0.5)
    assert guided.weights(0.5) is None
    torch.testing.assert_close(combined(result), expected.float())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Projected(norm=0.0), "Projected: norm is 0.0"),
        (lambda: ZeroStar(zero_steps=-1), "ZeroStar: zero_steps is -1"),
        (lambda: MagnitudeAware(decay=-1.0), "MagnitudeAware: decay is -1.0"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
