"""The loop: noise sources, dtypes, scaling of the model's input, callbacks, wrong arguments."""

import dataclasses

import pytest
import torch

from suffuse.diffusion import (
    DDIM,
    DDPM,
    EDM,
    SOLVERS,
    VP,
    DPMSolverPP2M,
    Euler,
    Flow,
    Guidance,
    Heun,
    Plan,
    Stage,
    edm_preconditioned,
    karras,
    predicted_data,
    sample,
    uniform,
)
from suffuse.diffusion.guidance import Guided
from suffuse.reference._philox import philox_normal

TIMES = uniform(VP(), 8)


def model(x, t):
    return torch.tanh(0.7 * x) + 0.1 * t.reshape(-1, *[1] * (x.dim() - 1))


def start(batch=3):
    return torch.randn(batch, 2, 5, generator=torch.Generator().manual_seed(0))


def test_a_seed_fixes_the_result():
    plan = DDIM(eta=1.0).plan(VP(), "v", TIMES)
    first = sample(model, start(), plan, seed=5)
    assert torch.equal(first, sample(model, start(), plan, seed=5))
    assert not torch.equal(first, sample(model, start(), plan, seed=6))


def test_without_a_seed_torch_decides():
    plan = DDIM(eta=1.0).plan(VP(), "v", TIMES)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(sample(model, start(), plan))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_seed_means_philox_numbers_of_its_stage():
    plan = DDIM(eta=0.7).plan(VP(), "v", TIMES)
    noise = torch.stack([philox_normal(start().shape, 5, i) for i in range(plan.steps)])
    by_seed, by_tensor = (
        sample(model, start(), plan, seed=5),
        sample(model, start(), plan, noise=noise),
    )
    torch.testing.assert_close(by_seed, by_tensor, rtol=1e-5, atol=1e-5)


def test_a_generator_draws_as_diffusers_does():
    plan = DDIM(eta=0.7).plan(VP(), "v", TIMES)
    assert [stage.noise != 0 for stage in plan.stages] == [True] * 7 + [False]
    generator = torch.Generator().manual_seed(9)
    by_generator = sample(model, start(), plan, generator=generator)
    again = torch.Generator().manual_seed(9)
    noise = torch.stack([torch.randn(start().shape, generator=again) for _ in range(7)])
    noise = torch.cat([noise, torch.full((1, *start().shape), torch.nan)])
    assert torch.equal(by_generator, sample(model, start(), plan, noise=noise))
    torch.randn(start().shape, generator=again)  # drawn in the last step, and not used
    assert torch.equal(generator.get_state(), again.get_state())
    plan = DDPM().plan(VP(), "v", TIMES)
    sample(model, start(), plan, generator=generator.manual_seed(9))
    again.manual_seed(9)
    for _ in range(7):
        torch.randn(start().shape, generator=again)
    assert torch.equal(generator.get_state(), again.get_state())


def test_plans_without_noise_leave_the_random_state_alone():
    generator = torch.Generator().manual_seed(9)
    before, default = generator.get_state(), torch.get_rng_state()
    sample(model, start(), Heun().plan(VP(), "v", TIMES), generator=generator)
    sample(model, start(), DDIM().plan(VP(), "v", TIMES))
    assert torch.equal(before, generator.get_state())
    assert torch.equal(default, torch.get_rng_state())


PLAIN = [name for name in SOLVERS if name != "repaint"]  # which needs a known picture


@pytest.mark.parametrize("name", PLAIN)
def test_low_precision_models_get_a_float32_sample(name):
    plan = SOLVERS[name]().plan(VP(), "v", TIMES)
    seen = set()

    def half(x, t):
        seen.add((x.dtype, t.dtype))
        return model(x, t).to(x.dtype)

    x = start()
    result = sample(half, x, plan, model_dtype=torch.bfloat16, seed=7)
    assert seen == {(torch.bfloat16, torch.float32)}
    assert result.dtype == torch.float32
    exact = sample(model, x.double(), plan, seed=7)
    assert exact.dtype == torch.float64
    assert (result - exact).abs().max() < 0.03 * exact.abs().max()
    assert not torch.equal(result, result.bfloat16().float())
    from_half = sample(half, x.bfloat16(), plan, seed=7)
    assert from_half.dtype == torch.float32


