"""The loop's wider contracts: plans per sample and per token, generators, inpainting, compilation."""

from itertools import pairwise

import pytest
import torch
from mixture import exact_denoiser

from suffuse.diffusion import (
    DDIM,
    EDM,
    PREDICTIONS,
    VP,
    ClassifierFree,
    DPMSolver,
    DPMSolverPP2M,
    DPMSolverSDE,
    Euler,
    ExponentialAdams,
    Flow,
    Guidance,
    Heun,
    Known,
    Langevin,
    Loop,
    PredictorCorrector,
    RePaint,
    SASolver,
    UniPC,
    edm_preconditioned,
    karras,
    sample,
    uniform,
)
from suffuse.diffusion.guidance import Guided
from suffuse.reference._philox import philox_normal

TIMES = uniform(VP(), 6)


def model(x, t):
    return torch.tanh(0.7 * x) + 0.1 * t.reshape(*t.shape, *[1] * (x.dim() - t.dim()))


def start(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "solver", [DDIM(eta=0.5), Heun(), DPMSolverPP2M(), UniPC(3), SASolver()], ids=lambda s: s.name
)
def test_every_sample_may_have_its_own_times(solver):
    x, noise = start(3, 2, 5), start(6, 3, 2, 5, seed=1)
    grids = [uniform(VP(), 6, start=s, end=0.0) for s in (1.0, 0.7, 0.9)]
    plans = [solver.plan(VP(), "v", grid) for grid in grids]
    together = sample(model, x, plans, noise=noise)
    for i, plan in enumerate(plans):
        alone = sample(model, x[i : i + 1], plan, noise=noise[:, i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)
    turned = torch.tensor([2, 0, 2])
    chosen = sample(model, x, plans, noise=noise, assignment=turned)
    alone = sample(model, x[:1], plans[2], noise=noise[:, :1])
    torch.testing.assert_close(chosen[:1], alone)


@pytest.mark.parametrize("solver", [Euler(), DPMSolverPP2M(), DDIM(eta=0.5)], ids=lambda s: s.name)
def test_every_token_may_have_its_own_times(solver):
    x, noise, seen = start(2, 4, 3), start(6, 2, 4, 3, seed=1), []

    def tokens(x, t):
        seen.append(t.clone())
        return model(x, t)

    plans = [solver.plan(VP(), "v", uniform(VP(), 6, start=s, end=0.0)) for s in (1.0, 0.5)]
    plans.append(plans[0].frozen(0.0))
    assignment = torch.tensor([[2, 0, 1, 0], [0, 0, 1, 2]])
    result = sample(tokens, x, plans, noise=noise, assignment=assignment)
    for b in range(2):
        for k in range(4):
            plan, rows = plans[assignment[b, k]], (slice(b, b + 1), slice(k, k + 1))
            alone = sample(model, x[rows], plan, noise=noise[:, rows[0], rows[1]])
            torch.testing.assert_close(result[rows], alone)
    assert torch.equal(result[0, 0], x[0, 0])
    assert torch.equal(result[1, 3], x[1, 3])
    assert torch.equal(seen[0], torch.tensor([[0.0, 1.0, 0.5, 1.0], [1.0, 1.0, 0.5, 0.0]]))


def test_plans_with_scaled_inputs_differ_by_sample():
    process, kind = EDM(), edm_preconditioned(0.5)
    plans = [
        Heun().plan(process, kind, karras(process, 5, sigma_min=0.05, sigma_max=top))
        for top in (80.0, 10.0)
    ]
    x = torch.stack([80.0 * start(2, 3), 10.0 * start(2, 3)])

    def network(x, t):
        return torch.tanh(x) * t.exp().reshape(-1, 1, 1)

    together = sample(network, x, plans)
    for i, plan in enumerate(plans):
        torch.testing.assert_close(together[i : i + 1], sample(network, x[i : i + 1], plan))


def test_a_list_of_generators_makes_samples_independent_of_the_batch():
    plan = DDIM(eta=1.0).plan(VP(), "v", TIMES)
    x = start(3, 2, 5)
    made = [torch.Generator().manual_seed(i) for i in range(3)]
    together = sample(model, x, plan, generator=made)
    alone = sample(model, x[1:2], plan, generator=torch.Generator().manual_seed(1))
    assert torch.equal(together[1:2], alone)


def test_noise_for_every_stage_where_a_step_has_several():
    plan = DPMSolverSDE().plan(VP(), "v", TIMES)
    stages = len(plan.stages)
    noise = torch.stack([philox_normal((2, 3), 5, i) for i in range(stages)])
    by_tensor = sample(model, start(2, 3), plan, noise=noise)
    torch.testing.assert_close(by_tensor, sample(model, start(2, 3), plan, seed=5))
    with pytest.raises(ValueError, match=r"noise has shape \(6, 2, 3\), expected .*stages"):
        sample(model, start(2, 3), plan, noise=noise[:6])


def test_corrector_steps_use_norms_of_the_batch():
    process = EDM(10.0)
    plan = PredictorCorrector(snr=0.2).plan(process, "score", [10.0, 5.0])
    x, z = 10.0 * start(4, 3), start(2, 4, 3, seed=1)

    def score(x, t):
        return -x / (1 + t[:, None] ** 2)

    s = score(x, torch.tensor([10.0]))
    e = 2 * (0.2 * z[0].norm(dim=1).mean() / s.norm(dim=1).mean()) ** 2
    x1 = x + e * s + (2 * e).sqrt() * z[0]
    x2 = x1 + 75.0 * score(x1, torch.tensor([10.0])) + 75.0**0.5 * z[1]
    plan = PredictorCorrector(snr=0.2, noisy_end=True).plan(process, "score", [10.0, 5.0])
    torch.testing.assert_close(sample(score, x, plan, noise=z), x2)


@pytest.mark.parametrize("source", ["seed", "generator"])
def test_inpainting_keeps_what_is_known(source):
    data, mask = start(2, 1, 4, 4, seed=3), torch.zeros(4, 4)
    mask[:, :2] = 1.0
    plan = RePaint(eta=1.0, jump_length=2, jump_count=2).plan(VP(), "v", TIMES)
    noise = {"seed": 3} if source == "seed" else {"generator": torch.Generator().manual_seed(3)}
    got = sample(model, start(2, 1, 4, 4), plan, known=Known(data, mask), **noise)
    assert torch.equal(got[..., :2], data[..., :2])
    assert not torch.equal(got[..., 2:], data[..., 2:])
    assert sum(not stage.calls_model for stage in plan.stages) == 2 * 2
    with pytest.raises(ValueError, match="no known picture for repaint"):
        sample(model, start(2, 1, 4, 4), plan)
    with pytest.raises(ValueError, match="a known picture for euler"):
        plan = Euler().plan(VP(), "v", TIMES)
        sample(model, start(2, 1, 4, 4), plan, known=Known(data, mask))


class FromUnconditional(Guidance):
    """CFG++ by hand: data from 3 cond - 2 null, noise from null."""

    separate_noise = True

    def weights(self, time, step=0):
        return (3.0, -2.0)

    def outputs(self, x, t, time, step=0, state=None):
        cond, null = model(x, t), 0.5 * model(x, t) - 0.1
        return Guided((cond, null), None, null, state)


def test_the_noise_part_may_come_from_another_output():
    process, x = VP(), start(2, 3).double()
    plan = Euler().plan(process, "eps", TIMES)
    got, y = sample(FromUnconditional(), x, plan), x
    for s, t in pairwise(TIMES):
        guided = FromUnconditional().outputs(y, s.expand(2), 0.0)
        eps = 3 * guided.outputs[0] - 2 * guided.outputs[1]
        data = (y - process.sigma(s) * eps) / process.alpha(s)
        y = process.alpha(t) * data + process.sigma(t) * guided.noise
    torch.testing.assert_close(got, y)
    for solver in (DDIM(), DPMSolverPP2M(), DPMSolver(eta=1.0)):
        assert sample(FromUnconditional(), x, solver.plan(process, "eps", TIMES)).isfinite().all()
    with pytest.raises(NotImplementedError, match="heun has no noise part"):
        sample(FromUnconditional(), x, Heun().plan(process, "eps", TIMES))


class OnDevice(Guidance):
    """Weights that are computed from the outputs, per sample."""

    def weights(self, time, step=0):
        return None

    def outputs(self, x, t, time, step=0, state=None):
        output = model(x, t)
        steps = 0 if state is None else state
        weight = 1 / output.flatten(1).norm(dim=1)
        return Guided((output, x), torch.stack([weight, 0.1 * weight], 1), None, steps + 1)


def test_weights_may_come_from_the_outputs():
    class ByHand(OnDevice):
        def weights(self, time, step=0):
            return (1.0,)

        def outputs(self, x, t, time, step=0, state=None):
            guided = super().outputs(x, t, time, step, state)
            w = guided.weights[..., None, None]
            return Guided((w[:, 0] * guided.outputs[0] + w[:, 1] * guided.outputs[1],))

    for solver in (Euler(), DPMSolverPP2M(), UniPC()):
        plan = solver.plan(VP(), "v", TIMES)
        got, expected = (sample(g(), start(3, 2, 5), plan) for g in (OnDevice, ByHand))
        torch.testing.assert_close(got, expected)


COMPILED = [DDIM(eta=1.0), Heun(), DPMSolverPP2M(), UniPC(3), PredictorCorrector()]


@pytest.mark.parametrize("solver", COMPILED, ids=lambda s: s.name)
def test_the_whole_loop_compiles_without_a_break(solver):
    guided = ClassifierFree(
        lambda x, t, y: model(x, t) + y, {"y": 1.0}, {"y": 0.0}, 2.0, batched=False
    )
    process = EDM(10.0)
    plan = solver.plan(process, "v", karras(process, 3, sigma_min=0.1, sigma_max=10.0))
    loop = Loop(guided, plan)
    noise = start(len(plan.stages), 2, 3, seed=1)

    def run(x, noise):
        state = loop.begin(x)
        for i, stage in enumerate(loop.stages):
            state = loop.stage(i, state, noise[i] if stage.needs_noise else None)
        return state.x

    x = start(2, 3)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, noise), run(x, noise))


