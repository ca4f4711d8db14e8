"""Every drop-in against diffusers' class: all samples of a run, in float64 and in float32.

In float64 both agree to 1e-12 (diffusers in double precision, see scheduler_peer). In float32 they
agree to 1e-6; where they do not, our error against the double run is below 1e-6, or at most twice that
of diffusers' own float32 run: some formulas cancel.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scheduler_peer import double_precision, drop_in, in_double, peer, relative, trajectory

STEPS = (4, 20, 50)
EPS, SAMPLE, V, FLOW = "epsilon", "sample", "v_prediction", "flow_prediction"
SPACINGS = ("leading", "trailing", "linspace")
RESPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")

Case = tuple[str, dict[str, Any], dict[str, Any]]


def grid(**options: Any) -> list[dict[str, Any]]:
    return [
        dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())
    ]


def cases() -> Iterator[Case]:
    """(class, configuration, how to run it)."""
    for name, configs, run in (*_by_timestep(), *_on_sigmas(), *_on_lambda(), *_others()):
        for config in configs:
            yield name, config, run


def _by_timestep() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    noisy = {"noisy": True}
    usual = grid(prediction_type=(EPS, SAMPLE, V), timestep_spacing=SPACINGS)
    for name in ("DDIMScheduler", "DDIMParallelScheduler"):
        yield name, [c | {"clip_sample": False} for c in usual] + usual, {}
        eta = {"eta": 0.7, "use_clipped_model_output": True}
        yield name, grid(prediction_type=(EPS, SAMPLE, V)), {"stepping": eta, **noisy}
        schedules = ("scaled_linear", "squaredcos_cap_v2")
        yield name, grid(beta_schedule=schedules), {"stepping": {"eta": 1.0}, **noisy}
        threshold = {"thresholding": True, "sample_max_value": 2.0}
        yield name, [threshold | c for c in grid(prediction_type=(EPS, V))], {}
        zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        yield name, [zero | {"prediction_type": V}, {"set_alpha_to_one": False}], {}
    # Without noise "sample" has no noise estimate: diffusers gives NaN.
    inverse = grid(prediction_type=(EPS, V), timestep_spacing=SPACINGS[:2])
    yield "DDIMInverseScheduler", inverse + [c | {"clip_sample": False} for c in inverse], {}
    for name in ("CogVideoXDDIMScheduler",):
        yield name, [*usual, zero | {"prediction_type": V}], {}
    for name in ("DDPMScheduler", "DDPMParallelScheduler"):
        yield name, usual + [c | {"clip_sample": False} for c in usual], noisy
        kinds = grid(variance_type=("fixed_small_log", "fixed_large"))
        yield name, kinds + grid(beta_schedule=("sigmoid", "laplace")), noisy
        yield name, [{"thresholding": True}], noisy
    yield "UnCLIPScheduler", grid(prediction_type=(EPS, SAMPLE), clip_sample=(True, False)), noisy
    pndm = grid(prediction_type=(EPS, V), timestep_spacing=SPACINGS, skip_prk_steps=(True, False))
    yield "PNDMScheduler", [*pndm, {"set_alpha_to_one": True}], {}


def _on_sigmas() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    noisy = {"noisy": True}
    respaced: list[dict[str, Any]] = [{option: True} for option in RESPACINGS]
    usual = grid(prediction_type=(EPS, SAMPLE, V), timestep_spacing=SPACINGS)
    narrow = grid(prediction_type=(EPS, V), timestep_spacing=SPACINGS)
    name = "EulerDiscreteScheduler"
    yield name, usual + [c | {"final_sigmas_type": "sigma_min"} for c in usual], {}
    yield name, usual, {"stepping": {"s_churn": 5.0, "s_noise": 1.01, "s_tmin": 0.1}, **noisy}
    yield name, respaced + [c | {"sigma_min": 0.1, "sigma_max": 10.0} for c in respaced], {}
    yield name, [{"interpolation_type": "log_linear"}], {}
    yield name, [{"timestep_type": "continuous", "prediction_type": V}], {}
    yield name, [{"rescale_betas_zero_snr": True, "prediction_type": V}], {}
    yield "EulerAncestralDiscreteScheduler", narrow, noisy
    heun = usual + [c | {"clip_sample": True} for c in usual] + respaced
    yield "HeunDiscreteScheduler", [*heun, {"beta_schedule": "exp"}], {}
    yield "KDPM2DiscreteScheduler", narrow + respaced, {}
    yield "KDPM2AncestralDiscreteScheduler", narrow + respaced, noisy
    yield "LMSDiscreteScheduler", usual + respaced, {}
    yield "LMSDiscreteScheduler", grid(prediction_type=(EPS, SAMPLE, V)), {"stepping": {"order": 3}}
    edm = grid(prediction_type=(EPS, V), sigma_schedule=("karras", "exponential"))
    ends = [c | {"final_sigmas_type": "sigma_min"} for c in edm]
    yield "EDMEulerScheduler", edm + ends, {}
    yield "EDMEulerScheduler", edm, {"stepping": {"s_churn": 5.0, "s_noise": 1.01}, **noisy}
    orders = [c | {"solver_order": order} for c in edm for order in (1, 2, 3)]
    yield "EDMDPMSolverMultistepScheduler", orders + ends, {}
    sde = grid(solver_type=("midpoint", "heun"), solver_order=(1, 2))
    sde = [c | {"algorithm_type": "sde-dpmsolver++"} for c in sde]
    yield "EDMDPMSolverMultistepScheduler", sde, noisy


def _on_lambda() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    noisy = {"noisy": True}
    respaced: list[dict[str, Any]] = [{option: True} for option in RESPACINGS]
    usual = grid(prediction_type=(EPS, SAMPLE, V), timestep_spacing=SPACINGS)
    flow = {"use_flow_sigmas": True, "prediction_type": FLOW, "flow_shift": 3.0}
    orders = grid(solver_order=(1, 2, 3), solver_type=("midpoint", "heun"))
    kinds = [c | {"prediction_type": p} for c in orders for p in (EPS, SAMPLE, V)]
    noise_form = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    sde = {"algorithm_type": "sde-dpmsolver++"}
    name = "DPMSolverMultistepScheduler"
    yield name, usual + kinds + respaced + [{"use_lu_lambdas": True}, flow], {}
    yield name, [c | noise_form for c in kinds], {}
    yield name, [c | sde for c in kinds], noisy
    yield (
        name,
        [
            c | noise_form | {"algorithm_type": "sde-dpmsolver"}
            for c in kinds
            if c["solver_order"] < 3
        ],
        noisy,
    )
    yield (
        name,
        [
            {"rescale_betas_zero_snr": True, "prediction_type": V},
            {"lambda_min_clipped": -3.0},
            {"thresholding": True},
            {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
            {"lower_order_final": False},
        ],
        {},
    )
    inverse = "DPMSolverMultistepInverseScheduler"
    yield inverse, usual + orders + [flow, {"algorithm_type": "dpmsolver"}], {}
    # With more steps some timesteps round alike, and diffusers starts at the second of the two.
    yield inverse, respaced, {"steps": (4, 20)}
    single = "DPMSolverSinglestepScheduler"
    # With lower_order_final False they are set to True, with a warning, in diffusers as here.
    yield single, kinds + respaced + [c | {"lower_order_final": True} for c in kinds] + [flow], {}
    yield single, [c | noise_form for c in kinds] + [{"thresholding": True}], {}
    # Weights of up to 12 multiply every rounding of these.
    steep = {"floor": 2e-6, **noisy}
    yield single, [c | sde | {"lower_order_final": True} for c in orders], steep
    unipc = "UniPCMultistepScheduler"
    kinds = grid(prediction_type=(EPS, SAMPLE, V), solver_order=(1, 2, 3))
    # bh1 has no step to sigma = 0 in diffusers (NaN).
    ends = [c | {"final_sigmas_type": "sigma_min"} for c in kinds]
    yield unipc, usual + kinds + ends + respaced + [flow], {}
    yield unipc, [c | {"solver_type": "bh1"} for c in ends], {}
    noise = [c | {"predict_x0": False} for c in ends]
    yield unipc, noise + [c | {"solver_type": "bh1"} for c in noise], {}
    yield (
        unipc,
        [
            flow | {"solver_order": 3, "shift_terminal": 0.1},
            flow | {"use_karras_sigmas": True},
            {"rescale_betas_zero_snr": True, "prediction_type": V},
            {"thresholding": True},
            {"disable_corrector": [0, 1, 2]},
            {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        ],
        {},
    )
    dynamic = flow | {"use_dynamic_shifting": True}
    yield (
        unipc,
        [dynamic | c for c in grid(time_shift_type=("exponential", "linear"))],
        {"setting": {"mu": 0.9}},
    )
    sa = "SASolverScheduler"
    # diffusers' closed forms for 4 nodes lose more digits than 1e-12 allows.
    orders = grid(predictor_order=(1, 2, 3), corrector_order=(1, 2, 3))
    yield sa, usual + orders + respaced + [flow], noisy
    yield sa, [c | {"algorithm_type": "noise_prediction"} for c in orders], noisy
    deis = "DEISMultistepScheduler"
    yield deis, usual + grid(solver_order=(1, 2, 3), lower_order_final=(True, False)), {}
    yield deis, [*respaced, flow | {"solver_order": 3}, {"thresholding": True}], {}


def _others() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    noisy = {"noisy": True}
    kinds = grid(prediction_type=(EPS, SAMPLE, V))
    yield "LCMScheduler", kinds + [c | {"clip_sample": True} for c in kinds], noisy
    yield "LCMScheduler", [{"thresholding": True}], noisy
    for eta in (0.0, 0.3, 0.8):
        yield "TCDScheduler", kinds, {"stepping": {"eta": eta}, **noisy}
    steps = {"steps": (1, 4, 20, 40)}
    yield "CMStochasticIterativeScheduler", grid(clip_denoised=(True, False)), steps | noisy
    yield "SCMScheduler", [{}], {"steps": (2,), **noisy}
    yield "SCMScheduler", [{}], {"setting": {"intermediate_timesteps": None}, **noisy}
    yield "IPNDMScheduler", [{}], {}
    flow = "FlowMatchEulerDiscreteScheduler"
    shifts = grid(shift=(1.0, 3.0), shift_terminal=(None, 0.1))
    respaced: list[dict[str, Any]] = [{option: True} for option in RESPACINGS]
    yield flow, [*shifts, *respaced, {"invert_sigmas": True, "shift": 3.0}], {}
    yield flow, [c | {"stochastic_sampling": True} for c in shifts], noisy
    dynamic = grid(use_dynamic_shifting=(True,), time_shift_type=("exponential", "linear"))
    for name in (flow, "FlowMatchLCMScheduler"):
        yield name, dynamic, {"setting": {"mu": 0.8}, "noisy": name != flow}
    yield "FlowMatchLCMScheduler", shifts + respaced, noisy
    heun = "FlowMatchHeunDiscreteScheduler"
    yield heun, grid(shift=(1.0, 3.0)), {}
    yield heun, grid(shift=(1.0, 3.0)), {"stepping": {"s_churn": 3.0}, **noisy}
    yield "LTXEulerAncestralRFScheduler", grid(eta=(0.0, 0.5, 1.0), s_noise=(1.0, 0.9)), noisy
    helios = grid(scheduler_type=("unipc",), solver_order=(1, 2, 3))
    helios += [{"scheduler_type": "euler"}, {"solver_type": "bh1"}, {"shift": 3.0, "stages": 3}]
    for stage in (0, 1, 2):
        yield "HeliosScheduler", helios, {"setting": {"stage_index": stage}}
    shifted = {"use_dynamic_shifting": True, "time_shift_type": "linear"}
    yield "HeliosScheduler", [shifted], {"setting": {"stage_index": 1, "mu": 0.8}}
    whole = {"stages": 1, "stage_range": [0, 1], "scheduler_type": "euler"}
    yield "HeliosScheduler", [whole, whole | {"shift": 3.0}], {}
    yield "FlowMapEulerDiscreteScheduler", grid(shift=(1.0, 3.0)), {}
    yield "MiniMaxH3Scheduler", grid(shift=(1.0, 12.0)), {}
    if importlib.util.find_spec("torchsde"):
        brownian = grid(prediction_type=(EPS, V), noise_sampler_seed=(3, [3, 4]))
        yield (
            "DPMSolverSDEScheduler",
            brownian + [c | {"noise_sampler_seed": 3} for c in respaced],
            {},
        )
        cosine = grid(solver_order=(1, 2), solver_type=("midpoint", "heun"))
        yield "CosineDPMSolverMultistepScheduler", cosine, noisy


def _id(case: Case) -> str:
    name, config, run = case
    options = {**config, **run.get("stepping", {}), **run.get("setting", {})}
    return "-".join([name.removesuffix("Scheduler"), *(f"{k}={v}" for k, v in options.items())])


@pytest.mark.parametrize("case", list(cases()), ids=_id)
@pytest.mark.filterwarnings("ignore")
def test_trajectories_equal(case: Case) -> None:
    name, config, run = case
    for steps in run.get("steps", STEPS):
        _check_double(name, config, run, steps)
        _check_single(name, config, run, steps)


def _run(cls: Any, config: dict[str, Any], run: dict[str, Any], steps: int, dtype: Any) -> Any:
    generator = torch.Generator().manual_seed(3) if run.get("noisy") else None
    setting = {"num_inference_steps": steps, **run.get("setting", {})}
    with torch.no_grad():
        samples, second = trajectory(
            cls(**config), dtype, setting=setting, stepping=run.get("stepping"), generator=generator
        )
    drawn = None if generator is None else torch.rand((), generator=generator)
    return samples, second, drawn


def _check_double(name: str, config: dict[str, Any], run: dict[str, Any], steps: int) -> None:
    with double_precision():
        ours = _run(drop_in(name), config, run, steps, torch.float64)
        theirs = _run(in_double(peer(name)), config, run, steps, torch.float64)
    assert ours[2] == theirs[2], "another number of draws from the generator"
    for what, a, b in zip(("samples", "second"), ours, theirs, strict=False):
        assert relative(a, b) <= 1e-12, f"{what}, {steps} steps, float64"


def _check_single(name: str, config: dict[str, Any], run: dict[str, Any], steps: int) -> None:
    ours = _run(drop_in(name), config, run, steps, torch.float32)
    theirs = _run(peer(name), config, run, steps, torch.float32)
    assert ours[2] == theirs[2], "another number of draws from the generator"
    for i, what in enumerate(("samples", "second")):
        if relative(ours[i], theirs[i]) <= 1e-6:
            continue
        with double_precision():
            # With the same noise, so that only rounding is between the three.
            cls = in_double(peer(name), drawing=torch.float32)
            exact = _run(cls, config, run, steps, torch.float64)
        error, rounding = relative(ours[i], exact[i]), relative(theirs[i], exact[i])
        message = f"{what}, {steps} steps, float32: {error:.1e}, diffusers' own {rounding:.1e}"
        assert error <= max(run.get("floor", 1e-6), 2 * rounding), message