@pytest.mark.parametrize("name", PLAIN)
def test_a_preconditioned_model_gets_its_scaled_input_and_time(name):
    kind, process = edm_preconditioned(0.5), EDM()
    times = karras(process, 6, sigma_min=0.01, sigma_max=80.0)
    raw = SOLVERS[name]().plan(process, kind, times)
    direct = SOLVERS[name]().plan(process, "sample", times)
    x = 80 * start().double()

    def network(y, c_noise):
        return torch.tanh(y) * c_noise.exp()[:, None, None]

    def denoiser(x, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        scale = kind.input_scale(alpha, sigma)[:, None, None]
        output = network(scale * x, kind.model_time(alpha, sigma))
        return predicted_data(kind, process, x, output, t)

    expected = sample(denoiser, x, direct, seed=7)
    got = sample(network, x, raw, seed=7)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_callback_sees_every_step_and_x_is_left_alone():
    x, seen = start(), []
    kept = x.clone()
    plan = Heun().plan(VP(), "v", TIMES)
    result = sample(model, x, plan, callback=lambda *step: seen.append(step))
    assert [(i, n) for i, n, _, _ in seen] == [(i, 8) for i in range(8)]
    assert [time for _, _, time, _ in seen] == TIMES[1:].tolist()
    assert torch.equal(seen[-1][3], result)
    assert torch.equal(x, kept)


def test_progress_bar_counts_steps(capsys):
    plan = Heun().plan(VP(), "v", TIMES)
    sample(model, start(), plan, progress=True)
    assert "8/8" in capsys.readouterr().err
    sample(model, start(), plan)
    assert capsys.readouterr().err == ""


def test_no_gradients_are_kept():
    weight = torch.ones((), requires_grad=True)
    plan = Euler().plan(VP(), "v", TIMES)
    assert not sample(lambda x, t: weight * x, start(), plan).requires_grad


def test_an_empty_batch_stays_empty():
    plan = DPMSolverPP2M().plan(Flow(), "flow", uniform(Flow(), 4))
    assert sample(model, start(0), plan).shape == (0, 2, 5)


@pytest.mark.parametrize("solver", [DDIM(clip=0.5), DPMSolverPP2M(clip=0.5)], ids=lambda s: s.name)
def test_clipping_bounds_the_data_estimate(solver):
    result = sample(lambda x, t: 5 + x, start(), solver.plan(VP(), "sample", TIMES))
    assert torch.equal(result, torch.full_like(result, 0.5))


@pytest.mark.parametrize("kind", [DDIM, DPMSolverPP2M])
def test_dynamic_threshold_rescales_the_data_estimate(kind):
    estimate = 4 * start()
    plan = kind(threshold=(0.8, 3.0)).plan(VP(), "sample", TIMES)
    result = sample(lambda x, t: estimate, start(), plan)
    s = torch.quantile(estimate.flatten(1).abs(), 0.8, dim=1).clamp(1, 3)[:, None, None]
    torch.testing.assert_close(result, torch.clamp(estimate, -s, s) / s)


def test_kept_tensors_come_newest_first():
    time = {"time": 0.5, "model_time": 0.5, "input_scale": 1.0}
    x_is_kept = {"kept": (1.0, 0.0, 0.0), "keep": True}
    stages = (
        Stage(0, **time, x=3.0, **x_is_kept),
        Stage(1, **time, x=7.0, **x_is_kept),
        Stage(2, **time, history=(1.0, 100.0), model=0.0),
    )
    plan = Plan("test", (0.9, 0.6, 0.3, 0.0), stages)
    torch.testing.assert_close(sample(model, start(), plan), 3 * start() + 100 * start())


class Wrong(Guidance):
    def weights(self, time, step=0):
        return (0.5, 0.5)

    def outputs(self, x, t, time, step=0, state=None):
        return Guided((x,))


PLAN = DDIM(eta=1.0).plan(VP(), "v", TIMES)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: sample(model, x.long(), PLAN), TypeError, "x has dtype torch.int64"),
        (
            lambda x: sample(model, x, PLAN, seed=1, generator=torch.Generator()),
            ValueError,
            "got seed and generator, expected at most one",
        ),
        (
            lambda x: sample(model, x, PLAN, noise=x[None]),
            ValueError,
            r"noise has shape \(1, 3, 2, 5\), expected \(8, 3, 2, 5\)",
        ),
        (lambda x: sample(model, x, PLAN, seed=-1), ValueError, "seed is -1"),
        (lambda x: sample(Wrong(), x, PLAN), ValueError, "Wrong gave 1 outputs, expected 2"),
        (lambda x: sample(lambda x, t: x[:, :1], x, PLAN), RuntimeError, "sampler_step"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(start())


def test_plans_are_plain_data():
    plan = DPMSolverPP2M().plan(VP(), "v", TIMES)
    assert plan == DPMSolverPP2M().plan(VP(), "v", TIMES.tolist())
    assert all(isinstance(value, float) for value in (plan.stages[3].x, plan.stages[3].data))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.stages[0].x = 2.0