@pytest.mark.parametrize(
    "solver", [ExponentialAdams(4), UniPC(3), SASolver(3, 4)], ids=lambda s: s.name
)
def test_only_what_is_needed_is_kept(solver):
    plan = solver.plan(VP(), "v", TIMES)
    loop = Loop(model, plan)
    state = loop.begin(start(2, 3))
    for i, stage in enumerate(loop.stages):
        assert len(state.history) >= len(stage.history)
        state = loop.stage(i, state, start(2, 3) if stage.needs_noise else None)
        assert len(state.history) <= 6
    assert state.history == ()


def test_stages_do_not_wait_for_the_device():
    """Everything but the numbers themselves can be had without them."""
    for solver in (
        DDIM(eta=1.0),
        UniPC(3),
        PredictorCorrector(),
        DPMSolverSDE(),
        Langevin(repeats=2),
    ):
        process = EDM(10.0)
        plan = solver.plan(process, "v", karras(process, 4, sigma_min=0.1, sigma_max=10.0))
        loop = Loop(model, plan, device="meta")
        state = loop.begin(torch.empty(2, 3, device="meta"))
        for i, stage in enumerate(loop.stages):
            z = torch.empty(2, 3, device="meta") if stage.needs_noise else None
            state = loop.stage(i, state, z)
        assert state.x.shape == (2, 3)


