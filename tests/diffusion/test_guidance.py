"""Guidance by fixed weights: batched calls, intervals, several prompts, wrong arguments."""

import pytest
import torch

from suffuse.diffusion import (
    AutoGuidance,
    ClassifierFree,
    Composed,
    Euler,
    Flow,
    Unguided,
    nested_weights,
    parallel_weights,
    sample,
    uniform,
)


class Denoiser:
    """Depends on input, time and condition; counts its calls and their batches."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, *, y, scale=1.0):
        self.batches.append(len(x))
        return scale * torch.tanh(x + y[:, None] * t[:, None])


X, T = torch.randn(3, 4), torch.full((3,), 0.5)
Y, NULL = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-0.5])


def test_unguided_passes_the_condition():
    model = Denoiser()
    guided = Unguided(model, y=Y, scale=2.0)
    assert guided.weights(0.5) == (1.0,)
    torch.testing.assert_close(guided.outputs(X, T, 0.5).outputs[0], model(X, T, y=Y, scale=2.0))


@pytest.mark.parametrize("batched", [True, False])
def test_classifier_free_is_extrapolation(batched):
    model = Denoiser()
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, 3.0, batched=batched)
    outputs, weights = guided.outputs(X, T, 0.5).outputs, guided.weights(0.5)
    assert model.batches == ([6] if batched else [3, 3])
    combined = sum(w * f for w, f in zip(weights, outputs, strict=True))
    with_y, without = model(X, T, y=Y), model(X, T, y=NULL.expand(3))
    torch.testing.assert_close(combined, without + 3.0 * (with_y - without))


def test_batched_outputs_are_views_of_one_result():
    guided = ClassifierFree(Denoiser(), {"y": Y}, {"y": NULL}, 3.0)
    first, second = guided.outputs(X, T, 0.5).outputs
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


@pytest.mark.parametrize(("weight", "label"), [(1.0, Y), (0.0, NULL.expand(3))])
def test_one_output_is_enough_for_weights_0_and_1(weight, label):
    model = Denoiser()
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, weight)
    assert guided.weights(0.5) == (1.0,)
    (output,) = guided.outputs(X, T, 0.5).outputs
    assert model.batches == [3]
    torch.testing.assert_close(output, model(X, T, y=label))


def test_outside_the_interval_the_condition_is_used_alone():
    model = Denoiser()
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, 3.0, interval=(0.2, 0.6))
    assert [len(guided.weights(time)) for time in (0.1, 0.2, 0.6, 0.7)] == [1, 2, 2, 1]
    counts = [len(guided.outputs(X, T, time).outputs) for time in (0.1, 0.2, 0.6, 0.7)]
    assert counts == [1, 2, 2, 1]
    plan = Euler().plan(Flow(), "flow", uniform(Flow(), 10))
    model.batches.clear()
    sample(guided, X, plan)
    assert model.batches == [3] * 4 + [6] * 5 + [3]


def test_guided_sampling_equals_sampling_of_the_combined_model():
    model = Denoiser()
    plan = Euler().plan(Flow(), "flow", uniform(Flow(), 10))
    guided = sample(ClassifierFree(model, {"y": Y}, {"y": NULL}, 2.5), X, plan)

    def combined(x, t):
        without = model(x, t, y=NULL.expand(3))
        return without + 2.5 * (model(x, t, y=Y) - without)

    torch.testing.assert_close(guided, sample(combined, X, plan), rtol=1e-5, atol=1e-6)


def test_every_sample_may_have_a_weight_of_its_own():
    model, weight = Denoiser(), torch.tensor([0.0, 1.0, 3.5])
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, weight)
    assert guided.weights(0.5) is None
    result = guided.outputs(X, T, 0.5)
    torch.testing.assert_close(result.weights, torch.stack([weight, 1 - weight], 1))
    plan = Euler().plan(Flow(), "flow", uniform(Flow(), 5))
    together = sample(guided, X, plan)
    for i, w in enumerate(weight.tolist()):
        alone = ClassifierFree(model, {"y": Y[i : i + 1]}, {"y": NULL}, w)
        expected = sample(alone, X[i : i + 1], plan)
        torch.testing.assert_close(together[i : i + 1], expected, rtol=1e-5, atol=1e-6)


def test_a_weight_of_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"weight has shape \(2, 2\), expected \(\) or \[B\]"):
        ClassifierFree(Denoiser(), {"y": Y}, {"y": NULL}, torch.ones(2, 2))


def test_the_original_formula_counts_from_the_conditional_output():
    model = Denoiser()
    original = ClassifierFree(model, {"y": Y}, {"y": NULL}, 2.0, original=True)
    assert original.weights(0.5) == (3.0, -2.0)
    alone = ClassifierFree(model, {"y": Y}, {"y": NULL}, 0.0, original=True)
    torch.testing.assert_close(alone.outputs(X, T, 0.5).outputs[0], model(X, T, y=Y))


def test_autoguidance_moves_away_from_the_weaker_model():
    strong, weak = Denoiser(), Denoiser()
    guided = AutoGuidance(strong, weak, {"y": Y}, 2.5, weak_condition={"y": NULL.expand(3)})
    assert guided.weights(0.5) == (2.5, -1.5)
    outputs = guided.outputs(X, T, 0.5).outputs
    assert (strong.batches, weak.batches) == ([3], [3])
    torch.testing.assert_close(outputs[0], strong(X, T, y=Y))
    torch.testing.assert_close(outputs[1], weak(X, T, y=NULL.expand(3)))
    same = AutoGuidance(strong, weak, {"y": Y}, 2.5, interval=(0.6, 1.0))
    torch.testing.assert_close(same.outputs(X, T, 0.7).outputs[1], weak(X, T, y=Y))
    assert len(same.outputs(X, T, 0.5).outputs) == 1


@pytest.mark.parametrize("batched", [True, False])
def test_two_prompts_in_parallel_and_nested(batched):
    model, other = Denoiser(), torch.tensor([0.3, -2.0, 5.0])
    conditions = [{"y": Y}, {"y": other}, {"y": NULL}]
    first, second, null = (model(X, T, y=c["y"].expand(3)) for c in conditions)
    model.batches.clear()

    def combined(weights):
        guided = Composed(model, conditions, weights, batched=batched)
        outputs = guided.outputs(X, T, 0.5).outputs
        return sum(w * f for w, f in zip(guided.weights(0.5), outputs, strict=True))

    parallel = null + 2.0 * (first - null) - 0.5 * (second - null)
    torch.testing.assert_close(combined(parallel_weights(2.0, -0.5)), parallel)
    nested = null + 1.5 * (second - null) + 4.0 * (first - second)
    torch.testing.assert_close(combined(nested_weights(4.0, 1.5)), nested)
    assert model.batches == ([9, 9] if batched else [3] * 6)


def test_more_conditions_than_weights_are_named():
    with pytest.raises(ValueError, match="got 2 conditions and 1 weights, expected 1 to 4"):
        Composed(Denoiser(), [{"y": Y}, {"y": NULL}], [1.0])
    with pytest.raises(ValueError, match=r"conditions\[1\] has names \['z'\], expected \['y'\]"):
        Composed(Denoiser(), [{"y": Y}, {"z": NULL}], [1.0, 2.0])


def test_values_that_are_no_tensors_are_passed_on():
    model = Denoiser()
    conditions = {"y": Y, "scale": 2.0}, {"y": NULL, "scale": 2.0}
    doubled = ClassifierFree(model, *conditions, 3.0).outputs(X, T, 0.5).outputs
    plain = ClassifierFree(model, {"y": Y}, {"y": NULL}, 3.0).outputs(X, T, 0.5).outputs
    torch.testing.assert_close(doubled[0], 2 * plain[0])
    torch.testing.assert_close(doubled[1], 2 * plain[1])


@pytest.mark.parametrize(
    ("condition", "null", "options", "message"),
    [
        ({"y": Y}, {"z": NULL}, {}, r"names \['z'\], expected \['y'\]"),
        ({"y": Y}, {"y": Y[:2]}, {}, r"null_condition y has shape \(2,\), expected \(3,\)"),
        ({"y": Y}, {"y": 0.0}, {}, "y is a tensor in one condition only"),
        ({"y": Y, "s": 1.0}, {"y": NULL, "s": 2.0}, {}, "s differs between the conditions"),
        ({"y": Y}, {"y": NULL}, {"interval": (0.6, 0.2)}, r"interval is \(0.6, 0.2\)"),
        ({"y": Y}, {"y": NULL}, {"rescale": 1.5}, "rescale is 1.5"),
    ],
)
def test_wrong_arguments_are_named(condition, null, options, message):
    with pytest.raises(ValueError, match=message):
        ClassifierFree(Denoiser(), condition, null, 2.0, **options)


def test_a_condition_of_another_batch_is_named():
    guided = ClassifierFree(Denoiser(), {"y": Y[:2]}, {"y": NULL}, 2.0)
    with pytest.raises(ValueError, match="condition y has batch 2, expected 3 like x"):
        guided.outputs(X, T, 0.5)
