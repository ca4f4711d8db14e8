"""Guidance: weights, one batched call or two, intervals, wrong arguments."""

import pytest
import torch

from suffuse.diffusion import ClassifierFree, Euler, Flow, Unguided, sample, uniform


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
    torch.testing.assert_close(guided.outputs(X, T, 0.5)[0], model(X, T, y=Y, scale=2.0))


@pytest.mark.parametrize("batched", [True, False])
def test_classifier_free_is_extrapolation(batched):
    model = Denoiser()
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, 3.0, batched=batched)
    outputs, weights = guided.outputs(X, T, 0.5), guided.weights(0.5)
    assert model.batches == ([6] if batched else [3, 3])
    combined = sum(w * f for w, f in zip(weights, outputs, strict=True))
    with_y, without = model(X, T, y=Y), model(X, T, y=NULL.expand(3))
    torch.testing.assert_close(combined, without + 3.0 * (with_y - without))


def test_batched_outputs_are_views_of_one_result():
    guided = ClassifierFree(Denoiser(), {"y": Y}, {"y": NULL}, 3.0)
    first, second = guided.outputs(X, T, 0.5)
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


@pytest.mark.parametrize(("weight", "label"), [(1.0, Y), (0.0, NULL.expand(3))])
def test_one_output_is_enough_for_weights_0_and_1(weight, label):
    model = Denoiser()
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, weight)
    assert guided.weights(0.5) == (1.0,)
    (output,) = guided.outputs(X, T, 0.5)
    assert model.batches == [3]
    torch.testing.assert_close(output, model(X, T, y=label))


def test_outside_the_interval_the_condition_is_used_alone():
    model = Denoiser()
    guided = ClassifierFree(model, {"y": Y}, {"y": NULL}, 3.0, interval=(0.2, 0.6))
    assert [len(guided.weights(time)) for time in (0.1, 0.2, 0.6, 0.7)] == [1, 2, 2, 1]
    assert [len(guided.outputs(X, T, time)) for time in (0.1, 0.2, 0.6, 0.7)] == [1, 2, 2, 1]
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


def test_values_that_are_no_tensors_are_passed_on():
    model = Denoiser()
    conditions = {"y": Y, "scale": 2.0}, {"y": NULL, "scale": 2.0}
    doubled = ClassifierFree(model, *conditions, 3.0).outputs(X, T, 0.5)
    plain = ClassifierFree(model, {"y": Y}, {"y": NULL}, 3.0).outputs(X, T, 0.5)
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
    ],
)
def test_wrong_arguments_are_named(condition, null, options, message):
    with pytest.raises(ValueError, match=message):
        ClassifierFree(Denoiser(), condition, null, 2.0, **options)


def test_a_condition_of_another_batch_is_named():
    guided = ClassifierFree(Denoiser(), {"y": Y[:2]}, {"y": NULL}, 2.0)
    with pytest.raises(ValueError, match="condition y has batch 2, expected 3 like x"):
        guided.outputs(X, T, 0.5)