PLAN = Euler().plan(VP(), "v", TIMES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: sample(model, x, [PLAN, PLAN]), r"assignment has shape \(2,\), expected"),
        (
            lambda x: sample(model, x, [PLAN] * 2, assignment=torch.tensor([0, 1, 2])),
            "outside 0 ... 1",
        ),
        (
            lambda x: sample(model, x, [PLAN, Heun().plan(VP(), "v", TIMES), PLAN]),
            "have .* stages, expected the same number",
        ),
        (
            lambda x: sample(model, x, PLAN, generator=[torch.Generator()] * 2),
            "generator has 2 entries, expected 3",
        ),
        (
            lambda x: Loop(model, DDIM(eta=1.0).plan(VP(), "v", TIMES)).stage(
                0, Loop(model, PLAN).begin(x)
            ),
            "noise",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        call(start(3, 2, 5))


def test_tokens_have_no_quantiles():
    plan = DPMSolverPP2M(threshold=(0.9, 2.0)).plan(VP(), "v", TIMES)
    with pytest.raises(NotImplementedError, match="whole samples, not of tokens"):
        sample(model, start(2, 4, 3), plan, assignment=torch.zeros(2, 4, dtype=torch.int64))


def test_frozen_samples_stay_beside_moving_ones():
    process, kind = EDM(), PREDICTIONS["sample"]
    plan = DPMSolverPP2M().plan(process, kind, karras(process, 6, sigma_min=0.1, sigma_max=10.0))
    x = 10 * start(4, 2).double()
    denoiser = exact_denoiser(process, kind)
    moved = sample(denoiser, x, [plan, plan.frozen(10.0)], assignment=torch.tensor([0, 1, 0, 1]))
    assert torch.equal(moved[1::2], x[1::2])
    torch.testing.assert_close(moved[::2], sample(denoiser, x[::2], plan))


def test_flow_starts_from_pure_noise_with_every_solver():
    from suffuse.diffusion import SOLVERS

    for name, solver in SOLVERS.items():
        if name in ("reverse_sde", "predictor_corrector", "langevin", "repaint"):
            continue  # these need alpha > 0, or a known picture
        plan = solver().plan(Flow(), "flow", uniform(Flow(), 5))
        assert sample(model, start(2, 3), plan, seed=0).isfinite().all(), name
